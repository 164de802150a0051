"""MAE-DFER's pre-training: reconstruct the appearance and the motion of a clip from a tenth of its tokens.

Sun, Lian, Liu, Tao. ACM Multimedia 2023, arXiv 2307.02227.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..errors import InputError
from ..weights.record import check_count
from .base import DferModel, check_shape
from .mae_dfer import LGIFormer
from .masked_video import (
    CHANNELS,
    TubeletTargets,
    check_difference,
    count_visible,
    differences,
    draw_masked,
    masked_numbers,
    pick,
    visible_numbers,
)
from .shortcuts import call_linear, is_watched, linear
from .video_mae import EPS, VIDEO, Grid, JointBlock, JointEncoder, check_option, sides, sinusoidal_table


class Decoder(nn.Module):
    """A few plain blocks over visible and masked tokens, and a linear layer to the pixels of the masked ones."""

    position: Tensor

    def __init__(
        self,
        grid: Grid,
        *,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        layer_scale: float,
        out: int,
    ) -> None:
        super().__init__()
        self.register_buffer("position", sinusoidal_table(grid.tokens, width), persistent=False)
        self.blocks = nn.ModuleList(
            JointBlock(width, num_heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, layer_scale=layer_scale)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, out)

    def forward(self, tokens: Tensor, visible: int, run: Callable) -> Tensor:
        """(B, N, D'), the visible ones first -> (B, N - visible, pixels)"""
        for block in self.blocks:
            tokens = run(block, tokens)
        return call_linear(self.head, self.norm(tokens[:, visible:]))


class Reconstruction(NamedTuple):
    """Clips for display, (B, T, 3, H, W) with colours around [0, 1]. Visible tokens show the input."""

    frames: Tensor
    differences: Tensor  # each frame minus the first of its group, around 0
    masked: Tensor  # the input with masked tokens in grey
    mask: Tensor  # (B, N), True where masked


class MAEDFERPretrain(TubeletTargets, DferModel):
    """The masked autoencoder. It has no classes.

    Forward returns the pixels of the masked tubelets, (B, masked, 1536). The decoder is the head of the model, and
    `forward_head(..., pre_logits=True)` returns the mean visible token. Without a given mask, training draws a new one
    from torch's generator, and evaluation always uses the same one.

    Args:
        attention: "local_global", the LGI-Former, or "joint", VideoMAE (width 768, 12 blocks, 12 heads).
        decoder_positions: The LGI-Former returns visible tokens region by region. "published" adds the positions of the
            visible tokens row by row, so that some tokens get the position of another; the released weights were trained
            this way. "matched" adds each token's own position and allows regions narrower than the frame.
        difference_group: Frames are predicted as differences to the first frame of their group of this size (2: of the
            tubelet). 0: as they are.
        motion_weight: Weight of the differences in the loss, for groups of 2. None: no weighting.

    >>> model = MAEDFERPretrain()
    >>> model(**model.example_inputs()).shape
    torch.Size([1, 720, 1536])
    """

    reading_order: Tensor
    fixed_mask: Tensor
    has_classifier = False
    head_prefixes = ("to_decoder.", "mask_token", "decoder.")

    def __init__(
        self,
        *,
        img_size: int | Sequence[int] = 160,
        patch_size: int = 16,
        num_frames: int = 16,
        tubelet: int = 2,
        attention: str = "local_global",
        width: int = 512,
        depth: int = 16,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        region: Sequence[int] = (2, 5, 10),
        local_attention: str = "self",
        global_attention: bool = True,
        interaction: str = "cross",
        share_attention: str = "none",
        layer_scale: float = 0.0,
        decoder_width: int = 384,
        decoder_depth: int = 4,
        decoder_heads: int = 6,
        decoder_positions: str = "published",
        mask_ratio: float = 0.9,
        normalize_target: bool = True,
        difference_group: int = 2,
        motion_weight: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        height, _ = sides(img_size)
        super().__init__(
            num_classes=0,
            num_features=width,
            video_spec=dataclasses.replace(VIDEO, num_frames=num_frames, img_size=height, segments=1),
        )
        check_option("attention", attention, ("local_global", "joint"))
        check_option("decoder_positions", decoder_positions, ("published", "matched"))
        if layer_scale and attention != "joint":
            raise InputError(
                f"layer_scale is {layer_scale}; expected 0: the blocks of the LGI-Former have no layer scale."
            )
        self.cut = {"p0": tubelet, "p1": patch_size, "p2": patch_size}
        self.grid = grid = Grid.of(num_frames, img_size, tubelet, patch_size)
        self.matched = decoder_positions == "matched"
        self.normalize_target, self.difference_group = normalize_target, difference_group
        self.motion_weight = motion_weight
        check_difference(num_frames, tubelet, difference_group, motion_weight)

        embedding = {
            "channels": CHANNELS,
            "tubelet": tubelet,
            "patch_size": patch_size,
            "learned_position": False,
            "drop": drop_rate,
        }
        block: dict[str, Any] = {
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "qkv_bias": qkv_bias,
            "drop": drop_rate,
            "attn_drop": attn_drop_rate,
        }
        self.encoder: LGIFormer | JointEncoder
        if attention == "joint":
            block["layer_scale"] = layer_scale
            self.encoder = JointEncoder(
                grid, width=width, depth=depth, drop_path_rate=drop_path_rate, embedding=embedding, block=block
            )
            self.window = (grid.rows, grid.columns)
        else:
            block |= {
                "local_attention": local_attention,
                "global_attention": global_attention,
                "interaction": interaction,
                "share_attention": share_attention,
            }
            self.encoder = LGIFormer(
                grid,
                region=region,
                width=width,
                depth=depth,
                drop_path_rate=drop_path_rate,
                embedding=embedding,
                block=block,
            )
            self.window = (region[1], region[2])
            if interaction == "none":  # nothing passes the last global attention on to the local tokens
                self.unused_parameters = (f"encoder.blocks.{depth - 1}.global_*",)
        check_count("decoder_width", decoder_width)
        self.encoder_norm = nn.LayerNorm(width, eps=EPS)
        self.to_decoder = nn.Linear(width, decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder = Decoder(
            grid,
            width=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            layer_scale=layer_scale,
            out=CHANNELS * tubelet * patch_size**2,
        )
        self.classifier = nn.Identity()
        self.mask_ratio = mask_ratio
        area = self.window[0] * self.window[1]
        self.masked_per_window = int(mask_ratio * area)
        if not 0 < self.masked_per_window < area:
            raise InputError(
                f"mask_ratio {mask_ratio} masks {self.masked_per_window} of the {area} tokens of a window; "
                "expected a ratio that leaves some masked and some visible."
            )
        self.num_visible = grid.tokens * (area - self.masked_per_window) // area
        self.register_buffer("reading_order", self._reading_order(), persistent=False)
        self.register_buffer("fixed_mask", self.draw_mask(1, torch.Generator().manual_seed(0)), persistent=False)
        self.init_unless_loading()

    # -- masks -----------------------------------------------------------------------------------------------------

    def draw_mask(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """(B, N), True = masked: the same number in every window, and the same tokens in all frames."""
        rows, columns = self.grid.rows // self.window[0], self.grid.columns // self.window[1]
        area = self.window[0] * self.window[1]
        device = generator.device if generator is not None else self.mask_token.device
        masked = draw_masked((batch, rows * columns, area), self.masked_per_window, generator, device)
        return repeat(
            masked,
            "b (nh nw) (rh rw) -> b (t nh rh nw rw)",
            **{"t": self.grid.frames, "nh": rows, "nw": columns, "rh": self.window[0], "rw": self.window[1]},
        )

    def _mask(self, mask: Tensor | None, batch: int) -> tuple[Tensor, int]:
        """The mask, and the number of visible tokens per clip."""
        if mask is not None:
            return mask, self._check_mask(mask, batch)
        if self.training:
            return self.draw_mask(batch), self.num_visible
        return self.fixed_mask.expand(batch, -1), self.num_visible

    def _check_mask(self, mask: Tensor, batch: int) -> int:
        count = count_visible("mask", mask, (batch, self.grid.tokens), self.num_visible)
        if torch.compiler.is_compiling():
            torch._assert_async(
                self._can_be_shared_out(mask),
                "A compiled model takes masks of its own mask_ratio, with as many visible tokens in all regions.",
            )
            return count
        if not self._can_be_shared_out(mask):
            raise InputError(
                "The LGI-Former needs the same number of visible tokens in every region and in each of its frames; "
                "in this mask they differ."
            )
        if isinstance(self.encoder, LGIFormer):
            _, rows, columns = self.encoder.region_grid
            if count % (self.grid.frames * rows * columns):
                raise InputError(f"{count} visible tokens cannot be shared out evenly among the regions.")
        return count

    def _can_be_shared_out(self, mask: Tensor) -> Tensor:
        """Whether `_by_region` assigns every token to its own region. The published rule does not check it."""
        if not (self.matched and isinstance(self.encoder, LGIFormer)):
            return mask.new_ones(())
        visible = ~self.encoder.into_regions(mask)
        shares = rearrange(visible, "b n (t s) -> b n t s", t=self.encoder.region[0]).sum(-1)
        return (shares == shares[0, 0, 0]).all()

    def _reading_order(self) -> Tensor:
        """(N,): the order in which visible tokens are collected, frame by frame. The published one is row by row, which
        keeps regions together only if they span the width of the frame."""
        order = torch.arange(self.grid.tokens)
        if not (self.matched and isinstance(self.encoder, LGIFormer)):
            return order
        return rearrange(
            order,
            "(t nh rh nw rw) -> (t nh nw rh rw)",
            t=self.grid.frames,
            nh=self.encoder.region_grid.rows,
            rh=self.window[0],
            rw=self.window[1],
        )

    def _visible(self, mask: Tensor, count: int) -> Tensor:
        """(B, count): indices of the visible tokens, in reading order."""
        return self.reading_order[visible_numbers(mask[:, self.reading_order], count)]

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        mask, count = self._mask(mask, video.shape[0])
        return self._decode(self._encode(video, mask, count), mask, count)

    def forward_features(self, video: Tensor, mask: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """(B, T, 3, H, W) -> encoded visible tokens (B, visible, D). A mask of zeros returns all tokens."""
        return self._encode(video, *self._mask(mask, video.shape[0]))

    def forward_head(self, x: Tensor, pre_logits: bool = False, mask: Tensor | None = None) -> Tensor:
        """Visible tokens -> the pixels of the masked ones; with ``pre_logits`` the mean visible token (B, D)."""
        if pre_logits:
            return x.mean(1)
        if mask is None and self.training:
            raise InputError(
                "Training draws a new mask in every call; pass forward_head the mask that the features were computed with."
            )
        return self._decode(x, *self._mask(mask, x.shape[0]))

    def _encode(self, video: Tensor, mask: Tensor, count: int) -> Tensor:
        check_shape("video", video, "(B, T, 3, H, W)", (None, *self.encoder.input_shape))
        visible = self._embed(video, self._visible(mask, count))
        if isinstance(self.encoder, LGIFormer):
            regions = self.encoder(self._by_region(visible), self.run_block)
            visible = rearrange(regions[:, :, 1:], "b n s d -> b (n s) d")
        else:
            visible = self.encoder(visible, self.run_block)
        return self.encoder_norm(visible)

    def _embed(self, video: Tensor, numbers: Tensor) -> Tensor:
        """The tokens of the tubelets with these indices. The others are computed only if hooks exist."""
        embed, drop = self.encoder.patch_embed, self.encoder.position_drop
        if is_watched(embed) or is_watched(drop) or (self.training and drop.p > 0):
            return pick(self.encoder.embed(video), numbers)
        tubelets = rearrange(video, "b (t p0) c (h p1) (w p2) -> b (t h w) (c p0 p1 p2)", **self.cut)
        tokens = linear(pick(tubelets, numbers), embed.weight.flatten(1), embed.bias)
        return tokens + self.encoder.position[0][numbers]

    def _by_region(self, visible: Tensor) -> Tensor:
        """(B, visible, ...), ordered by frame, then region -> (B, n, S, ...)"""
        assert isinstance(self.encoder, LGIFormer)
        steps, rows, columns = self.encoder.region_grid
        return rearrange(
            visible,
            "b (nt rt r s) ... -> b (nt r) (rt s) ...",
            **{"nt": steps, "rt": self.encoder.region[0], "r": rows * columns},
        )

    def _decode(self, encoded: Tensor, mask: Tensor, count: int) -> Tensor:
        visible, masked = self._visible(mask, count), masked_numbers(mask, count)
        if self.matched and isinstance(self.encoder, LGIFormer):
            visible = self._by_region(visible).flatten(1)  # the order of the tokens after the encoder
        position = self.decoder.position[0]
        known = call_linear(self.to_decoder, encoded) + position[visible]
        asked = self.mask_token + position[masked]
        return self.decoder(torch.cat([known, asked], dim=1), count, self.run_block)

    # -- target and loss -------------------------------------------------------------------------------------------

    def loss(self, prediction: Tensor, video: Tensor, mask: Tensor) -> Tensor:
        """Squared error over the masked tokens, in float32 even under autocast."""
        errors = self.errors(prediction, video, mask)
        if not errors.numel():
            raise InputError("The mask hides no token, so there is no loss.")
        return self.mean_error(errors)

    def errors(self, prediction: Tensor, video: Tensor, mask: Tensor) -> Tensor:
        """(B, masked, 1536) squared errors."""
        target = pick(self.targets(video.float()), masked_numbers(mask, self._check_mask(mask, video.shape[0])))
        return F.mse_loss(prediction.float(), target, reduction="none")

    def training_loss(
        self, inputs: Mapping[str, Tensor | None], targets: Any = None, criterion: Any = None, *, epoch: int = 0
    ) -> tuple[Tensor, Tensor]:
        """(loss, prediction). There are no labels: targets and criterion are ignored."""
        video, mask = inputs["video"], inputs.get("mask")
        assert video is not None
        mask, _ = self._mask(mask, video.shape[0])
        prediction = self(video, mask)
        return self.loss(prediction, video, mask), prediction

    @torch.no_grad()
    def reconstruct(self, video: Tensor, mask: Tensor | None = None) -> Reconstruction:
        """Reconstruct a clip for display."""
        mask, count = self._mask(mask, video.shape[0])
        guessed = self._decode(self._encode(video, mask, count), mask, count).float()
        pixels = self.pixels(video.float())
        level, spread = self._levels(pixels)
        # visible tokens show the input, masked ones the prediction, in the units of the target
        places = masked_numbers(mask, count)[..., None].expand_as(guessed)
        target = self.from_tubelets(self.targets(video.float()).scatter(1, places, guessed))
        if self.difference_group:
            target = differences(target, self.difference_group, sign=1)
        if self.normalize_target:
            target = self._untile(self._tile(target) * spread + level)
        hidden = self.from_tubelets(mask[..., None].expand(-1, -1, guessed.shape[-1]).float()).bool()
        time = torch.arange(target.shape[1], device=target.device)
        group = self.difference_group or self.cut["p0"]
        moved = target - target[:, time // group * group]
        return Reconstruction(target, moved, pixels.masked_fill(hidden, 0.5), mask)

    # -- other methods of models ----------------------------------------------------------------------------------

    def init_weights(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and name != "to_decoder":  # keeps torch's own initialisation
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for token in (self.mask_token, getattr(self.encoder, "region_tokens", None)):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02, a=-0.02, b=0.02)

    def example_inputs(self, batch: int = 1) -> dict[str, Tensor]:
        return {
            "video": torch.rand(
                batch, *self.encoder.input_shape, device=self.mask_token.device, dtype=self.mask_token.dtype
            )
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """For layer decay, which the published pre-training does not use."""
        blocks = r"^encoder\.blocks" if coarse else r"^encoder\.blocks\.(\d+)"
        return {"stem": r"^encoder\.patch_embed", "blocks": [(blocks, None)]}

    def no_weight_decay(self) -> set[str]:
        """Region tokens are decayed here but not in fine-tuning: as published, probably by oversight."""
        return {"mask_token"}
