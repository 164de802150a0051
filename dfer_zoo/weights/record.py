"""Records of weights: identity, origin, labels, preprocessing and metrics. Frozen, and read strictly."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, WeightsError
from .schema import SCHEMA, upgraded
from .structure import Reader

DISTRIBUTIONS = {
    "hub": "safetensors on the Hugging Face Hub, at a pinned commit",
    "origin": "downloaded from the authors' host and converted on this machine",
    "manual": "converted on this machine from a file that must be downloaded by hand",
    "bundled": "inside the package",
    "composed": "composed of the weights in `backbones`; all other parts are initialized",
    "local": "written by save_pretrained",
}

CONVERTED = ("origin", "manual")  # made on this machine, from the authors' file

# kind -> a pattern for `where`; the comments explain `where` and `member`
ORIGIN_KINDS = {
    "https": r"https://\S+",  # a direct link; member: the file inside a zip archive
    "gdrive": r"[\w-]{10,}",  # the id of a Google Drive file
    "gdrive_folder": r"[\w-]{10,}",  # the id of a folder; member: a shell pattern that matches one file name
    "hub": r"[\w.-]+/[\w.-]+@[0-9a-f]{40}/\S+",  # owner/repo@commit/file
    "pypi": r"[\w.-]+==[\w.]+/[\w.-]+\.whl",  # project==version/wheel; member: the file inside the wheel
    "ftp": r"ftp://\S+",
    "page": r"https?://\S+",  # a web page for people; never downloaded
}


@dataclass(frozen=True)
class Origin:
    """One place where the authors' checkpoint is published.

    Attributes:
        kind: A key of `ORIGIN_KINDS`.
        where: The URL, file id or package, in the format of its kind.
        member: Which file of an archive or a folder.
        size: Bytes of the checkpoint itself, not of an archive around it.
        sha256: Digest of the checkpoint itself.
        note: Further remarks.

    Example:
        >>> Origin("gdrive", "1tH1d2zZv2HtcQFPrGuVWJHXmD9sTeddQ").link
        'https://drive.google.com/file/d/1tH1d2zZv2HtcQFPrGuVWJHXmD9sTeddQ/view'
    """

    kind: str  # a key of ORIGIN_KINDS
    where: str
    member: str | None = None
    size: int | None = None  # bytes
    sha256: str | None = None
    note: str | None = None

    @property
    def link(self) -> str:
        """The link for a browser."""
        if self.kind == "gdrive":
            return f"https://drive.google.com/file/d/{self.where}/view"
        if self.kind == "gdrive_folder":
            return f"https://drive.google.com/drive/folders/{self.where}"
        if self.kind == "hub":
            repo_id, _, rest = self.where.partition("@")
            revision, _, file = rest.partition("/")
            return f"https://huggingface.co/{repo_id}/blob/{revision}/{file}"
        if self.kind == "pypi":
            project, _, version = self.where.partition("/")[0].partition("==")
            return f"https://pypi.org/project/{project}/{version}/#files"
        return self.where


RECALL = "recall of "


@dataclass(frozen=True)
class Metric:
    """One published or measured metric, in percent, and its source.

    Attributes:
        name: "uar", "war", "accuracy", or "recall of LABEL".
        value: The number.
        protocol: How it was measured.
        source: Where it is published.

    Example:
        >>> Metric("uar", 66.85, "mean of the five folds", "the paper, table 1").value
        66.85
    """

    name: str  # "uar", "war", "accuracy", "recall of happiness"
    value: float
    protocol: str
    source: str

    @property
    def label(self) -> str:
        """The class whose recall this is; empty for other metrics.

        >>> Metric("recall of fear", 42.35, "DFEW", "the paper").label
        'fear'
        """
        return self.name.removeprefix(RECALL) if self.name.startswith(RECALL) else ""


DETECTORS = ("mtcnn", "cascade", "yunet")  # names of `media.faces.detect`

OPTIONAL = {"optional": True}  # a record of the manifest may omit the field, which then has its default


@dataclass(frozen=True)
class VideoSpec:
    """How a clip becomes the ``video`` argument. Rules are named as in `transforms.sampling` and `transforms.images`.

    Attributes:
        num_frames: Frames of one view.
        img_size: Height and width.
        sampling: Which frames are taken.
        rate: Stride of "strided".
        segments: Views along time, whose probabilities are averaged.
        short_clip: What to do if a clip has fewer frames than needed.
        fps: The frame rate of the sampling rule.
        window: Number of frames that the window rules choose from.
        resize: The interpolation.
        resize_shorter: Size of the shorter side before a center crop.
        channel_order: "rgb" or "bgr".
        mean: Subtracted from values in [0, 1].
        std: Divides the result.
        face_crop: The face crop that the weights were trained on.
        detector: The face detector used for training, one of `DETECTORS`. None: the data set ships face crops.

    Example:
        >>> VideoSpec(num_frames=16, img_size=224, sampling="segment_centres").resize
        'pillow_bilinear'
    """

    num_frames: int
    img_size: int
    sampling: str  # "segment_centres", "strided", "leading_window"
    rate: int = 1  # stride of "strided"
    segments: int = 1  # views along time whose probabilities are averaged
    short_clip: str = "pad_last"  # too few frames: "pad_last", "repeat_first", "stretch", "black"
    fps: float | None = None  # of the sampling rule; None: the clip's own
    window: int | None = None  # frames, at `fps`, for "leading_window" and "centred_window"
    resize: str = "pillow_bilinear"  # "pillow_bilinear" (antialiased), "opencv_bilinear" (not)
    resize_shorter: int | None = None  # shorter side first, then a centre crop; None: straight to img_size x img_size
    channel_order: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of values in [0, 1]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    face_crop: str = "aligned"  # a rule of `media.faces`
    # the number of frames of a listed clip: from the "list", or the number of images in the "folder"
    frame_count: str = field(default="list", metadata=OPTIONAL)
    min_frames: int = field(default=0, metadata=OPTIONAL)  # listed clips with fewer frames are left out
    # if the frames of a clip differ in size: resize each from its "own" size, or all of them to that of the "first"
    frame_size: str = field(default="own", metadata=OPTIONAL)
    detector: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class AudioSpec:
    """How a waveform becomes the ``audio`` argument. The front ends are the keys of `transforms.audio`.

    Attributes:
        front_end: "mfcc" or "kaldi_fbank".
        shape: Shape of one clip's tensor.
        sample_rate: The waveform is resampled to this. None: the file's own rate.
        seconds: The waveform is cut or padded to this length.
        silence_value: Fills the tensor of a clip without sound.

    Example:
        >>> AudioSpec("kaldi_fbank", (1, 512, 128), sample_rate=16000).silence_value
        0.0
    """

    front_end: str  # "mfcc", "kaldi_fbank"
    shape: tuple[int, ...]  # of one clip, as forward takes it
    sample_rate: int | None = None  # None: the file's own, without resampling
    seconds: float | None = None  # cut or padded to this length first
    silence_value: float = 0.0  # fills the input of a clip without sound
    # a listed clip whose sound file is missing: "keep" it (reading it fails), or use it without sound ("none")
    without_audio: str = field(default="keep", metadata=OPTIONAL)


@dataclass(frozen=True, repr=False)
class Weights:
    """The record of a weights file: identity, origin, labels, preprocessing, metrics and licence.

    Attributes:
        arch: The architecture.
        tag: The name of these weights among those of the architecture.
        distribution: How to get the file, a key of `DISTRIBUTIONS`.
        origin: Where the authors publish the file.
        labels: Class names in the order of the logits.
        video: Preprocessing of frames.
        audio: Preprocessing of sound.
        metrics: Published numbers.
        license: SPDX identifier, or "unknown".
        license_source: Where the licence is stated.
        caution: A known limitation.

    Example:
        >>> from dfer_zoo import get_weights
        >>> get_weights("mma_dfer.dfew_fold1").video.num_frames
        16
    """

    arch: str
    tag: str
    distribution: str  # a key of DISTRIBUTIONS
    repo_id: str | None
    revision: str | None  # 40 hexadecimal digits
    filename: str | None
    sha256: str | None
    size: int | None
    params: int
    model_args: Mapping[str, Any]
    labels: tuple[str, ...]
    video: VideoSpec | None
    audio: AudioSpec | None
    dataset: str | None
    fold: int | None
    metrics: tuple[Metric, ...]
    license: str
    license_source: str
    origin: tuple[Origin, ...] = ()  # places of the same file, tried in this order
    # {part: "arch.tag" or "open_clip:NAME/TAG"}; for converted weights, the parts that the authors' file leaves out
    backbones: Mapping[str, str] = field(default_factory=dict)
    caution: str | None = None  # shown with every prediction
    training_data: tuple[str, ...] = ()  # includes pre-training; for terms see `weights.provenance`
    open_questions: tuple[str, ...] = ()  # what is not known about this file
    opened: bool = False  # whether the authors of the zoo have loaded this file
    schema: int = SCHEMA

    def __hash__(self) -> int:  # the generated method fails on mappings
        return hash((self.arch, self.tag, self.distribution, self.revision, self.sha256))

    @property
    def origin_page(self) -> str | None:
        """A link to the first origin, for a browser."""
        return self.origin[0].link if self.origin else None

    @property
    def origin_sha256(self) -> str | None:
        """The digest of the authors' file, if it is known."""
        return next((origin.sha256 for origin in self.origin if origin.sha256), None)

    @property
    def name(self) -> str:
        return f"{self.arch}.{self.tag}"

    def __repr__(self) -> str:
        return f"Weights({self.name}: {self.distribution}, {self.params:,} parameters, {len(self.labels)} labels)"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "weights record") -> Weights:
        """Read a record of the manifest. All fields are required."""
        return _checked(_STRICT.read(cls, upgraded(data, where), where), where)

    @classmethod
    def from_header(cls, data: Mapping[str, Any], where: str) -> Weights:
        """Read the record in a weights file. Fields that are newer than the file have their defaults."""
        return _checked(_LENIENT.read(cls, upgraded(data, where), where), where)


