"""Annotation files of the published systems -> one kind of row."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import InputError, MediaError, suggest
from ..limits import check_limit
from ..media.clip import Clip, Frames
from ..media.container import open_file


@dataclass(frozen=True)
class Row:
    """One labelled clip of a data set."""

    path: str  # a video file, or a folder of frames
    label: int
    audio: str | None = None  # where the sound is, if not in the video file
    num_frames: int | None = None  # as the annotation says; the published rules trust it over the folder
    subset: str | None = None  # "training", "validation", "testing"
    order: str = "numeric"  # of the frames in a folder, as `read_clip` takes it


SPEECH = 1  # the vocal channel in the names of RAVDESS; 2 is song
SUBSETS = ("training", "validation", "testing")

CSV_HEADER = re.compile(r"(?:video_name|path) *, *(?:labels?|id)")  # of S2D's lists

# Where the sound of a folder of frames lies. {name} is the folder's name, {number} the name as a number without
# leading zeros, {parent} the path of the folder around it, {above} the path one further up.
AUDIO_RULES = {
    "dfew": "{above}/raw_wav/{number}.wav",
    "mafw": "{above}/clips_wav/{name}.wav",
}


def read_frame_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    audio: str | Callable[[str], str | None] | None = None,
    without_audio: str = "keep",
    num_classes: int | None = None,
    min_frames: int = 0,
    order: str = "string",
    subset: str | None = None,
) -> list[Row]:
    """The three-field text lists of DFER-CLIP, MMA-DFER and DK-CLIP: "folder count label", one clip a line.

    ``root`` is put in front of the folders (DK-CLIP's are relative); ``replace=("/their/disk", "/mine")`` exchanges the
    start of the absolute ones. ``audio`` says where the sound is: one of `AUDIO_RULES`, such a template, or a function
    of the folder; nothing is guessed from the path. For rows whose sound file is not there ``without_audio`` is "keep"
    (reading the clip will fail, as published for DFEW), "none" (no sound, as published for MAFW) or "error".
    Clips shorter than ``min_frames`` are left out (DK-CLIP: 3); without it a clip of 0 frames is an error. Frames are
    sorted as texts, as published, also where their names have no leading zeros (MMA-DFER's faces of MAFW: 0, 1, 10,
    100, ...); ``order="numeric"`` is the order of time, for weights that were trained with it.

    >>> read_frame_list("DFEW_set_1_test.txt", audio="dfew", num_classes=7)  # doctest: +SKIP
    """
    if without_audio not in ("keep", "none", "error"):
        raise InputError(f"without_audio is '{without_audio}'; expected 'keep', 'none' or 'error'.")
    rows = []
    for where, line in _lines(path):
        folder, count, label = _three_fields(line, where, num_classes)
        if count < min_frames:
            continue
        if count == 0:
            raise InputError(
                f"{where}: the clip {folder} has 0 frames; take it out of the list, "
                "or leave such clips out with min_frames=1."
            )
        folder = _relocated(folder, root, replace, where)
        sound = audio_path(folder, audio)
        if sound is not None and without_audio != "keep" and not Path(sound).is_file():
            if without_audio == "error":
                raise InputError(f"{where}: there is no sound file {sound}.")
            sound = None
        rows.append(Row(folder, label, sound, count, subset, order))
    return rows


def read_clip_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    num_classes: int | None = None,
    order: str = "string",
    subset: str | None = None,
) -> list[Row]:
    """The two-field text lists of MAE-DFER: "folder label", or "video 0" for pre-training. Options as `read_frame_list`'s.
    The label is what stands behind the last blank, so that a path may hold blanks too.

    >>> read_clip_list("dfew_fold1/test.csv", replace=("/their/disk", "/mine"), num_classes=7)  # doctest: +SKIP
    """
    rows = []
    for where, line in _lines(path):
        clip, _, label = line.rpartition(" ")
        if not clip.strip() or not label.isdecimal():
            raise InputError(f"{where}: expected 'folder label', found {line!r}.")
        _check_number("label", label, where)
        if num_classes is not None and int(label) >= num_classes:
            raise InputError(
                f"{where}: the label is {label}; with {num_classes} classes it must be below {num_classes}."
            )
        rows.append(Row(_relocated(clip.strip(), root, replace, where), int(label), subset=subset, order=order))
    return rows


def read_csv_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    num_classes: int | None = None,
    order: str = "string",
    subset: str | None = None,
) -> list[Row]:
    """The lists of S2D: a header and "folder,label" lines, folders relative to ``root`` and kept as text ("00017").

    Args:
        path: A file whose header is "video_name,label", "video_name,labels" or "path,id".
        root: Put in front of the folders.
        num_classes: Labels must be below it.
        order: Of the frames in a folder, as `read_clip` takes it.
        subset: The subset that the rows are noted as.

    Returns:
        One row per line.

    Raises:
        InputError: If the file cannot be read, or a line is not of this form.

    Examples:
        >>> read_csv_list("DFEW_set_1_test.csv", root="Clip/clip_224x224_16f", num_classes=7)  # doctest: +SKIP
    """
    rows = []
    for number, (where, line) in enumerate(_lines(path)):
        clip, _, label = line.rpartition(",")
        if number == 0 and CSV_HEADER.fullmatch(line):
            continue
        if not clip.strip() or not label.strip().isdecimal():
            raise InputError(f"{where}: expected 'folder,label', found {line!r}.")
        if num_classes is not None and int(label) >= num_classes:
            raise InputError(
                f"{where}: the label is {int(label)}; with {num_classes} classes it must be below {num_classes}."
            )
        rows.append(Row(_relocated(clip.strip(), root, None, where), int(label), subset=subset, order=order))
    return rows


def audio_path(folder: str, rule: str | Callable[[str], str | None] | None) -> str | None:
    """
    >>> audio_path("/data/dfew/clip_224x224/01234", "dfew")
    '/data/dfew/raw_wav/1234.wav'
    >>> audio_path("/data/mfaw/clips_faces/04321", "mafw")
    '/data/mfaw/clips_wav/04321.wav'
    """
    if rule is None:
        return None
    if callable(rule):
        return rule(folder)
    if "{" not in rule and rule not in AUDIO_RULES:
        raise InputError(f"There is no audio rule '{rule}', and it is no template.{suggest(rule, AUDIO_RULES)}")
    template, place = AUDIO_RULES.get(rule, rule), PurePosixPath(folder.replace("\\", "/"))
    if "{number}" in template and not place.name.isdecimal():
        raise InputError(f"The audio rule '{template}' wants folders that are named by a number; this is {folder}.")
    number = int(place.name) if place.name.isdecimal() else None
    try:
        return template.format(name=place.name, number=number, parent=place.parent, above=place.parent.parent)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"The audio rule '{template}' cannot be filled in ({error}); it may hold {{name}}, {{number}}, {{parent}}, {{above}}."
        ) from error


def read_audiovisual_list(path: str | Path, *, root: str | Path | None = None, subset: str | None = None) -> list[Row]:
    """The lists of av_fusion: "faces.npy;sound.wav;label;subset", labels from 1 on, one clip a line.

    ``subset`` keeps the rows of "training", "validation" or "testing"; ``root`` is put in front of relative paths.
    """
    if subset is not None and subset not in SUBSETS:
        raise InputError(f"subset is '{subset}'; expected one of {', '.join(SUBSETS)}.")
    rows = []
    for where, line in _lines(path):
        fields = line.split(";")
        if len(fields) == 4 and fields[2].isdecimal():
            _check_number("label", fields[2], where)
        if len(fields) != 4 or not fields[2].isdecimal() or int(fields[2]) < 1 or fields[3] not in SUBSETS:
            raise InputError(
                f"{where}: expected 'faces;sound;label;subset' with a label from 1 on and a subset of "
                f"{', '.join(SUBSETS)}, found {line!r}."
            )
        faces, sound = (str(Path(root) / field) if root is not None else field for field in fields[:2])
        rows.append(Row(faces, int(fields[2]) - 1, sound, subset=fields[3]))
    return [row for row in rows if subset is None or row.subset == subset]


def read_ravdess(
    folder: str | Path,
    *,
    subset: str | None = None,
    testing: Iterable[int] = (5, 10, 16, 19),
    validation: Iterable[int] = (11, 13, 18, 22),
) -> list[Row]:
    """The speech videos of RAVDESS (songs, vocal channel 02, are left out), with label, sound and subset from their
    names, in the order of the names.

    Subsets are by actor; the ones given are those of the published models. "01-01-03-02-01-01-05.mp4" is modality, vocal
    channel, emotion, intensity, statement, repetition, actor; its sound is "03-01-03-02-01-01-05.wav" beside it or, where
    there is no such file, in the video itself. Both the video with sound (01) and the silent one (02) are clips, as
    published.
    """
    if subset is not None and subset not in SUBSETS:
        raise InputError(f"subset is '{subset}'; expected one of {', '.join(SUBSETS)}.")
    testing, validation = set(testing), set(validation)
    if testing & validation:
        raise InputError(f"The actors {sorted(testing & validation)} are both in testing and in validation.")
    rows = []
    for video in sorted(Path(folder).rglob("*.mp4")):
        fields = video.stem.split("-")
        if len(fields) != 7 or not all(field.isdecimal() for field in fields) or not 1 <= int(fields[2]) <= 8:
            raise InputError(f"{video} is not named as in RAVDESS (MM-VC-EE-II-SS-RR-AA.mp4).")
        if int(fields[1]) != SPEECH:
            continue
        actor = int(fields[6])
        part = "testing" if actor in testing else "validation" if actor in validation else "training"
        sound = video.with_name(f"03{video.stem[2:]}.wav")
        rows.append(Row(str(video), int(fields[2]) - 1, str(sound) if sound.is_file() else None, subset=part))
    if not rows:
        raise InputError(f"There is no .mp4 file of speech in {folder}.")
    return [row for row in rows if subset is None or row.subset == subset]


def _lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """(where, line) for every line of a list that is not empty."""
    try:
        with open_file(path) as stream:
            check_limit("list_bytes", os.fstat(stream.fileno()).st_size, f"{path}: the size of the list", InputError)
            text = stream.read().decode("utf-8-sig")
    except MediaError as error:
        raise InputError(f"The list cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"The list {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The list {path} is no text in UTF-8 (byte {error.start}); save it in UTF-8.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def _check_number(name: str, digits: str, where: str) -> None:
    """Raise an error for a number above its limit; Python refuses to read thousands of digits with another one."""
    check_limit(
        name, int(digits) if len(digits) < 20 else 10 ** min(len(digits), 5000), f"{where}: the {name}", InputError
    )


def _three_fields(line: str, where: str, num_classes: int | None) -> tuple[str, int, int]:
    fields = line.rsplit(maxsplit=2)  # from the right: a folder may have blanks in its name
    if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
        _check_number("frames", fields[1], where)
        _check_number("label", fields[2], where)
        count, label = int(fields[1]), int(fields[2])
        if num_classes is None or label < num_classes:
            return fields[0], count, label
        raise InputError(f"{where}: the label is {label}; with {num_classes} classes it must be below {num_classes}.")
    raise InputError(f"{where}: expected 'folder count label', found {line!r}.")


def _relocated(folder: str, root: str | Path | None, replace: tuple[str, str] | None, where: str) -> str:
    if replace is not None:
        old, new = replace
        if not folder.startswith(old):
            raise InputError(f"{where}: the folder {folder} does not start with '{old}', which was to be replaced.")
        folder = new + folder[len(old) :]
    return folder if root is None else str(Path(root) / folder)


# -- any data set ------------------------------------------------------------------------------------------------------

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".mpg", ".mpeg", ".m4v", ".wmv"})


def read_rows(
    source: str | Path, labels: Sequence[str] | None = None, *, subset: str | None = None, **options: Any
) -> list[Row]:
    """The labelled clips of an annotation file, of a folder with one folder per class, or of drawn puppets.

    ``labels`` are the model's, in its order: folders are matched with them by name, puppets are drawn for them, and a
    list with other class numbers is an error. ``subset`` leaves only the rows of one subset where the file names
    subsets. Other keywords go to the file's reader.

    >>> rows = read_rows("puppets:clips=8,split=test", labels=["happy", "sad"])
    >>> [row.label for row in rows]
    [0, 1, 0, 1, 0, 1, 0, 1]
    """
    text = str(source)
    if text == "puppets" or text.startswith("puppets:"):
        return _puppet_rows(text, labels, **options)
    path = Path(source)
    if path.is_dir() and not any(re.fullmatch(r"\d\d(-\d\d){6}", video.stem) for video in path.glob("*/*.mp4")):
        _check_options(text, read_class_folders, options)
        return read_class_folders(path, labels)
    if not path.exists():
        raise InputError(f"There is no data set '{text}': it is no file, no folder, and does not start with 'puppets'.")
    reader = read_ravdess if path.is_dir() else _annotation_reader(path)
    _check_options(text, reader, options)
    rows = reader(path, **options)
    if subset is not None:
        subsets = sorted({str(row.subset) for row in rows})
        rows = [row for row in rows if row.subset == subset]
        if not rows:
            raise InputError(f"{text} has no rows of the subset '{subset}'; its subsets are {', '.join(subsets)}.")
    if not rows:
        raise InputError(f"{text} names no clip.")
    if labels is not None:
        _check_classes(text, rows, labels)
    return rows


def _check_classes(text: str, rows: Sequence[Row], labels: Sequence[str]) -> None:
    highest = max(rows, key=lambda row: row.label)
    if highest.label >= len(labels):
        raise InputError(
            f"{text}: the clip {highest.path} is of class {highest.label}, counted from 0; the {len(labels)} labels are "
            f"{', '.join(labels)}."
        )


def _check_options(text: str, reader: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = [name for name, p in inspect.signature(reader).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise InputError(
                f"{text}: `{reader.__name__}`, which reads it, has no option '{name}'.{suggest(name, known)}"
            )


def read_class_folders(path: str | Path, labels: Sequence[str] | None = None) -> list[Row]:
    """``path/CLASS/clip.mp4``, or ``path/CLASS/clip/`` with frames in it. Without ``labels`` the classes are the
    folders in alphabetical order; with them every folder must be one of the labels, and the order is theirs."""
    root = Path(path)
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    order = list(folders if labels is None else labels)
    strangers = [name for name in folders if name not in order]
    if strangers or not folders:
        raise InputError(
            f"{root}: expected one folder per class, named {', '.join(order) or 'by the class'}; "
            f"found {', '.join(strangers) or 'no folder'}."
        )
    rows = []
    for name in folders:
        for entry in sorted((root / name).iterdir()):
            if entry.is_dir() or entry.suffix.lower() in VIDEO_SUFFIXES:
                rows.append(Row(str(entry), order.index(name)))
    if not rows:
        raise InputError(f"{root}: the class folders hold neither videos nor folders of frames.")
    return rows


def _puppet_rows(text: str, labels: Sequence[str] | None, **options: Any) -> list[Row]:
    from .puppets import ACTION_UNITS, puppets

    kinds: dict[str, Callable[[str], Any]] = {"clips": int, "seed": int, "identities": int, "size": int, "split": str}
    kinds |= {"noise": float, "blur": float, "disagree": float, "intensity": _bounds}
    for pair in filter(None, text.removeprefix("puppets").removeprefix(":").split(",")):
        name, _, value = pair.partition("=")
        if name not in kinds:
            raise InputError(f"'{text}': puppets have no option '{name}'.{suggest(name, kinds)}")
        try:
            options[name] = kinds[name](value)
        except ValueError as error:
            raise InputError(f"'{text}': {name} is {value!r}, expected a number.") from error
    _check_options(text, puppets, options)
    data = puppets(tuple(labels or ACTION_UNITS), **options)
    return [Row(str(puppet), label, subset=options.get("split", "train")) for puppet, label in data]


def _bounds(text: str) -> tuple[float, float]:
    """ "0.2-0.4", or one number that is both bounds."""
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def _annotation_reader(path: Path) -> Callable[..., list[Row]]:
    """The reader for an annotation file, by its first line."""
    _, first = next(_lines(path), ("", ""))
    if first.count(";") == 3:
        return read_audiovisual_list
    if re.fullmatch(r".+\s\d+\s+\d+", first):
        return read_frame_list
    if re.fullmatch(r".+ \d+", first):
        return read_clip_list
    if CSV_HEADER.fullmatch(first):
        return read_csv_list
    raise InputError(f"{path}: the first line, {first[:80]!r}, is of none of the known annotation formats.")


@dataclass(frozen=True)
class FirstFrames:
    """As many frames as an annotation says, although the folder may hold more."""

    frames: Frames
    count: int
    source: str

    def __post_init__(self) -> None:
        if self.count > len(self.frames):
            raise MediaError(f"{self.source}: there are {len(self.frames)} frames, and its list says {self.count}.")

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return self.frames.take(indices)


def _check_npy_header(stream: Any, path: str) -> None:
    """Raise an error for a header that promises more than the file holds, before memory is allocated for it."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    size = math.prod(shape) * kind.itemsize
    check_limit("array_bytes", size, f"{path}: the size of the array")
    if min(shape, default=0) < 0 or size > os.fstat(stream.fileno()).st_size:
        raise MediaError(f"{path}: the header promises an array {shape} of {size} bytes, and the file is shorter.")
    stream.seek(0)


def _prepared_faces(path: str) -> np.ndarray:
    try:
        with open_file(path) as stream:
            _check_npy_header(stream, path)
            faces = np.load(stream, allow_pickle=False)
    except MediaError as error:
        raise MediaError(f"the prepared faces cannot be read: {error}") from error
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        MemoryError,
        RecursionError,
        tokenize.TokenError,
    ) as error:
        raise MediaError(f"{path}: the prepared faces cannot be read ({error}).") from error
    if not isinstance(faces, np.ndarray) or faces.ndim != 4:
        found = getattr(faces, "shape", "several arrays")
        raise MediaError(f"{path}: expected prepared faces, (frames, height, width, 3), found {found}.")
    return faces


