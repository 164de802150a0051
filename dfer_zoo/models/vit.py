"""The plain vision transformer under MAE-Face, AudioMAE and MMA-DFER: patches, a class token, positions, pre-norm blocks."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, WeightsError, suggest
from ..weights.record import AudioSpec, VideoSpec
from .base import DferModel, LoadReport, check_fit, check_parts, fill
from .layers import Block


@dataclass(frozen=True)
class Preset:
    width: int
    depth: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4.0


# as MAE-Face's and AudioMAE's repositories name them
PRESETS = {
    "tiny": Preset(192, 12, 3),
    "small": Preset(384, 12, 6),
    "base": Preset(768, 12, 12),
    "large": Preset(1024, 24, 16),
    "huge": Preset(1280, 32, 16, patch=14),
    "giant": Preset(1408, 40, 16, patch=14, mlp_ratio=48 / 11),
    "gigantic": Preset(1664, 48, 16, patch=14, mlp_ratio=64 / 13),
}

EncoderNorm: Any = functools.partial(nn.LayerNorm, eps=1e-6)


def find_preset(name: str, *, patch: int | None = None) -> Preset:
    known = {key for key, preset in PRESETS.items() if patch in (None, preset.patch)}
    if name not in known:
        raise InputError(f"There is no preset '{name}'.{suggest(name, known)}")
    return PRESETS[name]


def square_grid(img_size: int, preset: Preset) -> tuple[int, int]:
    if img_size < preset.patch or img_size % preset.patch:
        raise InputError(f"img_size is {img_size}; expected a multiple of {preset.patch}, the side of a patch.")
    return img_size // preset.patch, img_size // preset.patch


class Encoder(nn.Module):
    """A ViT without a head. ``extra_tokens`` are tokens that the caller appends to the patches (prompts): they have rows
    in the table of positions, behind those of the class token and the patches."""

    def __init__(
        self,
        preset: Preset,
        *,
        grid: tuple[int, int],
        channels: int,
        extra_tokens: int = 0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        width = preset.width
        self.grid = grid
        self.patch_embed = nn.Conv2d(channels, width, preset.patch, stride=preset.patch)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + grid[0] * grid[1] + extra_tokens, width))
        self.blocks = nn.ModuleList(
            Block(
                width,
                preset.heads,
                mlp_ratio=preset.mlp_ratio,
                qkv_bias=qkv_bias,
                norm_layer=EncoderNorm,
                drop_path=drop_path_rate * i / max(1, preset.depth - 1),
            )
            for i in range(preset.depth)
        )
        self.norm = EncoderNorm(width) if final_norm else nn.Identity()

    def init_weights(self) -> None:
        nn.init.normal_(self.class_token, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def embed(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, 1 + N + extra, width), patches row by row, positions added."""
        return self.add_positions(self.patches(x), extra)

    def patches(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, width), row by row, without positions."""
        return self.patch_embed(x).flatten(2).transpose(1, 2)

    def add_positions(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B, N, width) -> (B, 1 + N + extra, width): the class token in front, appended tokens, positions for all."""
        tokens = [self.class_token.expand(patches.shape[0], -1, -1), patches]
        if extra is not None:
            tokens.append(extra.expand(patches.shape[0], -1, -1))
        # positions come last: the published tables have rows for the class token and for the prompts too
        return torch.cat(tokens, dim=1) + self.positions