_HINT = " The file is damaged or was written by another version of dfer_zoo."
_STRICT = Reader(WeightsError, hint=_HINT)
_LENIENT = Reader(WeightsError, defaults=True, hint=_HINT)


def _checked(record: Weights, where: str) -> Weights:
    _check_identity(record, where)
    for number, origin in enumerate(record.origin):
        _check_origin(origin, f"{where}.origin[{number}]")
    return record


def _check_origin(origin: Origin, where: str) -> None:
    if origin.kind not in ORIGIN_KINDS:
        raise WeightsError(f"{where}: kind '{origin.kind}' is not one of {', '.join(ORIGIN_KINDS)}.")
    if not re.fullmatch(ORIGIN_KINDS[origin.kind], origin.where):
        raise WeightsError(f"{where}: {origin.where!r} is not a {origin.kind} location.")
    if origin.kind in ("gdrive_folder", "pypi") and not origin.member:
        raise WeightsError(f"{where}: a {origin.kind} origin needs a member.")
    if (origin.size or 0) < 0:
        raise WeightsError(f"{where}: size is {origin.size}; expected 0 or more.")
    if not re.fullmatch(r"[0-9a-f]{64}", origin.sha256 or "0" * 64):
        raise WeightsError(f"{where}: sha256 is {origin.sha256!r}, not 64 hexadecimal digits.")


