"""Export models to ONNX, and compare them with torch on inputs of their own transform (the extra "export").

>>> from dfer_zoo import create_model                                         # doctest: +SKIP
>>> export_onnx(create_model("mma_dfer", pretrained="dfew_fold1"), "mma.onnx")  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path
from ..data.puppets import Puppet
from ..errors import DferZooError, InputError, first_line
from ..media.clip import Clip
from ..models.base import DferModel
from ..models.clip_towers import FeatureCache
from ..transforms import create_transform

TOLERANCE = 1e-3  # relative difference from torch, in float32; measured ones are below 1e-5
LARGEST = 2_000_000_000  # bytes; one ONNX file is a protobuf message, which ends at 2 GiB
QUANTIZED = ("MatMul", "Gemm")  # int8 convolutions are slower than float ones in onnxruntime on most CPUs


@dataclass(frozen=True)
class Export:
    """An ONNX file and how it compares with torch.

    Attributes:
        path: The file.
        size: Bytes.
        inputs: Shapes of the inputs by name; the first axis may have any length.
        difference: Relative L2 distance of the outputs from torch's, the larger one of a real clip and a random batch.
        same_label: The clip gets torch's label in every view; None for models without classes.
        torch_ms: Time of a forward pass on the clip in torch, median.
        onnx_ms: Time in onnxruntime.
        int8: Linear layers have 8-bit weights.
    """

    path: Path
    size: int
    inputs: dict[str, tuple[int, ...]]
    difference: float
    same_label: bool | None
    torch_ms: float
    onnx_ms: float
    int8: bool = False


def export_onnx(
    model: DferModel, path: str | Path, *, int8: bool = False, source: Any = None, rounds: int = 5
) -> Export:
    """Write a model as one ONNX file and compare it with torch in onnxruntime.

    The inputs are those that `create_transform(model).batch(...)` gives, under the same names; the first axis may have
    any length. Class texts of the CLIP systems are computed once and stored as numbers, so the text tower is not in
    the file. The metadata holds the labels in index order, the name of the weights and their licence.

    Args:
        model: The model. It is not changed.
        path: The file to write. It is replaced only if the new one agrees with torch.
        int8: Store the weights of linear layers as 8-bit integers (dynamic quantization). Convolutions stay float32.
        source: The clip for the comparison, as `read_clip` takes it; a drawn face with a voice by default.
        rounds: Forward passes that are timed.

    Returns:
        Differences, size and times.

    Raises:
        InputError: A package of the extra "export" is missing, the model cannot be exported, or the source does not fit.
        DferZooError: The file does not compute what the model computes. Nothing is written then.

    Example:
        >>> from dfer_zoo import create_model
        >>> model = create_model("mini_xception", pretrained="fer2013")
        >>> export_onnx(model, "baseline.onnx").difference < 1e-5  # doctest: +SKIP
        True
    """
    _check_packages()
    if int8 and not any(isinstance(module, torch.nn.Linear) for module in model.modules()):
        raise InputError(
            f"{type(model).__name__} has no linear layers, so int8 would change nothing. Export it without."
        )
    model = copy.deepcopy(model).eval().float().cpu()
    _check_size(model)
    inputs = comparison_inputs(model, source)
    try:
        with atomic_path(Path(path)) as temporary:
            _write(model, temporary)
            if int8:
                _quantize(temporary)
            _describe(temporary, model)
            return _compared(model, temporary, Path(path), inputs, int8, rounds)
    except OSError as error:
        raise DferZooError(f"{path}: this file cannot be written ({error.strerror or error}).") from error


def comparison_inputs(model: DferModel, source: Any = None) -> dict[str, Tensor]:
    """The model's inputs for a clip, made by its own transform; all views of the clip along the first axis.

    Args:
        model: The model.
        source: What `read_clip` takes; by default a drawn face with a voice, at the sample rate that the model needs.

    Returns:
        Tensors by the names of forward's arguments.
    """
    transform = create_transform(model, faces="none" if source is None else "auto")
    clip = _drawn_clip(model) if source is None else source
    batch = transform.batch([clip])
    if missing := [name for name in model.inputs if batch[name] is None]:
        raise InputError(f"{getattr(clip, 'source', clip)}: this clip has no {', '.join(missing)}; give one that has.")
    return {name: tensor for name, tensor in batch.items() if name in model.inputs and tensor is not None}


def _drawn_clip(model: DferModel) -> Clip:
    clip = Puppet("happiness").clip()
    rate = model.audio_spec.sample_rate if model.audio_spec is not None else None
    if rate is None or clip.waveform is None or rate == clip.sample_rate:
        return clip
    sound = np.asarray(clip.waveform)
    times = np.arange(int(sound.shape[1] * rate / clip.sample_rate)) * clip.sample_rate / rate  # type: ignore[operator]
    sound = np.stack([np.interp(times, np.arange(len(channel)), channel) for channel in sound]).astype(np.float32)
    frames = np.stack(clip.take(range(clip.num_frames)))
    return Clip.from_arrays(frames, sound, fps=clip.fps, sample_rate=rate, source=clip.source)


# -- writing -----------------------------------------------------------------------------------------------------------


def _write(model: DferModel, path: Path) -> None:
    example = model.example_inputs(batch=2)
    batch = torch.export.Dim("batch", min=1, max=1024)  # clips are independent of each other
    shapes = {name: {0: batch} for name in example}
    try:
        with torch.no_grad(), _text_as_numbers(model), _quiet():
            program = torch.export.export(model, args=(), kwargs=example, dynamic_shapes=shapes)
            torch.onnx.export(
                program,
                (),
                f=path,
                input_names=list(example),
                output_names=["logits" if model.num_classes else "output"],
                external_data=False,
                verbose=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
            )
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{type(model).__name__} cannot be exported with torch {torch.__version__}: {first_line(error)}"
        ) from error


@contextlib.contextmanager
def _text_as_numbers(model: DferModel) -> Iterator[None]:
    """Compute class texts once and keep them as constants; otherwise the trace would contain the text tower."""
    caches = {name: value for name, value in vars(model).items() if isinstance(value, FeatureCache)}
    for name, cache in caches.items():
        setattr(model, name, _Constant(cache))
    try:
        if caches:
            model(**model.example_inputs(batch=1))
        yield
    finally:
        for name, cache in caches.items():
            setattr(model, name, cache)


class _Constant:
    """Replaces a `FeatureCache`: computes on the first call only, and ignores later changes of the parameters."""

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self.value: Tensor | None = None

    def drop(self) -> None:
        self.cache.drop()

    def __call__(self, parameters: Any, compute: Callable[[], Tensor]) -> Tensor:
        if self.value is None:
            self.value = compute()
        return self.value


def _stable_sort() -> Any:
    """torch's stable sort for the exporter, which has none: TopK puts the lower index first among equal values."""
    from onnxscript import opset18

    op: Any = opset18  # its type hints do not take tensors of every kind

    def sort(self: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
        count = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]))
        return op.TopK(self, count, axis=dim, largest=int(descending), sorted=1)

    return sort


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's warnings are about its own rewriting; the comparison with torch is what counts."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx", "root")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