def read_row(row: Row, *, faces: Any = "none", crop: str = "aligned", no_face: str = "error") -> Clip:
    """The clip of a row: drawn, or read from its files. Where the row says how many frames there are, it is trusted
    over the folder, as the published rules do. ``faces``, ``crop`` and ``no_face`` are those of `read_clip`, for data
    that are no face crops yet; puppets and prepared faces are."""
    if row.path.startswith("puppet:"):
        from .puppets import Puppet

        return Puppet.parse(row.path).clip()
    from ..media.files import read_clip

    if row.path.endswith(".npy"):  # av_fusion's prepared faces: blue first, cut out and sampled already
        prepared = _prepared_faces(row.path)[..., ::-1]
        # spread over 3.6 seconds, so that the record's rule takes each of them once
        clip = Clip.from_arrays(prepared, fps=len(prepared) / 3.6, source=row.path)
        if row.audio is None:
            return clip
        sound = read_clip(row.audio)
        return dataclasses.replace(clip, waveform=sound.waveform, sample_rate=sound.sample_rate)
    clip = read_clip(row.path, audio=row.audio, order=row.order)
    if row.num_frames is not None and clip.frames is not None:
        clip = dataclasses.replace(clip, frames=FirstFrames(clip.frames, row.num_frames, row.path))
    return read_clip(clip, faces=faces, crop=crop, no_face=no_face)