def _check_identity(record: Weights, where: str) -> None:
    if record.distribution not in DISTRIBUTIONS:
        raise WeightsError(f"{where}: distribution '{record.distribution}' is not one of {', '.join(DISTRIBUTIONS)}.")
    if record.distribution == "hub" and not re.fullmatch(r"[0-9a-f]{40}", record.revision or ""):
        raise WeightsError(
            f"{where}: revision {record.revision!r} is not a 40-digit commit, so the weights could change."
        )
    for name in ("params", "size"):
        if (getattr(record, name) or 0) < 0:
            raise WeightsError(f"{where}: {name} is {getattr(record, name)}; expected 0 or more.")
    if not re.fullmatch(r"([\w-][\w.-]*/)*[\w-][\w.-]*", record.filename or "none"):
        raise WeightsError(f"{where}: filename {record.filename!r} is not a path inside a repository.")
    if len(set(record.labels)) != len(record.labels):
        raise WeightsError(f"{where}: the labels {list(record.labels)} are not distinct.")
    if not re.fullmatch(r"[0-9a-f]{64}", record.sha256 or "0" * 64):
        raise WeightsError(f"{where}: sha256 is {record.sha256!r}, not 64 hexadecimal digits.")
    if record.video is not None and record.video.detector not in (None, *DETECTORS):
        raise WeightsError(f"{where}: detector {record.video.detector!r} is not one of {', '.join(DETECTORS)}.")
    if record.distribution in ("hub", "bundled"):
        identity = ("filename", "sha256", "size", *(("repo_id",) if record.distribution == "hub" else ()))
        unknown = [field for field in identity if getattr(record, field) is None]
        if unknown:
            raise WeightsError(
                f"{where}: {', '.join(unknown)} must not be null for the distribution '{record.distribution}'."
            )
    if record.backbones and record.distribution not in ("composed", *CONVERTED):
        raise WeightsError(f"{where}: 'backbones' must not be given for the distribution '{record.distribution}'.")
    if record.distribution == "composed" and not record.backbones:
        raise WeightsError(f"{where}: 'backbones' must be given for the distribution 'composed'.")
    if record.distribution == "origin" and all(origin.kind == "page" for origin in record.origin):
        raise WeightsError(f"{where}: the distribution 'origin' needs an origin that can be fetched.")


def check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; expected a positive integer.")


def check_labels(labels: Sequence[str]) -> None:
    if isinstance(labels, str):
        raise InputError(f"labels is the string {labels!r}; expected a list of class names.")
    if not isinstance(labels, Collection) or not all(isinstance(name, str) for name in labels):
        raise InputError(f"labels is {labels!r}; expected a list of class names.")
    if len(set(labels)) != len(labels):
        raise InputError(f"The labels {list(labels)} are not distinct.")
