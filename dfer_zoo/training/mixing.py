"""Batch augmentation of the published recipes: mixed clips, soft targets, modality dropout.

`MIXES` holds one function per system. Each takes the inputs by name, class indices (B,), a function that turns class
indices into soft targets (B, classes), and its own options, and returns inputs and soft targets. The functions draw from
the global generators, which the training loop seeds for every update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, suggest

Inputs = dict[str, Any]  # tensors, or None for a missing modality
Soften = Callable[[Tensor], Tensor]


def soft_targets(targets: Tensor, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """One-hot targets (B, classes) from class indices (B,). ``smoothing`` is spread over all classes, the true one included."""
    return F.one_hot(targets, num_classes).float() * (1 - smoothing) + smoothing / num_classes


def no_mix(inputs: Inputs, targets: Tensor, soft: Soften) -> tuple[Inputs, Tensor]:
    """Only make the targets soft."""
    return inputs, soft(targets)


def _check_both(inputs: Inputs, mix: str) -> None:
    if missing := [name for name in ("video", "audio") if inputs.get(name) is None]:
        raise InputError(f"The mix '{mix}' needs clips with video and audio; these have no {' and no '.join(missing)}.")


def _per_clip(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, ...), to be multiplied with whole clips."""
    return values.view(-1, *[1] * (like.ndim - 1))


# -- modality dropout --------------------------------------------------------------------------------------------------


def drop_modalities(
    inputs: Inputs, targets: Tensor, soft: Soften, *, video: float = 0.25, audio: float = 0.25
) -> tuple[Inputs, Tensor]:
    """Set the video or the audio of each clip to zero with these probabilities; a clip never loses both.

    The batch keeps its size, unlike av_fusion's ``softhard``.
    """
    if min(video, audio) < 0 or video + audio > 1:
        raise InputError(
            f"The probabilities of dropping video ({video}) and audio ({audio}) must be at least 0 and sum to at most 1."
        )
    _check_both(inputs, "drop_modalities")
    draw = torch.rand(len(targets))
    lost = {"video": draw < video, "audio": (draw >= video) & (draw < video + audio)}
    dropped = {name: tensor * _per_clip((~lost[name]).to(tensor), tensor) for name, tensor in inputs.items()}
    return dropped, soft(targets)


def modality_dropout(inputs: Inputs, targets: Tensor, soft: Soften, *, kind: str = "softhard") -> tuple[Inputs, Tensor]:
    """av_fusion's modality dropout. The batch becomes three or four times as large."""
    if kind not in MODALITY_DROPOUT:
        raise InputError(f"There is no modality dropout '{kind}'.{suggest(kind, MODALITY_DROPOUT)}")
    _check_both(inputs, "modality_dropout")
    video, audio, targets = MODALITY_DROPOUT[kind](inputs["video"], inputs["audio"], targets)
    return {**inputs, "video": video, "audio": audio}, soft(targets)


# Each dropout takes (video, audio, targets) of B clips and returns a larger batch in random order. It draws from torch's
# generator in the published order; tests pass the draws.


