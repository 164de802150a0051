"""Create models by name, and load weights into them.

Requested weights are loaded completely, or an exception is raised.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .checkpoints import backbone_state, convert_checkpoint, is_same
from .convert import convert_parts
from .errors import DferZooError, InputError, UnknownModel, UnknownTag, WeightsError, first_line, suggest
from .media.limits import limit, raised_by
from .models.base import DferModel, load_strictly, skip_init
from .registry import MODELS, check_name, get_weights, list_pretrained, model_class
from .version import __version__
from .weights import fetch, store
from .weights.cache import Cache
from .weights.fetch import MODEL_FILE
from .weights.record import CONVERTED, Weights, check_labels
from .weights.safetensors import read_header, read_record, read_safetensors


def create_model(
    name: str,
    pretrained: str | bool | None = None,
    *,
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
    checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    download: bool = True,
    verify: str = "always",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **model_args: Any,
) -> DferModel:
    """Create a model in eval mode. Requested weights are loaded completely, or an exception is raised.

    Args:
        name: An architecture ("mma_dfer"), one with a tag ("mma_dfer.dfew_fold1"), a repository
            ("hf-hub:owner/repo@revision") or a folder ("local-dir:path").
        pretrained: The tag of the weights. None or False: random weights.
        num_classes: Number of classes. The head is replaced if the weights have another number.
        labels: Class names in order. The head is replaced if the weights have other names.
        checkpoint_path: A safetensors file of the zoo to load instead of a tag.
        cache_dir: Where files from the Hub are cached. None: the default folder of huggingface_hub.
        local_files_only: Use only files on this machine.
        download: False is the same as ``local_files_only=True``.
        verify: "always" hashes the file on every load, "once" only after it has changed.
        device: Device of the model.
        dtype: Floating point type of the model.
        **model_args: Arguments of the architecture's constructor.

    Returns:
        The model. ``model.weights`` (timm: ``model.pretrained_cfg``) is the record of the loaded weights.

    Raises:
        UnknownModel: There is no such architecture.
        UnknownTag: The architecture has no such weights.
        WeightsUnavailable: The weights are not on this machine and cannot be downloaded. The message says how to get
            them.
        WeightsError: The file is damaged or does not fit.
        InputError: The arguments contradict each other.

    Example:
        >>> model = create_model("av_fusion", num_classes=7)
        >>> model.training
        False
    """
    check_place(device, dtype)
    for what, place in (("checkpoint_path", checkpoint_path), ("cache_dir", cache_dir)):
        if not isinstance(place, str | os.PathLike | None):
            raise InputError(f"{what} is {place!r}; expected a path.")
    folder = None if cache_dir is None else Path(cache_dir)
    cache = Cache(folder, local_files_only or not download, verify)
    arch, record, path = _resolve(name, pretrained, checkpoint_path, cache)
    _check_arguments(arch, model_args)
    if record is None:
        model = _fresh(arch, num_classes, labels, model_args)
    elif record.distribution == "composed":
        model = _fresh(arch, num_classes, labels, {**record.model_args, **model_args})
        states = {part: backbone_state(source, cache) for part, source in record.backbones.items()}
        model.load_report = model.load_backbones(convert_parts(arch, states))
        model.weights = record
    else:
        assert path is not None
        head = {name: model_args.pop(name, None) for name in model_class(arch).head_arguments}
        model = _loaded(record, path, model_args)
        _check_classes(arch, _count(num_classes, labels))
        _replace_head(model, num_classes, labels, head)
    return model.to(device=device, dtype=dtype).eval()


def load_weights(model: DferModel, path: str | Path) -> DferModel:
    """Load a safetensors file of the zoo into an existing model, strictly.

    Args:
        model: A model with the architecture and arguments that the file was saved with.
        path: The file.

    Returns:
        The same model.

    Raises:
        WeightsError: The file does not fit.

    Example:
        >>> import tempfile, dfer_zoo
        >>> model = create_model("av_fusion")
        >>> path = dfer_zoo.save_pretrained(model, tempfile.mkdtemp())
        >>> load_weights(create_model("av_fusion"), path).labels == model.labels
        True
    """
    path = Path(path)
    record = _header_record(path)
    if model_class(record.arch) is not type(model):
        raise WeightsError(f"{path} contains weights of {record.arch}; the model is a {type(model).__name__}.")
    _check_same_arguments(model, record, path)
    return _fill(model, record, path)


# -- names -------------------------------------------------------------------------------------------------------------


def _resolve(
    name: str, pretrained: Any, checkpoint_path: str | Path | None, cache: Cache
) -> tuple[str, Weights | None, Path | None]:
    """Return (architecture, record, file). Record and file are None for random weights."""
    if not isinstance(name, str):
        raise UnknownModel(f"name must be a string, not {type(name).__name__}.")
    pretrained = None if pretrained is False else pretrained  # timm's scripts pass False
    for prefix in ("hf-hub:", "local-dir:"):
        if name.startswith(prefix):
            if pretrained is not None or checkpoint_path is not None:
                raise InputError(f"'{name}' already names the weights; omit pretrained and checkpoint_path.")
            place = name.removeprefix(prefix)
            path = fetch.hub_repository(place, cache) if prefix == "hf-hub:" else _local_folder(place)
            record = _header_record(path)
            return record.arch, record, path
    if "/" in name or "\\" in name or name.startswith("."):
        raise UnknownModel(f"'{name}' looks like a path or a repository; write 'local-dir:{name}' or 'hf-hub:{name}'.")
    arch, dot, tag = name.partition(".")
    check_name(arch)
    pretrained = _tag(arch, tag if dot else None, pretrained)
    if checkpoint_path is not None:
        if pretrained is not None:
            raise InputError("Give either pretrained or checkpoint_path, not both.")
        return _checkpoint(arch, Path(checkpoint_path))
    if pretrained is None:
        return arch, None, None
    record = get_weights(arch, pretrained)
    if record.distribution == "composed":
        return arch, record, None
    path = fetch.fetch(record, cache, convert_checkpoint)
    if record.distribution in CONVERTED:
        record = dataclasses.replace(record, model_args=fetch.converted_args(record, read_header(path)))
    return arch, record, path


def _tag(arch: str, tag: str | None, pretrained: Any) -> str | None:
    if pretrained is not None and not isinstance(pretrained, str):
        tags = [t for _, t in list_pretrained(arch)]
        raise UnknownTag(
            f"pretrained={pretrained!r} does not name weights of {arch}. Available: {', '.join(tags) or 'none'}."
        )
    if None not in (tag, pretrained) and tag != pretrained:
        raise InputError(f"'{arch}.{tag}' and pretrained='{pretrained}' name different weights.")
    return pretrained if tag is None else tag


def _local_folder(folder: str) -> Path:
    path = Path(os.path.expanduser(folder)) / MODEL_FILE
    if not os.path.isfile(path):  # false for a name that is too long, where Path.is_file raises
        raise WeightsError(f"There is no {MODEL_FILE} in {folder}; `save_pretrained(model, folder)` writes one.")
    return path


def _checkpoint(arch: str, path: Path) -> tuple[str, Weights, Path]:
    record = _header_record(path)
    if record.arch != arch:
        raise WeightsError(f"{path} contains weights of {record.arch}, not of {arch}.")
    return arch, record, path


def _header_record(path: Path) -> Weights:
    record = read_record(path)
    if record.arch not in MODELS:
        raise WeightsError(f"{path} contains weights of '{record.arch}', which dfer_zoo {__version__} does not know.")
    return record


# -- building ----------------------------------------------------------------------------------------------------------


def check_place(device: Any, dtype: Any) -> None:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise InputError(f"dtype is {dtype!r}; expected torch.float32 or another floating point type.")
    try:
        torch.empty(0, device=device, dtype=dtype)
    # NotImplementedError is a RuntimeError; which of them comes depends on what this torch was built with
    except (RuntimeError, AssertionError, TypeError) as error:
        what = f"device '{device}'" if dtype is None else f"device '{device}' with dtype {dtype!r}"
        raise InputError(f"{what} cannot be used here ({first_line(error)}).") from error


def _check_arguments(arch: str, model_args: Mapping[str, Any]) -> None:
    known = set(inspect.signature(model_class(arch)).parameters)
    for argument in model_args:
        if argument not in known:
            raise InputError(f"{arch} has no argument '{argument}'.{suggest(argument, known)}")


def _fresh(
    arch: str, num_classes: int | None, labels: Sequence[str] | None, model_args: Mapping[str, Any]
) -> DferModel:
    kind = model_class(arch)
    count = _count(num_classes, labels)
    _check_classes(arch, count)
    parameters = inspect.signature(kind).parameters
    arguments = dict(model_args)
    if labels is not None and "labels" in parameters:
        arguments["labels"] = tuple(labels)
    elif count is not None and "num_classes" in parameters:
        arguments["num_classes"] = count
    model = kind(**arguments)
    if labels is not None and "labels" not in parameters:
        model.labels = tuple(labels)
    return model


def _check_classes(arch: str, count: int | None) -> None:
    if count is not None and not model_class(arch).has_classifier:
        raise InputError(f"{arch} has no classifier; leave out num_classes and labels.")


def _loaded(record: Weights, path: Path, model_args: Mapping[str, Any]) -> DferModel:
    kind = model_class(record.arch)
    if unknown := sorted(record.model_args.keys() - inspect.signature(kind).parameters.keys()):
        raise WeightsError(
            f"{path} asks for a {record.arch} with {', '.join(unknown)}, which dfer_zoo {__version__} does not know."
        )
    arguments = {**record.model_args, **model_args}
    _check_sizes(record.model_args, path)
    return _fill(_build(kind, arguments, path), record, path, resized=bool(model_args))


def _check_sizes(values: Any, path: Path, name: str = "") -> None:
    """Check the numbers of an untrusted header before a model is built from them."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            _check_sizes(value, path, str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            _check_sizes(value, path, name)
    elif isinstance(values, int | float) and not -limit("argument") <= values <= limit("argument"):
        raise WeightsError(
            f"{path} asks for {name}={values!r}; at most {limit('argument'):,} is accepted. {raised_by('argument')}"
        )


