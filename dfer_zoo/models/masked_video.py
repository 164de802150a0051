"""What the masked autoencoders of clips share: masks, the tokens that they leave visible, and the target.

VideoMAE's, with MAE-DFER's differences between frames.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..errors import InputError
from ..weights.record import VideoSpec
from .base import check_shape
from .video_mae import Grid

CHANNELS = 3


class TubeletTargets:
    """What a masked autoencoder of clips has to guess: the normalised colours of every tubelet, and how they change.

    A model with ``grid``, ``cut``, ``video_spec`` and the options of the target has these methods from here.
    """

    grid: Grid
    cut: dict[str, int]  # a tubelet's frames, rows and columns
    video_spec: VideoSpec | None
    normalize_target: bool
    difference_group: int
    motion_weight: float | None

    def targets(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> what the prediction is compared with, for all tokens: (B, N, 1536)."""
        pixels = self._normalized(self.pixels(video)) if self.normalize_target else self.pixels(video)
        if self.difference_group:
            pixels = differences(pixels, self.difference_group)
        return self.to_tubelets(pixels)

    def mean_error(self, errors: Tensor) -> Tensor:
        """(B, masked, 1536) -> their mean; with a ``motion_weight`` the differences have this share of it."""
        if self.motion_weight is None:
            return errors.mean()
        look, motion = errors.chunk(2, dim=-1)  # the tubelet's first frame, its second
        return (1 - self.motion_weight) * look.mean() + self.motion_weight * motion.mean()

    def pixels(self, video: Tensor) -> Tensor:
        """Normalised colours -> colours in [0, 1]."""
        assert self.video_spec is not None
        mean, std = (video.new_tensor(v).view(3, 1, 1) for v in (self.video_spec.mean, self.video_spec.std))
        return video * std + mean

    def to_tubelets(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, N, 2 * 16 * 16 * 3), the colour fastest"""
        return rearrange(video, "b (t p0) c (h p1) (w p2) -> b (t h w) (p0 p1 p2 c)", **self.cut)

    def from_tubelets(self, tubelets: Tensor) -> Tensor:
        steps, rows, columns = self.grid
        return rearrange(
            tubelets,
            "b (t h w) (p0 p1 p2 c) -> b (t p0) c (h p1) (w p2)",
            **{"t": steps, "h": rows, "w": columns, **self.cut},
        )

    def _tile(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, N, pixels of a tubelet, 3)"""
        return rearrange(self.to_tubelets(video), "b n (p c) -> b n p c", c=CHANNELS)

    def _untile(self, tiles: Tensor) -> Tensor:
        return self.from_tubelets(tiles.flatten(2))

    def _levels(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of every tubelet's colours, over both its frames: (B, N, 1, 3) each."""
        tiles = self._tile(pixels)
        return tiles.mean(2, keepdim=True), tiles.var(2, keepdim=True).sqrt() + 1e-6

    def _normalized(self, pixels: Tensor) -> Tensor:
        level, spread = self._levels(pixels)
        return self._untile((self._tile(pixels) - level) / spread)


def draw_masked(
    shape: tuple[int, int, int] | tuple[int, int], masked: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Booleans of this shape, `masked` of them True along the last axis."""
    noise = torch.rand(shape, generator=generator, device=device)
    return noise.argsort(-1).argsort(-1) < masked


def count_visible(name: str, mask: Tensor, shape: tuple[int, int], expected: int) -> int:
    """How many tokens of each clip the mask leaves visible; ``expected`` is what a compiled model is built for."""
    check_shape(name, mask, "(B, N)", shape, floating=False)
    if mask.dtype != torch.bool:
        raise InputError(f"{name} must be boolean, True where masked, got {mask.dtype}.")
    visible = (~mask).sum(1)
    if torch.compiler.is_compiling():  # a graph has one number of tokens, and no numbers to look at
        torch._assert_async(
            (visible == expected).all(), "A compiled model takes masks of its own mask_ratio, for all clips alike."
        )
        return expected
    if (visible != visible[0]).any():
        raise InputError(f"Every clip must have as many masked tokens as the others; visible: {visible.tolist()}.")
    return int(visible[0])


def visible_numbers(mask: Tensor, count: int) -> Tensor:
    """(B, count): numbers of the visible tokens, in ascending order."""
    return mask.int().argsort(dim=1, stable=True)[:, :count]


def masked_numbers(mask: Tensor, count: int) -> Tensor:
    """(B, N - count): numbers of the masked tokens, in ascending order; ``count`` are visible."""
    return mask.int().argsort(dim=1, stable=True)[:, count:]


def pick(tokens: Tensor, numbers: Tensor) -> Tensor:
    """(B, N, D), (B, n) -> (B, n, D)"""
    return tokens.gather(1, numbers[..., None].expand(-1, -1, tokens.shape[-1]))


def differences(video: Tensor, group: int, sign: int = -1) -> Tensor:
    """Every frame less (with ``sign`` 1: plus) the first of its group of so many; the first ones stay. (B, T, ...)"""
    time = torch.arange(video.shape[1], device=video.device)
    later = (time % group != 0).view(-1, *[1] * (video.ndim - 2))
    return torch.where(later, video + sign * video[:, time // group * group], video)


def check_difference(num_frames: int, tubelet: int, group: int, motion_weight: float | None) -> None:
    if group < 0 or group == 1 or (group and num_frames % group):
        raise InputError(
            f"difference_group is {group}; expected 0 (no differences) or at least 2 that divide the {num_frames} frames."
        )
    if motion_weight is not None and not (group == tubelet == 2):
        raise InputError("motion_weight splits a tubelet of two frames; it needs tubelet=2 and difference_group=2.")