def _quantize(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = {"weight_type": QuantType.QInt8, "per_channel": True, "op_types_to_quantize": list(QUANTIZED)}
    try:
        with _quiet():
            quantize_dynamic(path, path, **options)
    except Exception as error:  # the shape inference of onnx has error classes of its own
        raise InputError(
            f"onnxruntime cannot quantize the graph of torch {torch.__version__}: {first_line(error)}. Export without --int8, or with "
            "torch 2.14 or newer."
        ) from error


def _describe(path: Path, model: DferModel) -> None:
    """Store labels, weights and licence in the file's metadata."""
    import onnx

    graph = onnx.load(path)
    facts = {"labels": "\n".join(model.labels), "architecture": type(model).__name__}
    if model.weights is not None:
        facts |= {"weights": model.weights.name, "license": model.weights.license}
    for key, value in facts.items():
        graph.metadata_props.add(key=key, value=value)
    onnx.save(graph, path)


# -- comparing ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _compared(
    model: DferModel, temporary: Path, path: Path, inputs: dict[str, Tensor], int8: bool, rounds: int
) -> Export:
    session = _session(temporary)
    torch.manual_seed(0)
    pairs = [(model(**given), _run(session, given)) for given in (inputs, model.example_inputs(batch=3))]
    difference = max(((ours - theirs).norm() / ours.norm()).item() for ours, theirs in pairs)
    if not int8 and not difference < TOLERANCE:
        raise DferZooError(
            f"{path}: the exported graph differs from torch by {difference:.1e} (relative), more than {TOLERANCE}. "
            "Nothing was written."
        )
    ours, theirs = pairs[0]
    torch_ms, onnx_ms = _median_times([lambda: model(**inputs), lambda: _run(session, inputs)], rounds)
    return Export(
        path=path,
        size=temporary.stat().st_size,
        inputs={name: tuple(tensor.shape) for name, tensor in inputs.items()},
        difference=difference,
        same_label=bool((ours.argmax(1) == theirs.argmax(1)).all()) if model.num_classes else None,
        torch_ms=torch_ms,
        onnx_ms=onnx_ms,
        int8=int8,
    )


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any, inputs: dict[str, Tensor]) -> Tensor:
    return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])


def _median_times(works: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Milliseconds. The works take turns, so that other programs on the machine slow down all of them."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(max(1, rounds)):
        for own, work in zip(times, works):
            start = time.perf_counter()
            work()
            own.append(1000 * (time.perf_counter() - start))
    return [float(np.median(own)) for own in times]


def _check_size(model: DferModel) -> None:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > LARGEST:
        raise InputError(
            f"{type(model).__name__} has {size / 1e9:.1f} GB of weights; one ONNX file holds 2 GB at most."
        )


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f'Exporting needs {error.name}: pip install "dfer-zoo[export]".') from error
    if not is_supported(torch.__version__):
        raise InputError(f"Exporting needs torch 2.9 or newer; this is torch {torch.__version__}.")


def is_supported(version: str, oldest: tuple[int, int] = (2, 9)) -> bool:
    """Whether the exporter of this version of torch works with the converters that the extra installs.

    >>> is_supported("2.6.0+cpu"), is_supported("2.10.0")
    (False, True)
    """
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= oldest