def soft_and_hard_dropout(
    video: Tensor, audio: Tensor, targets: Tensor, *, shares: Tensor | None = None, order: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """4B clips: unchanged, with video and audio faded against each other, without audio, without video.

    Args:
        video: (B, ...).
        audio: (B, ...).
        targets: (B,).
        shares: (B,) Percent of the audio that is kept; the video keeps the rest.
        order: (4B,) The order of the result.
    """
    if shares is None:
        shares = torch.randint(0, 100, (len(targets), 1, 1))
    if order is None:
        order = torch.randperm(4 * len(targets))
    alpha = (shares.flatten() / 100).to(audio)
    faded_audio = audio * _per_clip(alpha, audio)
    faded_video = video * _per_clip(1 - alpha, video).to(video)
    audio = torch.cat([audio, faded_audio, torch.zeros_like(audio), audio])
    video = torch.cat([video, faded_video, video, torch.zeros_like(video)])
    return _in_order(video, audio, targets.repeat(4), order)


def noise_dropout(
    video: Tensor,
    audio: Tensor,
    targets: Tensor,
    *,
    audio_noise: Tensor | None = None,
    video_noise: Tensor | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """3B clips: unchanged, with noise as audio, with noise as video."""
    if audio_noise is None:
        audio_noise = torch.randn(audio.shape)
    if video_noise is None:
        # drawn in the layout of the published clips, (B, 3, T, H, W)
        video_noise = torch.randn(video.transpose(1, 2).shape).transpose(1, 2)
    if order is None:
        order = torch.randperm(3 * len(targets))
    audio = torch.cat([audio, audio_noise.to(audio), audio])
    video = torch.cat([video, video, video_noise.to(video)])
    return _in_order(video, audio, targets.repeat(3), order)


def no_dropout(video: Tensor, audio: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The batch as it is."""
    return video, audio, targets


MODALITY_DROPOUT = {"softhard": soft_and_hard_dropout, "noise": noise_dropout, "nodropout": no_dropout}


def _in_order(video: Tensor, audio: Tensor, targets: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if order.shape != targets.shape:
        raise InputError(f"order must be ({len(targets)},), one index per clip, got {tuple(order.shape)}.")
    order = order.to(targets.device)
    return video[order], audio[order], targets[order]


# -- DK-CLIP: FMix or mixup --------------------------------------------------------------------------------------------


def fmix_or_mixup(
    inputs: Inputs, targets: Tensor, soft: Soften, *, fmix: float = 0.5, beta: float = 0.8
) -> tuple[Inputs, Tensor]:
    """DK-CLIP's mix: FMix with the probability ``fmix``, else mixup."""
    video, targets = mix_clips(inputs["video"], soft(targets), fmix=fmix, beta=beta)
    return {**inputs, "video": video}, targets


def mix_clips(
    video: Tensor, labels: Tensor, *, fmix: float = 0.5, beta: float = 0.8, rng: np.random.RandomState | None = None
) -> tuple[Tensor, Tensor]:
    """Mix every clip (B, T, 3, H, W) with another one of the batch, and their soft labels (B, K) in the same proportion.

    One proportion is drawn for the whole batch. FMix uses one mask for all clips and frames.
    """
    draw = np.random if rng is None else rng
    order = torch.from_numpy(draw.permutation(len(video))).to(video.device)
    if draw.uniform() < fmix:
        share = float(draw.beta(1.0, 1.0))
        mask = fourier_mask(share, video.shape[-1], rng=rng).to(video)
        return blend(video, mask, order), blend(labels, share, order)
    share = float(draw.beta(beta, beta))
    return blend(video, share, order), blend(labels, share, order)


def blend(values: Tensor, share: float | Tensor, order: Tensor) -> Tensor:
    """``share`` of each row plus ``1 - share`` of the row that ``order`` assigns to it."""
    return values * share + values[order] * (1 - share)


def fourier_mask(share: float, size: int, *, decay: float = 3.0, rng: np.random.RandomState | None = None) -> Tensor:
    """FMix's binary mask (size, size): blobs of ones, from low-pass noise, that cover ``share`` of the image."""
    draw = np.random if rng is None else rng
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum = draw.standard_normal(frequency.shape) + 1j * draw.standard_normal(frequency.shape)
    picture = np.fft.irfft2(spectrum / frequency.clip(1 / size) ** decay, (size, size)).ravel()
    ones = share * picture.size
    count = int(np.ceil(ones) if draw.uniform() < 0.5 else np.floor(ones))
    mask = np.zeros(picture.size, np.float32)
    mask[np.argsort(-picture, kind="stable")[:count]] = 1
    return torch.from_numpy(mask.reshape(size, size))


# -- MAE-DFER: mixup or CutMix -----------------------------------------------------------------------------------------
# Not timm's Mixup: on clips it would cut along time and rows instead of rows and columns, and its boxes keep odd sizes.


def mixup_cutmix(inputs: Inputs, targets: Tensor, soft: Soften, **options: float) -> tuple[Inputs, Tensor]:
    """MAE-DFER's mix: mixup or CutMix with the clips of the batch in reverse order. Options as in `draw_mix`."""
    draw = draw_mix(*inputs["video"].shape[-2:], **options)  # type: ignore[arg-type]
    return {**inputs, "video": mix_in_pairs(inputs["video"], draw)}, mix_targets(soft(targets), draw.share)


class MixDraw(NamedTuple):
    """What is drawn for one batch: each clip's own share, and the box to exchange (None: mixup)."""

    share: float
    box: tuple[int, int, int, int] | None  # top, bottom, left, right; bottom and right excluded


def draw_mix(
    height: int,
    width: int,
    *,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    prob: float = 1.0,
    switch_prob: float = 0.5,
    rng: np.random.RandomState | None = None,
) -> MixDraw:
    """Draw mixup or CutMix for a batch from numpy's generator, in the published order.

    Args:
        height: Height of the frames.
        width: Width of the frames.
        mixup_alpha: Both parameters of mixup's beta distribution; 0: no mixup.
        cutmix_alpha: Both parameters of CutMix's beta distribution; 0: no CutMix.
        prob: The probability that a batch is mixed.
        switch_prob: The probability of CutMix if both are possible.
        rng: The generator; numpy's global one by default, as published.
    """
    random = np.random if rng is None else rng
    if random.rand() >= prob:
        return MixDraw(1.0, None)
    if max(mixup_alpha, cutmix_alpha) <= 0:
        raise InputError(
            f"mixup_alpha is {mixup_alpha} and cutmix_alpha is {cutmix_alpha}; one must be above 0. Use prob=0 to mix nothing."
        )
    if mixup_alpha > 0 and cutmix_alpha > 0:
        cuts = random.rand() < switch_prob
    else:
        cuts = cutmix_alpha > 0
    alpha = cutmix_alpha if cuts else mixup_alpha
    share = float(random.beta(alpha, alpha))
    if share == 1.0 or not cuts:
        return MixDraw(share, None)
    side = np.sqrt(1 - share)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    row, column = int(random.randint(height)), int(random.randint(width))
    top, bottom = (min(max(edge, 0), height) for edge in (row - half_height, row + half_height))
    left, right = (min(max(edge, 0), width) for edge in (column - half_width, column + half_width))
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return MixDraw(kept, (top, bottom, left, right))


def mix_in_pairs(video: Tensor, draw: MixDraw) -> Tensor:
    """Mix clip i of (B, ..., H, W) with clip B - 1 - i."""
    if len(video) % 2:
        raise InputError(f"Clips are mixed in pairs, so the batch size must be even; it is {len(video)}.")
    if draw.box is None:
        return video if draw.share == 1 else video * draw.share + video.flip(0) * (1 - draw.share)
    top, bottom, left, right = draw.box
    mixed = video.clone()
    mixed[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
    return mixed


def mix_targets(targets: Tensor, share: float) -> Tensor:
    """Mix soft labels (B, K) as `mix_in_pairs` mixes the clips."""
    return targets * share + targets.flip(0) * (1 - share)


# name -> (inputs, class indices, soft, **options) -> (inputs, soft targets)
MIXES: dict[str, Callable[..., tuple[Inputs, Tensor]]] = {
    "none": no_mix,
    "drop_modalities": drop_modalities,
    "modality_dropout": modality_dropout,
    "fmix_or_mixup": fmix_or_mixup,
    "mixup_cutmix": mixup_cutmix,
}
