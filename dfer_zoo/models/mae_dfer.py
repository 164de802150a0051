"""MAE-DFER: the LGI-Former, a video transformer with attention within regions and among region tokens.

Sun, Lian, Liu, Tao. ACM Multimedia 2023, arXiv 2307.02227.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import InputError
from .parts import DropPath, Mlp
from .shortcuts import applies
from .video_mae import EPS, Attention, Encoder, Grid, VideoTransformer, check_option, drop_path_rates


class LGIBlock(nn.Module):
    """Local attention within each region, global attention among the region tokens, and an interaction in which the
    local tokens attend to the region tokens.

    Args:
        local_attention: "self", or "cross": only the region token attends to its region.
        global_attention: Whether the region tokens attend to each other.
        interaction: "cross": the local tokens attend to the region tokens. "self": another attention within regions.
            "none".
        share_attention: "local": the interaction uses the matrices of the local attention. "all": all three attentions
            share them. "none".
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        local_attention: str = "self",
        global_attention: bool = True,
        interaction: str = "cross",
        share_attention: str = "none",
    ) -> None:
        super().__init__()
        check_option("local_attention", local_attention, ("self", "cross"))
        check_option("interaction", interaction, ("cross", "self", "none"))
        check_option("share_attention", share_attention, ("none", "local", "all"))
        self.local_kind, self.interaction_kind = local_attention, interaction
        self.shares_global, self.shares_interaction = share_attention == "all", share_attention != "none"
        self.has_global = global_attention

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=EPS)

        def attention() -> Attention:
            return Attention(width, num_heads, qkv_bias=qkv_bias, drop=drop, attn_drop=attn_drop)

        self.local_norm = norm()
        if local_attention == "cross":
            self.local_context_norm = norm()
        self.local_attn = attention()
        if global_attention:
            self.global_norm = norm()
            if not self.shares_global:
                self.global_attn = attention()
        if interaction != "none":
            self.interaction_norm = norm()
            if interaction == "cross":
                self.interaction_context_norm = norm()
            if not self.shares_interaction:
                self.interaction = attention()
        self.mlp_norm = norm()
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=(0.0, drop))
        self.drop_path = DropPath(drop_path)  # drawn again for each use

    def forward(self, regions: Tensor, per_clip: int) -> Tensor:
        """(B * n, 1 + S, D), the region token first, then its local tokens; ``per_clip`` is n, the regions of a clip."""
        attended = self.attend_locally(regions)
        local = regions[:, 1:] if self.local_kind == "cross" else attended[:, 1:]
        region_token = self.attend_globally(attended[:, :1], per_clip)
        if self.interaction_kind == "cross":
            local = self.attend_back(local, region_token, per_clip)
        regions = torch.cat([region_token, local], dim=1)
        if self.interaction_kind == "self":
            regions = regions + self.drop_path(self.interact(self.interaction_norm(regions)))
        return regions + self.drop_path(self.mlp(self.mlp_norm(regions)))

    def forward_region_tokens(self, regions: Tensor, per_clip: int) -> Tensor:
        """(B * n, 1 + S, D) -> (B * n, 1, D): the output of `forward` for the region tokens only."""
        region_token = self.attend_globally(self.attend_locally(regions, region_token_only=True), per_clip)
        return region_token + self.drop_path(self.mlp(self.mlp_norm(region_token)))

    def attend_locally(self, regions: Tensor, region_token_only: bool = False) -> Tensor:
        """Attention within a region -> all its tokens, or only its region token."""
        if self.local_kind == "cross":
            region_token, local = regions[:, :1], regions[:, 1:]
            seen = self.local_attn(self.local_norm(region_token), self.local_context_norm(local))
            return region_token + self.drop_path(seen)
        normed = self.local_norm(regions)
        if region_token_only:
            return regions[:, :1] + self.drop_path(self.local_attn(normed[:, :1], normed))
        return regions + self.drop_path(self.local_attn(normed))

    def attend_globally(self, region_token: Tensor, per_clip: int) -> Tensor:
        """Attention among the region tokens of a clip; (B * n, 1, D) in and out."""
        if not self.has_global:
            return region_token
        attn = self.local_attn if self.shares_global else self.global_attn
        messengers = rearrange(region_token, "(b n) 1 d -> b n d", n=per_clip)
        messengers = messengers + self.drop_path(attn(self.global_norm(messengers)))
        return rearrange(messengers, "b n d -> (b n) 1 d")

    def attend_back(self, local: Tensor, region_token: Tensor, per_clip: int) -> Tensor:
        """Every local token of a clip attends to all its region tokens; (B * n, S, D) in and out."""
        messengers = rearrange(region_token, "(b n) 1 d -> b n d", n=per_clip)
        tokens = rearrange(local, "(b n) s d -> b (n s) d", n=per_clip)
        seen = self.interact(self.interaction_norm(tokens), self.interaction_context_norm(messengers))
        return rearrange(tokens + self.drop_path(seen), "b (n s) d -> (b n) s d", n=per_clip)

    def interact(self, queries: Tensor, context: Tensor | None = None) -> Tensor:
        return (self.local_attn if self.shares_interaction else self.interaction)(queries, context)