class EncoderClassifier(DferModel):
    """An encoder, a read-out, a head. ``pooling="mean"`` averages the patch tokens and is what both repositories
    fine-tune with; "class" reads the class token, as the pre-trained files stand."""

    def __init__(
        self,
        preset: Preset,
        *,
        num_classes: int,
        grid: tuple[int, int],
        channels: int,
        pooling: str,
        drop_path_rate: float,
        video_spec: VideoSpec | None = None,
        audio_spec: AudioSpec | None = None,
    ) -> None:
        if pooling not in ("mean", "class"):
            raise InputError(f"pooling is '{pooling}'; expected 'mean' or 'class'.")
        super().__init__(
            num_classes=num_classes, num_features=preset.width, video_spec=video_spec, audio_spec=audio_spec
        )
        self.pooling = pooling
        self.encoder = Encoder(
            preset, grid=grid, channels=channels, drop_path_rate=drop_path_rate, final_norm=pooling == "class"
        )
        # another name than the encoder's norm on purpose: that of a pre-trained file does not belong here
        self.pooled_norm = EncoderNorm(preset.width) if pooling == "mean" else nn.Identity()
        self.classifier = self.build_classifier(num_classes)

    def init_weights(self) -> None:
        self.encoder.init_weights()

    def encode(self, x: Tensor) -> Tensor:
        tokens = self.encoder.embed(x)
        for block in self.encoder.blocks:
            tokens = self.run_block(block, tokens)
        tokens = self.encoder.norm(tokens)
        return self.pooled_norm(tokens[:, 1:].mean(1)) if self.pooling == "mean" else tokens[:, 0]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^encoder\.(?:patch_embed|class_token|positions)",
            "blocks": [(r"^encoder\.blocks\.(\d+)\.", None), (r"^(?:encoder|pooled)[._]norm\.", (99999,))],
        }

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Where the authors' fine-tuning starts: the encoder from its pre-training, the rest fresh."""
        return load_encoders(self, {"encoder": self.encoder}, states)


# -- encoders from files -------------------------------------------------------------------------------------------------


def load_encoders(
    model: DferModel, encoders: Mapping[str, Encoder], states: Mapping[str, Mapping[str, Tensor]]
) -> LoadReport:
    """Fill each of these parts of a model from the state of a pre-trained `EncoderClassifier`: all, or an exception
    and nothing. Positions are resized to the grid of the model; rows of appended tokens stay as they were drawn."""
    check_parts(model, states, *encoders)
    fitted = {part: _fit(part, encoder, states[part]) for part, encoder in encoders.items()}
    given = {f"{part}.{name}": value for part, state in fitted.items() for name, value in state.items()}
    appended = {
        f"{part}.positions[:, {1 + math.prod(encoder.grid)}:]"
        for part, encoder in encoders.items()
        if encoder.positions.shape[1] > 1 + math.prod(encoder.grid)
    }
    ignored = {
        f"{part}: {name}" for part, state in states.items() for name in state if not _is_loaded(name, fitted[part])
    }
    return fill(model, given, given, what="The parts do not fit", initialized=appended, ignored=ignored)


def _is_loaded(name: str, fitted: Mapping[str, Tensor]) -> bool:
    return name.startswith("encoder.") and name.removeprefix("encoder.") in fitted


def _fit(part: str, encoder: Encoder, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of this encoder, made from a file's."""
    own = encoder.state_dict()
    given = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    if isinstance(encoder.norm, nn.Identity):  # a pooled read-out has a norm of its own, and the file's is not used
        given = {name: value for name, value in given.items() if not name.startswith("norm.")}
    resizable = {"positions": given["positions"]} if "positions" in given else {}
    check_fit({**own, **resizable}, given, f"This is no file for the part '{part}'")
    table = resize_positions(given["positions"].float(), _grid_of(part, given["positions"], encoder), encoder.grid)
    appended = own["positions"][:, table.shape[1] :]
    return {**given, "positions": torch.cat([table.to(appended), appended], dim=1)}


def _grid_of(part: str, table: Tensor, encoder: Encoder) -> tuple[int, int]:
    """What grid a table is for: a square for images; as many mel bands as the encoder for sound."""
    patches = max(0, table.shape[1] - 1) if table.ndim == 3 else 0
    # told by the channels: a spectrogram's grid may happen to be a square too
    sound = encoder.patch_embed.in_channels == 1
    columns = encoder.grid[1] if sound else math.isqrt(patches)
    rows = patches // columns if sound else columns
    if patches == 0 or table.shape != (1, 1 + rows * columns, encoder.positions.shape[-1]):
        raise WeightsError(f"The part '{part}': a table of positions {tuple(table.shape)} does not fit this encoder.")
    return rows, columns


def resize_positions(table: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """The rows of a class token and a grid -> those of another grid: bicubic, not antialiased, as published.

    >>> resize_positions(torch.zeros(1, 1 + 14 * 14, 8), (14, 14), (10, 10)).shape
    torch.Size([1, 101, 8])
    """
    if before == after:
        return table
    width = table.shape[-1]
    grid = table[:, 1:].reshape(1, *before, width).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=after, mode="bicubic", align_corners=False, antialias=False)
    return torch.cat([table[:, :1], grid.permute(0, 2, 3, 1).reshape(1, -1, width)], dim=1)