class _Bounded(TorchFunctionMode):
    """Raise an error before a model allocates more elements than its file has bytes."""

    MAKERS = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})
    SPARE = 1 << 26  # elements of position tables and other temporary tensors

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.left = path.stat().st_size + self.SPARE  # an element takes a byte or more

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.MAKERS:
            sizes = args[0] if args and isinstance(args[0], list | tuple | torch.Size) else args
            self.left -= math.prod(size for size in sizes if isinstance(size, int))
            if self.left < 0:
                raise WeightsError(
                    f"{self.path} asks for a model with more parameters than the file has bytes "
                    f"({self.path.stat().st_size:,}); nothing was loaded."
                )
        return func(*args, **(kwargs or {}))


def _build(kind: type[DferModel], arguments: Mapping[str, Any], path: Path) -> DferModel:
    """Build the model that a file's header describes. Every failure is a `WeightsError`."""
    depth = next((arguments[name] for name in ("depth", "num_layers") if isinstance(arguments.get(name), int)), 0)
    if depth > limit("depth"):
        raise WeightsError(
            f"{path} asks for a depth of {depth}; at most {limit('depth')} is accepted. {raised_by('depth')}"
        )
    try:
        with _Bounded(path), skip_init():
            return kind(**arguments)
    except DferZooError:
        raise
    except Exception as error:
        raise WeightsError(
            f"{path} asks for a {kind.__name__} that cannot be built ({type(error).__name__}: {first_line(error)})."
        ) from error