class LGIFormer(Encoder):
    """Local-global interaction: the cost is linear in the number of tokens."""

    def __init__(
        self,
        grid: Grid,
        *,
        region: Sequence[int],
        width: int,
        depth: int,
        drop_path_rate: float,
        embedding: dict,
        block: dict,
    ) -> None:
        super().__init__(grid, width=width, **embedding)
        self.region_grid = grid.in_regions(region)
        self.region = tuple(region)
        self.region_tokens = nn.Parameter(torch.zeros(self.region_grid.tokens, width))  # without positions
        self.blocks = nn.ModuleList(
            LGIBlock(width, drop_path=rate, **block) for rate in drop_path_rates(drop_path_rate, depth)
        )

    def into_regions(self, tokens: Tensor) -> Tensor:
        """(B, N, ...) in the order of the clip -> (B, n, S, ...), regions and the tokens within them in the same order."""
        (nt, nh, nw), (rt, rh, rw) = self.region_grid, self.region
        return rearrange(
            tokens,
            "b (nt rt nh rh nw rw) ... -> b (nt nh nw) (rt rh rw) ...",
            **{"nt": nt, "rt": rt, "nh": nh, "rh": rh, "nw": nw, "rw": rw},
        )

    def forward(self, local: Tensor, run: Callable, region_tokens_only: bool = False) -> Tensor:
        """Local tokens (B, n, S, D) -> (B, n, 1 + S, D) with the region tokens in front, or (B, n, 1, D).

        With ``region_tokens_only``, the last block's local tokens may be skipped. They are computed if gradients are
        recorded (an optimiser decays parameters with a zero gradient, but not those without one) or if hooks exist.
        """
        per_clip = local.shape[1]
        region_tokens = self.region_tokens[None, :, None].expand(local.shape[0], -1, -1, -1)
        regions = rearrange(torch.cat([region_tokens, local], dim=2), "b n s d -> (b n) s d")
        *blocks, last = self.blocks
        for block in blocks:
            regions = run(block, regions, per_clip)
        short = region_tokens_only and last.interaction_kind != "self"
        if short and applies(last, regions):
            regions = last.forward_region_tokens(regions, per_clip)
        else:
            regions = run(last, regions, per_clip)
        return rearrange(regions, "(b n) s d -> b n s d", n=per_clip)


class MAEDFER(VideoTransformer):
    """The LGI-Former with a linear head, as fine-tuned on DFEW, FERV39k and MAFW.

    ``pooled_tokens``: the tokens that are averaged, "region", "local" or "all".

    >>> model = MAEDFER(num_classes=7)
    >>> model(**model.example_inputs()).shape
    torch.Size([1, 7])
    """

    def __init__(
        self,
        *,
        num_classes: int = 7,
        img_size: int | Sequence[int] = 160,
        patch_size: int = 16,
        channels: int = 3,
        num_frames: int = 16,
        tubelet: int = 2,
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
        pooled_tokens: str = "region",
        mean_pooling: bool = True,
        per_frame: bool = False,
        head_activation: str = "none",
        learned_position: bool = False,
        head_scale: float = 0.001,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        check_option("pooled_tokens", pooled_tokens, ("region", "local", "all"))
        if per_frame and pooled_tokens != "local":
            raise InputError(f"per_frame needs pooled_tokens='local', not '{pooled_tokens}'.")
        encoder = LGIFormer(
            Grid.of(num_frames, img_size, tubelet, patch_size),
            region=region,
            width=width,
            depth=depth,
            drop_path_rate=drop_path_rate,
            embedding={
                "channels": channels,
                "tubelet": tubelet,
                "patch_size": patch_size,
                "learned_position": learned_position,
                "drop": drop_rate,
            },
            block={
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "drop": drop_rate,
                "attn_drop": attn_drop_rate,
                "local_attention": local_attention,
                "global_attention": global_attention,
                "interaction": interaction,
                "share_attention": share_attention,
            },
        )
        super().__init__(
            encoder,
            num_classes=num_classes,
            mean_pooling=mean_pooling,
            per_frame=per_frame,
            head_activation=head_activation,
            head_scale=head_scale,
        )
        self.pooled_tokens = pooled_tokens
        if pooled_tokens == "region" and interaction == "cross":
            self.unused_parameters = (f"encoder.blocks.{depth - 1}.interaction*",)  # it changes local tokens only

    def tokens_to_pool(self, video: Tensor) -> Tensor:
        local = self.encoder.into_regions(self.encoder.embed(video))
        regions = self.encoder(local, self.run_block, region_tokens_only=self.pooled_tokens == "region")
        if self.pooled_tokens == "region":
            return regions[:, :, 0]
        return rearrange(regions[:, :, 1:] if self.pooled_tokens == "local" else regions, "b n s d -> b (n s) d")
