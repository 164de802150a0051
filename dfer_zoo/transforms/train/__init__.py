"""Training transforms by the names that recipes use.

They draw from the global generators of random, numpy and torch, as the published code does. The training loop seeds these
for every clip and epoch.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import InputError, suggest
from ...media.clip import Clip
from ...saving import arch_of
from ...transforms import Transform
from ...weights.record import Weights
from .. import images, sampling

Sample = dict[str, Tensor | None]
Augmentation = Callable[[Clip], Any]  # gives a Sample


def augmentation(name: str, transform: Transform) -> Augmentation:
    """Create an augmentation: a function from a clip of face crops to a sample like those of ``transform``.

    Args:
        name: A key of `AUGMENTATIONS`.
        transform: The transform of the evaluation.

    Raises:
        InputError: The name is unknown, or the model lacks an input that the augmentation needs.

    >>> augmentation("flip", create_transform(model))(clip)["video"].shape  # doctest: +SKIP
    torch.Size([16, 3, 224, 224])
    """
    if name not in AUGMENTATIONS:
        raise InputError(f"There is no augmentation '{name}'.{suggest(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name](transform)


def _no_augmentation(transform: Transform) -> Augmentation:
    return transform


def _flip(transform: Transform) -> Augmentation:
    """Mirror all frames of a clip with probability 0.5."""

    def augmented(clip: Clip) -> Sample:
        sample = transform(clip)
        video = sample.get("video")
        if video is not None and random.random() < 0.5:
            sample["video"] = video.flip(-1)
        return sample

    return augmented


def _av_fusion(transform: Transform) -> Augmentation:
    """Flip and rotate the frames of the evaluation; the sound is unchanged."""
    from .av_fusion import augment_frames

    def augmented(clip: Clip) -> Sample:
        spec = transform.video
        if spec is None or clip.num_frames == 0:
            return transform(clip)
        frames = sampling.take(clip, sampling.indices(clip.num_frames, clip.fps, spec))
        frames = augment_frames([images.to_square(frame, spec) for frame in frames])
        return {**transform.without("video")(clip), "video": images.to_tensor(np.stack(frames), spec)}

    return augmented


def _mma_dfer(transform: Transform) -> Augmentation:
    from .mma_dfer import MMADFERTrainTransform

    return MMADFERTrainTransform(_record(transform.video, "frames"), _record(transform.audio, "sound"))


def _dfer_clip(dataset: str) -> Callable[[Transform], Augmentation]:
    def build(transform: Transform) -> Augmentation:
        from .dfer_clip import DFERCLIPTrainTransform

        return DFERCLIPTrainTransform(_record(transform.video, "frames"), dataset)

    return build


def _record(spec: Any, what: str) -> Any:
    if spec is None:
        raise InputError(f"This augmentation needs a model with {what} as input, and this model has none.")
    return spec


def _dk_clip(transform: Transform) -> Augmentation:
    from .dk_clip import DKCLIPTrainTransform

    return DKCLIPTrainTransform(_record(transform.video, "frames"))


def _mae_dfer(transform: Transform) -> Augmentation:
    from .mae_dfer import MAEDFERTrainTransform

    return MAEDFERTrainTransform(_record(transform.video, "frames"))


def _mae_dfer_pretrain(transform: Transform) -> Augmentation:
    from .mae_dfer import MAEDFERPretrainTransform

    return MAEDFERPretrainTransform(_record(transform.video, "frames"))


def _hicmae(transform: Transform) -> Augmentation:
    from .hicmae import HiCMAETrainTransform

    return HiCMAETrainTransform(_record(transform.video, "frames"), _record(transform.audio, "sound"))


def _hicmae_pretrain(transform: Transform) -> Augmentation:
    from .hicmae import HiCMAEPretrainTransform

    return HiCMAEPretrainTransform(_record(transform.video, "frames"), _record(transform.audio, "sound"))


# name -> (the evaluation transform) -> (clip -> sample)
AUGMENTATIONS: dict[str, Callable[[Transform], Augmentation]] = {
    "none": _no_augmentation,
    "flip": _flip,
    "av_fusion": _av_fusion,
    "mma_dfer": _mma_dfer,
    "dfer_clip_dfew": _dfer_clip("dfew"),
    "dfer_clip_mafw": _dfer_clip("mafw"),
    "dfer_clip_ferv39k": _dfer_clip("ferv39k"),
    "dk_clip": _dk_clip,
    "mae_dfer": _mae_dfer,
    "s2d": _mae_dfer,  # the same in the authors' code
    "mae_dfer_pretrain": _mae_dfer_pretrain,
    "hicmae": _hicmae,
    "hicmae_pretrain": _hicmae_pretrain,
}

# architecture -> the augmentation of its published training
PUBLISHED = {
    "av_fusion": "av_fusion",
    "dk_clip": "dk_clip",
    "hicmae": "hicmae",
    "hicmae_pretrain": "hicmae_pretrain",
    "mae_dfer": "mae_dfer",
    "mae_dfer_pretrain": "mae_dfer_pretrain",
    "mma_dfer": "mma_dfer",
    "s2d": "s2d",
}


def published_augmentation(model: Any) -> str:
    """Return the name of the augmentation of the published training, given a model or a weights record."""
    record = model if isinstance(model, Weights) else model.weights
    arch = record.arch if record is not None else arch_of(model)
    if arch == "dfer_clip":  # depends on the data set; DFEW is the default
        dataset = (record.dataset if record is not None else None) or "DFEW"
        return f"dfer_clip_{dataset.lower()}"
    if arch not in PUBLISHED:
        raise InputError(
            f"{arch} has no published training transform; there is one for {', '.join(sorted([*PUBLISHED, 'dfer_clip']))}."
        )
    return PUBLISHED[arch]
