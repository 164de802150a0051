"""What every architecture of the zoo can do: the contract, once."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import fnmatch
import functools
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ..errors import InputError, WeightsError
from ..weights.record import AudioSpec, VideoSpec, Weights, check_labels


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What happened when backbones were loaded into a model. All names are ours."""

    loaded: tuple[str, ...]
    initialized: tuple[str, ...]  # of the model, not in the backbones: random numbers
    ignored: tuple[str, ...]  # of the backbones, not in the model


class DferModel(nn.Module):
    """Base of all models. A subclass sets the class attributes, builds its parts, ends its constructor with
    `self.init_unless_loading()`, and writes `forward_features` and `init_weights`.

    The head is ``self.classifier`` (a Linear) unless the subclass says otherwise by overriding the four head methods.
    """

    inputs: ClassVar[tuple[str, ...]] = ("video",)  # forward's argument names
    optional_inputs: ClassVar[tuple[str, ...]] = ()  # those that may be None
    head_prefixes: ClassVar[tuple[str, ...]] = ("classifier.",)
    head_arguments: ClassVar[
        tuple[str, ...]
    ] = ()  # constructor keywords that `reset_classifier` takes beside the classes; the first that is given counts
    default_labels: ClassVar[Mapping[int, tuple[str, ...]]] = {}  # by number of classes
    unused_parameters: tuple[str, ...] = ()  # patterns of names that no output depends on, kept for the files
    frozen_parameters: ClassVar[tuple[str, ...]] = ()  # patterns that the published training freezes
    has_classifier: ClassVar[bool] = (
        True  # False: `num_classes` is 0 for good, and forward gives something else than logits
    )
    frame_independent: ClassVar[bool] = False  # every frame is encoded by itself: `encode_frames`, `forward_frames`

    def __new__(cls, *args: Any, **model_args: Any) -> DferModel:
        check_arguments(model_args)
        model = super().__new__(cls)
        model.__dict__["_model_args"] = model_args  # what `config` needs to build the model again
        return model

    def __init__(
        self,
        *,
        num_classes: int,
        num_features: int,
        video_spec: VideoSpec | None = None,
        audio_spec: AudioSpec | None = None,
    ) -> None:
        super().__init__()
        if not _is_count(num_classes):
            raise InputError(f"num_classes is {num_classes!r}; expected a whole number, 0 (no head) or more.")
        self.num_classes = int(num_classes)
        self.num_features = num_features
        self.video_spec = video_spec
        self.audio_spec = audio_spec
        self.labels = self.labels_for(num_classes)
        self.weights: Weights | None = None
        self.load_report: LoadReport | None = None
        self.grad_checkpointing = False
        self._frozen_modules: tuple[str, ...] = ()

    @classmethod
    def labels_for(cls, num_classes: int) -> tuple[str, ...]:
        return cls.default_labels.get(num_classes) or tuple(f"class_{i}" for i in range(num_classes))

    @property
    def pretrained_cfg(self) -> Weights | None:
        """The record of the loaded weights: `weights`, under timm's name. None for random weights.

        >>> import dfer_zoo
        >>> dfer_zoo.create_model("mini_xception.fer2013").pretrained_cfg
        Weights(mini_xception.fer2013: bundled, 56,951 parameters, 7 labels)
        """
        return self.weights

    # -- forward ---------------------------------------------------------------------------------------------------

    def forward_features(self, video: Tensor, audio: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features -> logits; with ``pre_logits`` the embedding (B, num_features) in front of the classifier."""
        return x if pre_logits else self.classifier(x)

    def forward(self, video: Tensor, audio: Tensor | None = None) -> Tensor:
        return self.forward_head(self.forward_features(video, audio))

    def __call__(self, *args: Any, views: Tensor | None = None, **inputs: Any) -> Any:
        """Like forward, with an answer for every clip where `Transform.batch` gives several views of a clip.

        ``views`` is the number of views of each clip, in order. Probabilities are averaged, as published; the answer is
        their logarithm, so that softmax and argmax mean what they mean for logits. A model without classes gives the
        mean embedding.
        """
        output = super().__call__(*args, **inputs)
        if views is None:
            return output
        answers = output if not self.num_classes else output.float().softmax(-1)
        means = torch.stack([part.mean(0) for part in answers.split([int(count) for count in views])])
        return means if not self.num_classes else means.log()

    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, D), where no frame sees another one: windows of a video that overlap encode what
        they share once. Models with `frame_independent` have this, and the rest of their forward as `forward_frames`."""
        raise InputError(f"{type(self).__name__} does not encode frames one by one.")

    def forward_frames(self, frames: Tensor, audio: Tensor | None = None) -> Tensor:
        """What `encode_frames` gave, (B, T, D) -> logits; ``forward(video) == forward_frames(encode_frames(video))``."""
        raise InputError(f"{type(self).__name__} does not encode frames one by one.")

    def example_inputs(self, batch: int = 1) -> dict[str, Tensor]:
        """Random tensors of the right shapes, keyed by forward's argument names."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.video_spec is not None:
            side = self.video_spec.img_size
            channels = 1 if self.video_spec.channel_order == "gray" else 3
            shapes["video"] = (batch, self.video_spec.num_frames, channels, side, side)
            shapes["image"] = (batch, channels, side, side)
        if self.audio_spec is not None:
            shapes["audio"] = (batch, *self.audio_spec.shape)
        reference = next((p for p in self.parameters() if p.is_floating_point()), torch.empty(0))
        options: Any = {"device": reference.device, "dtype": reference.dtype}
        return {name: torch.rand(shapes[name], **options) for name in self.inputs}

    # -- head ------------------------------------------------------------------------------------------------------

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, classes: int | Sequence[str]) -> None:
        """A new head for so many classes, or for these labels; on the model's device, in its dtype."""
        if not self.has_classifier:
            raise InputError(f"{type(self).__name__} has no classifier, so there is nothing to put in its place.")
        classes = plain_count(classes)
        labels = self.labels_for(classes) if isinstance(classes, int) else tuple(classes)
        check_labels(labels)
        reference = next(self.parameters())
        head = self.build_classifier(len(labels)).to(device=reference.device, dtype=reference.dtype)
        head.train(self.training)
        self.classifier = head
        self.num_classes, self.labels = len(labels), labels

    def build_classifier(self, num_classes: int) -> nn.Module:
        """A fresh, initialised head; `num_classes` 0 gives the features themselves."""
        return nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    # -- training --------------------------------------------------------------------------------------------------

    def init_weights(self) -> None:
        """The published random initialisation. Parts that torch initialises as published need nothing here."""

    def init_unless_loading(self) -> None:
        if not _weights_follow.get():
            self.init_weights()

    def freeze(self, *patterns: str) -> None:
        """No gradient for the parameters whose names match a shell pattern, for good: a module in which everything is
        frozen stays in eval mode after `.train()` too, so its batch statistics and dropout rest as well.

        Without patterns: what the published training freezes, or all but the head where it freezes nothing.
        """
        for pattern in patterns:
            if not fnmatch.filter((name for name, _ in self.named_parameters()), pattern):
                raise InputError(f"{type(self).__name__} has no parameter '{pattern}' to freeze.")
        chosen = patterns or self.frozen_parameters
        for name, parameter in self.named_parameters():
            if any(fnmatch.fnmatchcase(name, p) for p in chosen) or (
                not chosen and not name.startswith(self.head_prefixes)
            ):
                parameter.requires_grad_(False)
        self._frozen_modules = tuple(
            name
            for name, module in self.named_modules()
            if name and any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
        )
        self.train(self.training)

    def train(self, mode: bool = True) -> DferModel:
        super().train(mode)
        for name in self._frozen_modules:
            self.get_submodule(name).eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping their activations."""
        self.grad_checkpointing = enable

    def run_block(self, block: Callable, *args: Any) -> Any:
        """Call a block, checkpointed where that was asked for and a gradient is wanted."""
        if self.grad_checkpointing and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            again = functools.partial(_statistics_at_rest, block)
            return checkpoint(block, *args, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), again()))
        return block(*args)

    def training_loss(
        self, inputs: Mapping[str, Tensor | None], targets: Tensor, criterion: Callable, *, epoch: int = 0
    ) -> tuple[Tensor, Tensor]:
        """(loss, logits) of one batch; a system whose published loss has more terms than this overrides it."""
        logits = self(**inputs)
        return criterion(logits, targets), logits

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers from the input to the head, as timm's `param_groups_layer_decay` reads them."""
        return {"stem": r"^$", "blocks": [(r"^(?!classifier\.).*", None)]}

    def no_weight_decay(self) -> set[str]:
        """Names without weight decay, beyond the one-dimensional ones that timm leaves out by itself."""
        return set()

    def config(self) -> dict[str, Any]:
        """The constructor arguments that build this model as it is now."""
        classes = {"num_classes": self.num_classes} if self.has_classifier else {}
        return {**self.__dict__["_model_args"], **classes}

    # -- weights ---------------------------------------------------------------------------------------------------

    @classmethod
    def entries_of_backbone(cls, part: str, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What a converted file takes from a backbone, under this model's names, where the authors' file leaves it out.

        Args:
            part: The key of the record's `backbones`.
            state: The backbone's state dict.

        Returns:
            Entries of this model's state dict; the backbone's own, if the names are the same.
        """
        return state

    def load_backbones(self, states: Mapping[str, Mapping[str, Tensor]]) -> LoadReport:
        """Fill the towers from backbone state dicts, keyed like the `parts` of the record; the rest stays as it is."""
        raise InputError(f"{type(self).__name__} is not composed of backbones.")


class ImageModel(DferModel):
    """Base of models that see one image: ``forward(image)``. In a video each frame is encoded once, however many windows
    it belongs to, and answers by itself."""

    inputs = ("image",)
    frame_independent = True

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(image))

    def encode_frames(self, video: Tensor) -> Tensor:
        """(B, 1, C, H, W) -> (B, 1, ...): the features of single images."""
        return self.forward_features(video.flatten(0, 1)).unflatten(0, video.shape[:2])

    def forward_frames(self, frames: Tensor, audio: Tensor | None = None) -> Tensor:
        return self.forward_head(frames[:, 0])


@contextlib.contextmanager
def _statistics_at_rest(block: Any) -> Iterator[None]:
    """Batch norms that have counted this batch in the forward pass must not count it again when it is recomputed."""
    modules = block.modules() if isinstance(block, nn.Module) else ()
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the old statistics count fully, this batch not at all
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, batches


# whether models built here are filled by a strict load at once; every thread and task has its own value
_weights_follow = contextvars.ContextVar("weights_follow", default=False)


class _Uninitialised(TorchFunctionMode):
    """No random numbers: weights follow, and drawing 300 million normals for nothing takes seconds."""

    _SKIPPED = frozenset({nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.constant_})
    # these may be called from within a loop that redraws what is too large, so they leave zeros, not what was there
    _ZEROED = frozenset({Tensor.normal_, Tensor.uniform_})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._ZEROED:
            return args[0].zero_()
        if func in self._SKIPPED:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def skip_init() -> Iterator[None]:
    """Models built inside hold arbitrary numbers; only for a strict load that follows at once."""
    token = _weights_follow.set(True)
    try:
        with _Uninitialised():
            yield
    finally:
        _weights_follow.reset(token)


def fill(
    model: DferModel,
    given: Mapping[str, Tensor],
    wanted: Iterable[str],
    *,
    what: str,
    initialized: Iterable[str] = (),
    ignored: Iterable[str] = (),
) -> LoadReport:
    """Load backbone tensors into a part of a model: all that are wanted, or an exception and nothing.

    Args:
        model: The model to fill.
        given: Tensors under the model's own names.
        wanted: The names that must be given, no more and no less.
        what: Start of the error message, as in "The part 'face' does not fit av_fusion".
        initialized: Names to report as initialized, beyond the model's entries that are not wanted.
        ignored: Names to report as ignored.

    Raises:
        WeightsError: If names, shapes or kinds differ.
    """
    own, wanted = model.state_dict(), set(wanted)
    check_fit({name: own[name] for name in wanted}, given, what)
    model.load_state_dict(dict(given), strict=False)
    rest = {*(own.keys() - wanted), *initialized}
    return LoadReport(tuple(sorted(wanted)), tuple(sorted(rest)), tuple(sorted(ignored)))


def check_parts(model: DferModel, states: Mapping[str, Any], *parts: str) -> None:
    """Raise an InputError unless these parts are given, and no others."""
    if states.keys() != set(parts):
        raise InputError(
            f"{type(model).__name__} is composed of the parts {', '.join(sorted(parts))}; "
            f"got {', '.join(sorted(states)) or 'none'}."
        )


def check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], what: str) -> None:
    """An exception that says which entries differ in name, shape or kind, or nothing. Before anything is loaded."""
    common = sorted(own.keys() & given.keys())
    problems = {
        "missing": sorted(own.keys() - given.keys()),
        "unexpected": sorted(given.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}"
            for name in common
            if given[name].shape != own[name].shape
        ],
        # any width of floating point is taken: a file in half precision fills a model in float32 exactly
        "of another kind": [
            f"{name} {given[name].dtype} for {own[name].dtype}"
            for name in common
            if given[name].dtype != own[name].dtype
            and not (given[name].is_floating_point() and own[name].is_floating_point())
        ],
    }
    found = [
        f"{len(names)} {kind} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise WeightsError(f"{what}: {'; '.join(found)}. Nothing was loaded.")


def plain_count(classes: int | Sequence[str]) -> int | Sequence[str]:
    """Labels as they are; a number of classes as an int, if it is one of numpy's."""
    if isinstance(classes, str | numbers.Number) and not _is_count(classes):
        raise InputError(f"{classes!r} is neither a number of classes, 0 or more, nor a list of labels.")
    return int(classes) if isinstance(classes, numbers.Integral) else classes


def _is_count(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= 0


def check_arguments(model_args: Mapping[str, Any]) -> None:
    """What the constructors of all models take and torch would refuse late, or in words about something else."""
    for name in ("num_classes", "img_size", "num_frames"):
        if isinstance(model_args.get(name), float):
            raise InputError(f"{name} is {model_args[name]}; expected a whole number.")
    rate = model_args.get("drop_path_rate", 0.0)
    if not 0 <= rate < 1:
        raise InputError(f"drop_path_rate is {rate}; expected a probability from 0 to below 1.")


def check_shape(name: str, tensor: Tensor, layout: str, shape: Sequence[int | None], *, floating: bool = True) -> None:
    """One sentence when a tensor is not what forward takes: ``check_shape("video", video, "(B, T, 3, H, W)", (None, 16, 3, 224, 224))``."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name} must be a tensor {layout}, got {type(tensor).__name__}.")
    fits = tensor.ndim == len(shape) and all(want is None or have == want for have, want in zip(tensor.shape, shape))
    if not fits:
        wanted = ", ".join(
            letter if want is None else str(want) for letter, want in zip(layout.strip("()").split(", "), shape)
        )
        raise InputError(f"{name} must be {layout} = ({wanted}), got {tuple(tensor.shape)}.")
    if floating and not tensor.is_floating_point():
        raise InputError(
            f"{name} must be floating point numbers, as create_transform(model) makes them; got {tensor.dtype}."
        )


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load every tensor of ``state`` into ``model``; a missing, unknown or misshapen one is an exception that names it."""
    check_fit(model.state_dict(), state, f"{what} does not fit {type(model).__name__}")
    model.load_state_dict(dict(state))
