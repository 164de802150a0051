"""S2D: an image model of expressions, extended to videos. The ViT stays frozen; between its blocks, landmark features
prompt the patches, and every patch attends along time.

Chen, Li, Shan, Wang, Hong. "From Static to Dynamic: Adapting Landmark-Aware Image Models for Facial Expression
Recognition in Videos", IEEE Transactions on Affective Computing 2024, arXiv 2312.05447.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..errors import InputError
from ..weights.record import VideoSpec, check_count
from .anchors import EmotionAnchors, distillation_weight
from .base import DferModel, LoadReport, check_backbones, check_shape, fill
from .layers import Attention
from .mobile_face_net import LandmarkFeatures, resize_for_landmarks
from .parts import Mlp, init_linears
from .video_mae import VIDEO, check_option
from .vit import Encoder, EncoderNorm, Preset

GRID = 14  # patches per side, the grid of the landmark features
TEMPORAL_HEADS = 8  # for every width

LABELS = {
    7: ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear"),  # DFEW; FERV39k has another order
    11: (  # MAFW
        "anger",
        "anxiety",
        "contempt",
        "disappointment",
        "disgust",
        "fear",
        "happiness",
        "helplessness",
        "neutral",
        "sadness",
        "surprise",
    ),
}


# -- prompt blocks ----------------------------------------------------------------------------------------------


class Fovea(nn.Module):
    """Spatial attention per channel: the map times its own softmax over the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Parameter(torch.full((1,), 10.0))

    def forward(self, x: Tensor) -> Tensor:  # (N, places, hidden)
        # as published: exactly 0 means no scaling, not a product with 0
        scale = torch.where(self.smooth == 0, torch.ones_like(self.smooth), self.smooth)
        return (x * scale).softmax(dim=1) * x


class Prompter(nn.Module):
    """Combines prompt and patches in a narrow space. The output is added to the patches and is the next prompt."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.image_down = nn.Linear(width, hidden)
        self.prompt_down = nn.Linear(width, hidden)
        self.fovea = Fovea()
        self.up = nn.Linear(hidden, width)

    def forward(self, patches: Tensor, prompt: Tensor) -> Tensor:  # both (N, places, width)
        return self.up(self.fovea(self.image_down(patches)) + self.prompt_down(prompt))


class TemporalAttention(nn.Module):
    """Attention of every position over the frames, in a narrower space, without a residual."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.attn = Attention(hidden, TEMPORAL_HEADS, qkv_bias=False)
        self.up = nn.Linear(hidden, width)

    def forward(self, rows: Tensor) -> Tensor:  # (B * places, T, width)
        return self.up(self.attn(self.act(self.down(rows))))