def _fill(model: DferModel, record: Weights, path: Path, *, resized: bool = True) -> DferModel:
    """Load the tensors of a file, and set the labels, the preprocessing and the record."""
    state, _ = read_safetensors(path)
    load_strictly(model, state, f"{record.name} ({path})")
    store.check_unchanged(path)
    if len(record.labels) != model.num_classes:
        raise WeightsError(f"{path} names {len(record.labels)} labels for {model.num_classes} classes.")
    model.labels, model.weights = record.labels, record
    if record.video is not None:
        model.video_spec = _resized(record.video, model.video_spec, ("num_frames", "img_size") if resized else ())
    if record.audio is not None:
        model.audio_spec = _resized(record.audio, model.audio_spec, ("shape", "seconds") if resized else ())
    return model


def _resized(published: Any, own: Any, fields: Sequence[str]) -> Any:
    """Return the published preprocessing, with these fields from the model's own."""
    return published if own is None else dataclasses.replace(published, **{name: getattr(own, name) for name in fields})


def _replace_head(
    model: DferModel, num_classes: int | None, labels: Sequence[str] | None, head: Mapping[str, Any]
) -> None:
    """Replace the head if other classes, another order, or other class texts are requested."""
    count = _count(num_classes, labels)
    head = dict([(name, value) for name, value in head.items() if value is not None][:1])
    differs = any(not is_same(value, getattr(model, name)) for name, value in head.items())
    if labels is not None and (differs or tuple(labels) != model.labels):
        model.reset_classifier(tuple(labels), **head)
    elif count is not None and count != model.num_classes:
        model.reset_classifier(count, **head)
    elif differs:
        model.reset_classifier(model.labels, **head)


def _check_same_arguments(model: DferModel, record: Weights, path: str | Path) -> None:
    """Check arguments that no tensor's shape depends on: the number of heads, the class texts."""
    parameters = inspect.signature(type(model)).parameters
    built = {**{name: parameter.default for name, parameter in parameters.items()}, **model.config()}
    for name, value in record.model_args.items():
        if built.get(name) is not None and not is_same(built[name], value):
            raise WeightsError(
                f"{path} was made with {name}={value!r}, and this {type(model).__name__} with {built[name]!r}. "
                "create_model(..., checkpoint_path=...) builds the model that fits."
            )


def _count(num_classes: int | None, labels: Sequence[str] | None) -> int | None:
    if labels is None:
        return num_classes
    check_labels(labels)
    if num_classes is not None and num_classes != len(labels):
        raise InputError(f"num_classes is {num_classes} but there are {len(labels)} labels.")
    return len(labels)
