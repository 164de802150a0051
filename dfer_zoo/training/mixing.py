"""What the published recipes do to a batch before the network sees it: mixed clips, soft targets, dropped modalities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

# -- modality dropout of av_fusion --------------------------------------------------------------------------------------
# Each function takes (video, audio, targets) of B clips and returns a larger batch in random order. The draws, from torch's
# generator in the published order, can be given instead.


def soft_and_hard_dropout(
    video: Tensor, audio: Tensor, targets: Tensor, *, shares: Tensor | None = None, order: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """4B rows: the clips, the clips with sound and frames faded against each other, without frames, without sound.

    ``shares`` (B,) in hundredths is what is left of the sound (the frames keep the rest); ``order`` (4B,).
    """
    if shares is None:
        shares = torch.randint(0, 100, (len(targets), 1, 1))
    if order is None:
        order = torch.randperm(4 * len(targets))
    alpha = (shares.flatten() / 100).to(audio)
    faded_audio = audio * _column(alpha, audio)
    faded_video = video * _column(1 - alpha, video).to(video)
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
    """3B rows: the clips, the clips with noise for their sound, with noise for their frames."""
    if audio_noise is None:
        audio_noise = torch.randn(audio.shape)
    if video_noise is None:
        # drawn as the published clips lie, (B, 3, T, H, W)
        video_noise = torch.randn(video.transpose(1, 2).shape).transpose(1, 2)
    if order is None:
        order = torch.randperm(3 * len(targets))
    audio = torch.cat([audio, audio_noise.to(audio), audio])
    video = torch.cat([video, video, video_noise.to(video)])
    return _in_order(video, audio, targets.repeat(3), order)


def no_dropout(video: Tensor, audio: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return video, audio, targets


MODALITY_DROPOUT = {"softhard": soft_and_hard_dropout, "noise": noise_dropout, "nodropout": no_dropout}


def stand_in(modality: Tensor, how: str) -> Tensor:
    """What the published evaluation puts in the place of a modality that is taken away: "zeros" for networks trained with
    `soft_and_hard_dropout`, "noise" for those trained with `noise_dropout`; "addnoise" disturbs it only."""
    if how == "zeros":
        return torch.zeros_like(modality)
    if how == "noise":
        return torch.randn_like(modality)
    if how == "addnoise":  # mean and deviation of the whole batch
        return modality + modality.mean() + modality.std() * torch.randn_like(modality)
    raise InputError(f"how is '{how}'; expected 'zeros', 'noise' or 'addnoise'.")


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, ...), to be multiplied with whole clips."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _in_order(video: Tensor, audio: Tensor, targets: Tensor, order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if order.shape != targets.shape:
        raise InputError(f"order must be ({len(targets)},), one place for every row, got {tuple(order.shape)}.")
    order = order.to(targets.device)
    return video[order], audio[order], targets[order]


# -- mixed clips and soft labels of dk_clip -----------------------------------------------------------------------------


def blend(values: Tensor, share: float | Tensor, order: Tensor) -> Tensor:
    """Each row, or as much of it as ``share`` says, together with the row that ``order`` puts in its place."""
    return values * share + values[order] * (1 - share)


def fourier_mask(share: float, size: int, *, decay: float = 3.0, rng: np.random.RandomState | None = None) -> Tensor:
    """FMix: blobs of ones that cover this share of a size x size image, (size, size). Low frequencies make the blobs."""
    draw = np.random if rng is None else rng
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    spectrum = draw.standard_normal(frequency.shape) + 1j * draw.standard_normal(frequency.shape)
    picture = np.fft.irfft2(spectrum / frequency.clip(1 / size) ** decay, (size, size)).ravel()
    ones = share * picture.size
    count = int(np.ceil(ones) if draw.uniform() < 0.5 else np.floor(ones))
    mask = np.zeros(picture.size, np.float32)
    mask[np.argsort(-picture, kind="stable")[:count]] = 1
    return torch.from_numpy(mask.reshape(size, size))


def mix_clips(
    video: Tensor, labels: Tensor, *, fmix: float = 0.5, beta: float = 0.8, rng: np.random.RandomState | None = None
) -> tuple[Tensor, Tensor]:
    """DK-CLIP's: every clip (B, T, 3, H, W) with another of the batch, and their soft labels (B, K) in the same shares.

    With the probability ``fmix`` one mask with blobs is laid over all clips and frames, else they are faded into each
    other (mixup). The share is the same for the whole batch.
    """
    draw = np.random if rng is None else rng
    order = torch.from_numpy(draw.permutation(len(video))).to(video.device)
    if draw.uniform() < fmix:
        share = float(draw.beta(1.0, 1.0))
        mask = fourier_mask(share, video.shape[-1], rng=rng).to(video)
        return blend(video, mask, order), blend(labels, share, order)
    share = float(draw.beta(beta, beta))
    return blend(video, share, order), blend(labels, share, order)


# -- mixup and CutMix of MAE-DFER ----------------------------------------------------------------------------------------
# timm's Mixup cuts time and rows out of a clip where this cuts rows and columns, and its boxes keep odd sizes.


class MixDraw(NamedTuple):
    """One batch's draw: the clip's own share, and the box that is exchanged (None: whole clips are faded)."""

    share: float
    box: tuple[int, int, int, int] | None  # top, bottom, left, right; the ends excluded


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
    """From numpy's generator (the global one, as published, unless one is given), in the published order."""
    random = np.random if rng is None else rng
    if random.rand() >= prob:
        return MixDraw(1.0, None)
    if max(mixup_alpha, cutmix_alpha) <= 0:
        raise InputError(
            f"mixup_alpha is {mixup_alpha} and cutmix_alpha {cutmix_alpha}; one must be above 0, or prob 0 to mix nothing."
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
    """Every clip of the batch mixed with the one that stands where it would from behind. (B, ..., H, W)"""
    if len(video) % 2:
        raise InputError(f"Clips are mixed in pairs, so a batch needs an even number of them; there are {len(video)}.")
    if draw.box is None:
        return video if draw.share == 1 else video * draw.share + video.flip(0) * (1 - draw.share)
    top, bottom, left, right = draw.box
    mixed = video.clone()
    mixed[..., top:bottom, left:right] = video.flip(0)[..., top:bottom, left:right]
    return mixed


def mix_targets(targets: Tensor, share: float) -> Tensor:
    """Soft labels (B, K), mixed as the clips are."""
    return targets * share + targets.flip(0) * (1 - share)