class Adapter(nn.Module):
    """The temporal modeling adapter: attention over time, then a bottleneck MLP per token."""

    def __init__(self, width: int, hidden: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.temporal = TemporalAttention(width, hidden)
        self.norm = nn.LayerNorm(width)  # eps 1e-5; all other norms of this model have 1e-6
        self.spatial = Mlp(width, hidden)

    def forward(self, patches: Tensor) -> Tensor:  # (B * T, places, width)
        rows = rearrange(patches, "(b t) n d -> (b n) t d", t=self.num_frames)
        seen = rearrange(self.temporal(rows), "(b n) t d -> (b t) n d", n=patches.shape[1])
        return self.spatial(self.norm(seen))


class PromptBlock(nn.Module):
    """The block before a ViT block: returns (prompt, temporal change), both of which are added to the patches."""

    def __init__(self, width: int, hidden: int, adapter_hidden: int, num_frames: int) -> None:
        super().__init__()
        self.prompter = Prompter(width, hidden)
        self.adapter = Adapter(width, adapter_hidden, num_frames) if num_frames else None

    def forward(self, patches: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.prompter(patches, prompt), None if self.adapter is None else self.adapter(patches)


# -- models ------------------------------------------------------------------------------------------------------------


class LandmarkPromptedViT(DferModel):
    """A ViT whose patches are prompted with landmark features: the base of `S2D` and `S2DImage`."""

    # with the positions, and with the norm of average pooling, which the published rule of names freezes
    frozen_parameters: ClassVar[tuple[str, ...]] = (
        *(f"encoder.{part}" for part in ("patch_embed.*", "class_token", "positions", "blocks.*")),
        "landmarks.*",
        "pooled_norm.*",
    )

    def __init__(
        self,
        *,
        num_classes: int,
        num_frames: int,
        img_size: int,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float,
        qkv_bias: bool,
        prompts: str,
        hidden: int,
        adapter_hidden: int,
        pooling: str,
        video_spec: VideoSpec,
    ) -> None:
        check_option("prompts", prompts, ("deep", "shallow", "none"))
        check_option("pooling", pooling, ("token", "average"))
        sizes = {
            "img_size": img_size,
            "patch_size": patch_size,
            "depth": depth,
            "num_heads": num_heads,
            "hidden": hidden,
        }
        for name, value in sizes.items():
            check_count(name, value)
        if img_size != GRID * patch_size:
            raise InputError(
                f"img_size is {img_size} and patch_size {patch_size}; expected {GRID} patches per side, the grid of the "
                f"landmark features: img_size={GRID * patch_size}."
            )
        if width < 1 or width % num_heads:
            raise InputError(f"width is {width}; expected a multiple of num_heads, {num_heads}.")
        super().__init__(num_classes=num_classes, num_features=width, video_spec=video_spec)
        self.prompts, self.pooling = prompts, pooling
        self.landmarks = LandmarkFeatures()
        self.landmark_embed = nn.Linear(self.landmarks.num_features, width)
        self.encoder = Encoder(
            Preset(width, depth, num_heads, patch_size, mlp_ratio),
            grid=(GRID, GRID),
            channels=3,
            qkv_bias=qkv_bias,
            final_norm=pooling == "token",
        )
        self.pooled_norm = EncoderNorm(width) if pooling == "average" else nn.Identity()
        count = {"deep": depth, "shallow": 1}.get(prompts, 0)
        self.prompt_norms = nn.ModuleList(EncoderNorm(width) for _ in range(count))
        self.prompt_blocks = nn.ModuleList(PromptBlock(width, hidden, adapter_hidden, num_frames) for _ in range(count))
        if count > 1:
            self.unused_parameters = (f"prompt_norms.{count - 1}.*",)  # in the authors' files; no output depends on it
        self.landmarks.requires_grad_(False)
        self._frozen_modules = ("landmarks",)  # training clips never update its batch statistics

    def encode_images(self, images: Tensor) -> Tensor:
        """(B * T, 3, S, S), the frames of a clip in a row -> (B * T, width)"""
        patches = self.encoder.patches(images)
        prompt = self.embed_landmarks(images)
        if self.prompts == "none":
            patches = patches + prompt
        else:
            patches, prompt = self.run_block(self.prompt, patches, prompt, 0)
        tokens = self.add_times(self.encoder.add_positions(patches))
        for i, block in enumerate(self.encoder.blocks):
            if 0 < i < len(self.prompt_blocks):
                patches, prompt = self.run_block(self.prompt, tokens[:, 1:], prompt, i)
                tokens = torch.cat([tokens[:, :1], patches], dim=1)  # the class token skips the prompt block
            tokens = self.run_block(block, tokens)
        if self.pooling == "average":
            return self.pooled_norm(tokens[:, 1:].mean(1))
        return self.encoder.norm(tokens)[:, 0]

    def embed_landmarks(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, 196, width). The images keep the normalisation of the ViT."""
        features = self.landmarks(resize_for_landmarks(images))
        return self.landmark_embed(rearrange(features, "n c h w -> n (h w) c"))

    def prompt(self, patches: Tensor, prompt: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """Run prompt block i: (patches, prompt) -> the patches plus both of its outputs, and the next prompt."""
        # as published: the first norm is used for blocks 0 and 1 and for all prompts, norm i for block i + 1
        norm = self.prompt_norms[max(0, i - 1)]
        prompt, change = self.prompt_blocks[i](norm(patches), self.prompt_norms[0](prompt))
        if change is not None:
            patches = patches + change
        return patches + prompt, prompt

    def add_times(self, tokens: Tensor) -> Tensor:
        """Add temporal positions, in the video model."""
        return tokens

    @classmethod
    def entries_of_backbone(cls, part: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The feature layers of a `MobileFaceNet`; its later layers are not used."""
        prefix = "features."
        return {f"landmarks.{n.removeprefix(prefix)}": value for n, value in state.items() if n.startswith(prefix)}

    def init_weights(self) -> None:
        """Truncated normal weights for all linear layers, as published: the adapters do not start at zero."""
        init_linears(self)
        # as published: layers that are 1 x 1 convolutions there have torch's default, with Xavier weights in prompters
        self.landmark_embed.reset_parameters()
        for module in self.modules():
            if isinstance(module, Prompter):
                for layer in (module.image_down, module.prompt_down, module.up):
                    layer.reset_parameters()
                    nn.init.xavier_uniform_(layer.weight)
        self.encoder.init_weights()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Blocks from the input to the head, each with its prompt block, for timm's layer decay."""
        return {
            "stem": r"^(?:encoder\.(?:patch_embed|class_token|positions)|landmark_embed|temporal_positions|prompt_norms)",
            "blocks": [
                (r"^(?:encoder\.blocks|prompt_blocks)\.(\d+)\.", None),
                (r"^(?:encoder|pooled)[._]norm\.", (99999,)),
            ],
        }


class S2DImage(LandmarkPromptedViT):
    """The image model that S2D starts from, without its classifier: a face image -> features (B, width).

    Its published weights are the frozen ViT and the prompters, trained on AffectNet. The authors' code for images is not
    public. This is S2D without its temporal layers, and its features were never compared with the authors'.

    Examples:
        >>> model = S2DImage(img_size=56, patch_size=4, width=64, depth=2, num_heads=4)
        >>> model(image=torch.rand(1, 3, 56, 56)).shape
        torch.Size([1, 64])
    """

    inputs: ClassVar[tuple[str, ...]] = ("image",)
    head_prefixes: ClassVar[tuple[str, ...]] = ("encoder.norm.",)
    has_classifier: ClassVar[bool] = False

    def __init__(
        self,
        *,
        img_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        hidden: int = 8,
    ) -> None:
        super().__init__(
            num_classes=0,
            num_frames=0,
            img_size=img_size,
            patch_size=patch_size,
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            prompts="deep",
            hidden=hidden,
            adapter_hidden=0,
            pooling="token",
            video_spec=dataclasses.replace(
                VIDEO, num_frames=1, img_size=img_size, sampling="segment_centres", rate=1, segments=1
            ),
        )
        self.classifier = nn.Identity()
        self.init_unless_loading()

    def forward_features(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, S, S) -> (B, width)"""
        side = self.video_spec.img_size
        check_shape("image", image, "(B, 3, H, W)", (None, 3, side, side))
        return self.encode_images(image)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, S, S) -> (B, width)"""
        return self.forward_head(self.forward_features(image))


class S2D(LandmarkPromptedViT):
    """Face frames -> logits.

    Args:
        num_classes: 7 for DFEW and FERV39k, 11 for MAFW.
        num_frames: Frames of a clip. Weights fit one number only.
        img_size: Height and width of a frame, 14 patches.
        patch_size: Height and width of a patch.
        width: Width of the tokens.
        depth: Number of ViT blocks.
        num_heads: Heads of the ViT blocks.
        mlp_ratio: Hidden width of the ViT blocks' MLPs, relative to ``width``.
        qkv_bias: Whether queries, keys and values of the ViT blocks have a bias.
        prompts: "deep", a prompt block before every ViT block; "shallow", only before the first; "none".
        hidden: Hidden width of the prompters.
        adapter_scale: Hidden width of the adapters, relative to ``width``.
        pooling: "token", the class token, or "average", the mean of the patches.
        head_drop: Dropout rate before the classifier.
        anchors: Stored clips per class for the distillation loss (published for FERV39k: 16); 0 disables the loss.
        update_anchors: Store training clips from epoch 21 on. The published training never did; it distils towards the
            random values that the anchors start with.

    Examples:
        >>> model = S2D(img_size=56, patch_size=4, width=64, depth=2, num_heads=4, num_frames=4)
        >>> model(video=torch.rand(1, 4, 3, 56, 56)).shape
        torch.Size([1, 7])
    """

    default_labels: ClassVar[Mapping[int, tuple[str, ...]]] = LABELS

    def __init__(
        self,
        *,
        num_classes: int = 7,
        num_frames: int = 16,
        img_size: int = 224,
        patch_size: int = 16,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        prompts: str = "deep",
        hidden: int = 8,
        adapter_scale: float = 0.25,
        pooling: str = "token",
        head_drop: float = 0.5,
        anchors: int = 0,
        update_anchors: bool = False,
    ) -> None:
        check_count("num_frames", num_frames)
        adapter_hidden = int(width * adapter_scale)
        if adapter_hidden < 1 or adapter_hidden % TEMPORAL_HEADS:
            raise InputError(
                f"adapter_scale is {adapter_scale}, {adapter_hidden} of {width} channels; expected a multiple of "
                f"{TEMPORAL_HEADS}, the heads of the temporal attention."
            )
        super().__init__(
            num_classes=num_classes,
            num_frames=num_frames,
            img_size=img_size,
            patch_size=patch_size,
            width=width,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            prompts=prompts,
            hidden=hidden,
            adapter_hidden=adapter_hidden,
            pooling=pooling,
            video_spec=dataclasses.replace(VIDEO, num_frames=num_frames, img_size=img_size, rate=1),
        )
        self.num_frames = num_frames
        self.temporal_positions = nn.Parameter(torch.empty(1, num_frames, width))
        self.head_drop = nn.Dropout(head_drop)
        self.classifier = self.build_classifier(num_classes)
        self.anchors = EmotionAnchors(num_classes, width, anchors) if anchors else None
        self.update_anchors = update_anchors
        self.init_unless_loading()

    def encode_clip(self, video: Tensor) -> Tensor:
        """(B, T, 3, S, S) -> a feature per frame, (B, T, width)"""
        side = self.video_spec.img_size
        check_shape("video", video, "(B, T, 3, H, W)", (None, self.num_frames, 3, side, side))
        frames = self.encode_images(rearrange(video, "b t c h w -> (b t) c h w"))
        return rearrange(frames, "(b t) d -> b t d", t=self.num_frames)

    def add_times(self, tokens: Tensor) -> Tensor:
        """Add the row of a frame to all its tokens, including the class token."""
        rows = repeat(self.temporal_positions, "1 t d -> (b t) 1 d", b=tokens.shape[0] // self.num_frames)
        return tokens + rows

    def forward_features(self, video: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, 3, S, S) -> (B, width)"""
        return self.encode_clip(video).mean(1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features -> logits (B, classes); with ``pre_logits`` the features."""
        return x if pre_logits else self.classifier(self.head_drop(x))

    def forward(self, video: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, 3, S, S) -> (B, classes)"""
        return self.forward_head(self.forward_features(video))

    # -- training ------------------------------------------------------------------------------------------------------

    def init_weights(self) -> None:
        """The published initialisation."""
        super().init_weights()
        nn.init.trunc_normal_(self.temporal_positions, std=0.02)
        if self.anchors is not None:
            self.anchors.init_weights()

    def build_classifier(self, num_classes: int) -> nn.Module:
        """A new head, initialised as published."""
        head = super().build_classifier(num_classes)
        if isinstance(head, nn.Linear):
            nn.init.trunc_normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        return head

    def reset_classifier(self, classes: int | Sequence[str]) -> None:
        """Replace the head, and the anchors if there are any."""
        super().reset_classifier(classes)
        if self.anchors is not None:
            size = self.anchors.features.shape[1]
            self.anchors = EmotionAnchors(self.num_classes, self.num_features, size).to(self.temporal_positions.device)
            self.anchors.init_weights()

    def no_weight_decay(self) -> set[str]:
        """The temporal positions; vectors and biases never have weight decay."""
        return {"temporal_positions"}

    def training_loss(
        self, inputs: Mapping[str, Tensor | None], targets: Tensor, criterion: Callable, *, epoch: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The criterion, plus with ``anchors`` the distillation loss from epoch 21 on, with a growing weight."""
        features = self.head_drop(self.forward_features(cast(Tensor, inputs["video"])))
        logits = self.classifier(features)
        loss = criterion(logits, targets)
        if self.anchors is not None and epoch > 20:
            loss = loss + distillation_weight(epoch) * self.anchors.loss(features, logits)
            if self.update_anchors and targets.ndim == 1:
                self.anchors.push(features, logits, targets)
        return loss, logits

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Load the image model with its landmark network.

        Args:
            states: The state dict of an `S2DImage`, as "image".

        Returns:
            The names of loaded entries, of entries that keep their random values (temporal layers, head), and of ignored
            entries of the file.

        Raises:
            InputError: If "image" is missing.
            WeightsError: If it does not fit; nothing is loaded.
        """
        check_backbones(self, states, "image")
        own, image = self.state_dict(), states["image"]
        wanted = {name for name in own if not _is_new_in_videos(name)}
        given = {name: value for name, value in image.items() if name in own}
        embedding = given.get("landmark_embed.weight")
        if embedding is not None and embedding.shape != own["landmark_embed.weight"].shape:
            # as published: weights for another landmark network are skipped, their bias is loaded
            del given["landmark_embed.weight"]
            wanted -= {"landmark_embed.weight"}
        what = f"The image model does not fit {type(self).__name__}"
        return fill(self, given, wanted | given.keys(), what=what, ignored=image.keys() - given.keys())


def _is_new_in_videos(name: str) -> bool:
    """Whether an image model lacks this entry. The norm of average pooling counts as one."""
    return ".adapter." in name or name.startswith(("temporal_positions", "classifier.", "anchors.", "pooled_norm."))
