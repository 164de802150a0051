"""DFER-CLIP: frames by CLIP, mixed over time by a small transformer, named by descriptions of faces.

Zhao, Patras. BMVC 2023, arXiv 2308.13382.

There is no linear classifier: a clip is compared with one text per class ("a smiling mouth, raised cheeks, ..."), in
front of which a few vectors are learned.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError, suggest
from ..weights.record import VideoSpec
from .base import DferModel, LoadReport, check_parts, check_shape, fill, plain_count
from .clip_towers import (
    FeatureCache,
    PromptLearner,
    TextTower,
    block_at,
    build_clip,
    check_texts,
    class_names,
    class_texts,
    clip_config,
    l2_normalize,
    read_prompts,
    tokenize,
)
from .layers import TemporalTransformer

PROMPTS = read_prompts("dfer_clip")
TEXT_TYPES = tuple(PROMPTS["texts"])
SENTENCE = "an expression of {}."  # the published pattern for a class that is a name and nothing else


class DFERCLIP(DferModel):
    """Labels and texts may be your own:

    >>> model = DFERCLIP(labels=["calm", "bored"], prompts=["a relaxed face.", "half closed eyes, a resting chin."])
    >>> model(torch.zeros(1, 16, 3, 224, 224)).shape
    torch.Size([1, 2])

    Labels without ``prompts`` get the published texts of ``text_type`` if all of them are among the eleven published
    classes, and "an expression of LABEL." otherwise.
    """

    frame_independent = True
    head_prefixes = ("prompt_learner.",)
    head_arguments = ("prompts", "text_type")
    default_labels: ClassVar = {int(count): tuple(labels) for count, labels in PROMPTS["labels"].items()}
    unused_parameters = ("logit_scale",)  # the temperature is fixed; `zero_shot` reads it
    frozen_parameters = ("text_encoder.*", "logit_scale")

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        labels: Sequence[str] | None = None,
        prompts: Sequence[str] | None = None,
        text_type: str = "class_descriptor",
        num_contexts: int = 8,
        class_token_position: str = "end",
        class_specific_contexts: bool = True,
        temporal_depth: int = 1,
        num_heads: int = 8,
        num_frames: int = 16,
        temperature: float = 0.01,
        clip_model: str | Mapping[str, Any] = "ViT-B-32-quickgelu",
    ) -> None:
        labels = class_names(self.default_labels, 7 if num_classes is None and labels is None else num_classes, labels)
        config = clip_config(clip_model)
        width, img_size = config["embed_dim"], config["vision_cfg"]["image_size"]
        super().__init__(
            num_classes=len(labels), num_features=width, video_spec=VideoSpec(num_frames, img_size, "segment_centres")
        )
        self._set_texts(labels, prompts, text_type)
        self.num_contexts = num_contexts
        self.class_token_position = class_token_position
        self.class_specific_contexts = class_specific_contexts
        self.temperature = temperature

        clip = build_clip(clip_model)
        self.image_encoder = clip.visual
        self.temporal_net = TemporalTransformer(width, temporal_depth, num_heads, num_frames=num_frames)
        self.text_encoder = TextTower(clip)
        self.logit_scale = clip.logit_scale
        self.prompt_learner = self._build_prompt_learner()
        self._kept_text_features = FeatureCache()
        self.init_unless_loading()

    def init_weights(self) -> None:
        self.prompt_learner.init_weights()
        self.temporal_net.init_weights()

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward_features(self, video: Tensor, audio: Tensor | None = None) -> Tensor:
        return self.mix_frames(self.encode_frames(video))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = l2_normalize(x)
        if pre_logits or not self.num_classes:
            return embedding
        return embedding @ self.encode_text().T / self.temperature

    def encode_frames(self, video: Tensor) -> Tensor:
        """Every frame by itself: (B, T, 3, H, W) -> (B, T, num_features), not normalised."""
        size = self.video_spec.img_size
        check_shape("video", video, "(B, T, 3, H, W)", (None, None, 3, size, size))
        tower = self.image_encoder
        patches = tower.conv1(video.flatten(0, 1)).flatten(2).mT  # (B*T, 49, 768)
        class_token = tower.class_embedding.to(patches.dtype).expand(patches.shape[0], 1, -1)
        tokens = torch.cat([class_token, patches], dim=1) + tower.positional_embedding.to(patches.dtype)
        tokens = tower.ln_pre(tokens)
        *blocks, last = tower.transformer.resblocks
        for block in blocks:
            tokens = self.run_block(block, tokens)
        # of the last block nothing but the class token is read
        class_token = self.run_block(block_at, last, tokens, tokens[:, :1])
        features = tower.ln_post(class_token[:, 0]) @ tower.proj
        return features.unflatten(0, video.shape[:2])

    def forward_frames(self, frames: Tensor, audio: Tensor | None = None) -> Tensor:
        """What `encode_frames` gave -> logits."""
        return self.forward_head(self.mix_frames(frames))

    def mix_frames(self, frames: Tensor) -> Tensor:
        """Frame features of one clip after the other, in their order in time: (B, T, num_features) -> (B, num_features).

        Frames that two windows of a video share need `encode_frames` once only."""
        check_shape("frame features", frames, "(B, T, D)", (None, None, self.num_features))
        if not 1 <= frames.shape[1] <= self.temporal_net.num_frames:
            raise InputError(
                f"video must be (B, T, 3, H, W) with 1 to {self.temporal_net.num_frames} frames (T), got "
                f"{frames.shape[1]}: there are no more positions. Sample the clip first, as create_transform does."
            )
        return self.temporal_net(frames, self.run_block)

    def encode_video(self, video: Tensor) -> Tensor:
        """Clips as unit vectors, (B, T, 3, H, W) -> (B, num_features), to be compared with `encode_text`."""
        return self.forward_head(self.forward_features(video), pre_logits=True)

    def encode_text(self, texts: Sequence[str] | None = None) -> Tensor:
        """Texts as unit vectors: the classes', learned contexts included, (num_classes, num_features); or your own, as
        CLIP has them. The classes' follow from the weights alone: in eval mode, where no gradient of them can be wanted,
        they are computed once and kept."""
        if texts is not None:
            if not (texts := check_texts("texts", texts)):
                raise InputError("texts must be a list of texts, and this one is empty.")
            ids, ends = (t.to(self.logit_scale.device) for t in tokenize(texts, self._context_length))
            return l2_normalize(self.text_encoder.encode_ids(ids, ends))
        if self.training:
            return self._encode_classes()
        watched = itertools.chain(self.text_encoder.parameters(), self.prompt_learner.parameters())
        return self._kept_text_features(watched, self._encode_classes)

    def _encode_classes(self) -> Tensor:
        prompts = self.prompt_learner(self.text_encoder.token_embedding)
        return l2_normalize(self.text_encoder(prompts, self.prompt_learner.ends, self.run_block))

    def zero_shot(self, video: Tensor, texts: Sequence[str] | None = None) -> Tensor:
        """CLIP as it came, without what DFER-CLIP learns: the mean of the frames against plain texts, by default those
        of the classes. (B, T, 3, H, W), of any T -> logits (B, number of texts). For "backbone" weights, and frames
        with CLIP's own normalisation:

        >>> transform = create_transform(model, mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD)  # doctest: +SKIP
        >>> model.zero_shot(**transform.batch([clip]), texts=["a happy face", "a sad face"])       # doctest: +SKIP
        """
        frames = self.encode_frames(video)
        if not frames.shape[1]:
            raise InputError(f"video has no frames (T): it is {tuple(video.shape)}.")
        clips = l2_normalize(frames.mean(dim=1))
        return self.logit_scale.exp() * clips @ self.encode_text(self.prompts if texts is None else texts).T

    def train(self, mode: bool = True) -> DFERCLIP:
        self._kept_text_features.drop()
        super().train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> DFERCLIP:
        self._kept_text_features.drop()  # else the old device would hold them until the next clip
        return super()._apply(*args, **kwargs)

    # -- head ------------------------------------------------------------------------------------------------------

    def get_classifier(self) -> nn.Module:
        """What is learned per class: the contexts."""
        return self.prompt_learner

    def reset_classifier(
        self, classes: int | Sequence[str], prompts: Sequence[str] | None = None, text_type: str | None = None
    ) -> None:
        """New classes, told apart by new texts, with new contexts; a number is enough where the labels are published.
        Without ``prompts`` the texts are of ``text_type``, by default of the one that the classes have now."""
        classes = plain_count(classes)
        count, names = (classes, None) if isinstance(classes, int) else (None, classes)
        labels = class_names(self.default_labels, count, names)
        self._set_texts(labels, prompts, text_type or self.text_type or PROMPTS["published"])
        self._kept_text_features.drop()  # without contexts no parameter shows that the texts are others
        learner = self._build_prompt_learner().train(self.training)
        self.prompt_learner = learner.to(device=self.logit_scale.device, dtype=self.logit_scale.dtype)

    def _set_texts(self, labels: tuple[str, ...], prompts: Sequence[str] | None, text_type: str) -> None:
        """The texts of these classes; ``self.text_type`` is None if they are others than the published ones."""
        if text_type not in TEXT_TYPES:
            raise InputError(f"There is no text type '{text_type}'.{suggest(text_type, TEXT_TYPES)}")
        published = class_texts(labels, None, PROMPTS["texts"][text_type], SENTENCE)
        self.prompts = published if prompts is None else class_texts(labels, prompts, {})
        self.text_type = text_type if self.prompts == published else None
        self.num_classes, self.labels = len(labels), labels

    def _build_prompt_learner(self) -> PromptLearner:
        return PromptLearner(
            self.prompts,
            self.text_encoder.width,
            self.num_contexts,
            class_token_position=self.class_token_position,
            class_specific=self.class_specific_contexts,
            context_length=self._context_length,
        )

    @property
    def _context_length(self) -> int:
        return len(self.text_encoder.positional_embedding)

    def config(self) -> dict[str, Any]:
        texts = {"labels": list(self.labels), "prompts": list(self.prompts)}
        return {**super().config(), **texts, "text_type": self.text_type or PROMPTS["published"]}

    # -- training --------------------------------------------------------------------------------------------------

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^image_encoder\.(?:conv1|class_embedding|positional_embedding|ln_pre)"
            r"|^text_encoder\.(?:token_embedding|positional_embedding)",
            "blocks": [
                (r"^(?:image|text)_encoder\.transformer\.resblocks\.(\d+)", None),
                (r"^image_encoder\.(?:ln_post|proj)|^text_encoder\.(?:ln_final|text_projection)", (99999,)),
            ],
            "time": r"^temporal_net",
        }  # the rest, contexts and scale, is the head

    # -- weights ---------------------------------------------------------------------------------------------------

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Both towers of CLIP, as the part "clip"; contexts and temporal net keep their initial values."""
        check_parts(self, states, "clip")
        learned = ("prompt_learner.", "temporal_net.")
        wanted = {name for name in self.state_dict() if not name.startswith(learned)}
        return fill(self, states["clip"], wanted, what=f"This is not the CLIP of {type(self).__name__}")
