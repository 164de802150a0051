"""What recipes call the things that are done to a batch, in one signature.

A mix takes the inputs by name, the class numbers (B,), the function that makes soft targets (B, classes) of them, and its
options. It gives back inputs and soft targets. Draws are from the global generators, which the training loop seeds for every update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, suggest
from .mixing import MODALITY_DROPOUT, draw_mix, mix_clips, mix_in_pairs, mix_targets

Inputs = dict[str, Any]  # tensors, or None for a modality that is not there
Soften = Callable[[Tensor], Tensor]


def soft_targets(targets: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """(B,) -> (B, classes); ``smoothing`` is spread over all classes, the true one included."""
    return F.one_hot(targets, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def no_mix(inputs: Inputs, targets: Tensor, soft: Soften) -> tuple[Inputs, Tensor]:
    return inputs, soft(targets)


def drop_modalities(
    inputs: Inputs, targets: Tensor, soft: Soften, *, video: float = 0.25, audio: float = 0.25
) -> tuple[Inputs, Tensor]:
    """Every clip keeps both modalities, or loses one of them to zeros, with these chances. Unlike the published
    ``softhard`` it leaves the batch as large as it is."""
    if min(video, audio) < 0 or video + audio > 1:
        raise InputError(f"The chances of losing video ({video}) and audio ({audio}) must be parts of 1.")
    _check_both(inputs, "drop_modalities")
    draw = torch.rand(len(targets))
    lost = {"video": draw < video, "audio": (draw >= video) & (draw < video + audio)}
    dropped = {}
    for name, tensor in inputs.items():
        keep = (~lost[name]).to(tensor).view(-1, *[1] * (tensor.ndim - 1))
        dropped[name] = tensor * keep
    return dropped, soft(targets)


def _check_both(inputs: Inputs, mix: str) -> None:
    if missing := [name for name in ("video", "audio") if inputs.get(name) is None]:
        raise InputError(f"The mix '{mix}' takes clips with video and audio; these have no {' and no '.join(missing)}.")


def modality_dropout(inputs: Inputs, targets: Tensor, soft: Soften, *, kind: str = "softhard") -> tuple[Inputs, Tensor]:
    """av_fusion's: the batch becomes three or four times as large."""
    if kind not in MODALITY_DROPOUT:
        raise InputError(f"There is no modality dropout '{kind}'.{suggest(kind, MODALITY_DROPOUT)}")
    _check_both(inputs, "modality_dropout")
    video, audio, targets = MODALITY_DROPOUT[kind](inputs["video"], inputs["audio"], targets)
    return {**inputs, "video": video, "audio": audio}, soft(targets)


def fmix_or_mixup(
    inputs: Inputs, targets: Tensor, soft: Soften, *, fmix: float = 0.5, beta: float = 0.8
) -> tuple[Inputs, Tensor]:
    """DK-CLIP's: with the chance ``fmix`` clips are laid over each other in blobs, else faded into each other."""
    video, targets = mix_clips(inputs["video"], soft(targets), fmix=fmix, beta=beta)
    return {**inputs, "video": video}, targets


def mixup_cutmix(inputs: Inputs, targets: Tensor, soft: Soften, **options: float) -> tuple[Inputs, Tensor]:
    """MAE-DFER's: clips are faded into each other, or boxes of them exchanged."""
    draw = draw_mix(*inputs["video"].shape[-2:], **options)  # type: ignore[arg-type]
    return {**inputs, "video": mix_in_pairs(inputs["video"], draw)}, mix_targets(soft(targets), draw.share)


# name -> (inputs, class numbers, soft, **options) -> (inputs, soft targets)
MIXES: dict[str, Callable[..., tuple[Inputs, Tensor]]] = {
    "none": no_mix,
    "drop_modalities": drop_modalities,
    "modality_dropout": modality_dropout,
    "fmix_or_mixup": fmix_or_mixup,
    "mixup_cutmix": mixup_cutmix,
}
