"""Convert the authors' checkpoints into files of the zoo.

This is the only module that opens pickles, and it runs no code from them: `torch.load(weights_only=True)`, with empty
stand-ins for the few harmless classes that training scripts store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from .convert import Conversion, convert_state_dict
from .convert.options import stored_options
from .errors import InputError, WeightsError, WeightsUnavailable, first_line, suggest
from .media.limits import limit, raised_by
from .models.base import DferModel, load_strictly, skip_init
from .registry import get_weights, manifest, model_class
from .weights import fetch, store
from .weights.cache import Cache
from .weights.hdf5 import is_hdf5, read_hdf5
from .weights.record import CONVERTED, VideoSpec, Weights, check_labels
from .weights.safetensors import read_safetensors, write_safetensors

# What training scripts store next to the weights: options, meters, numbers. All of it is dropped.
IGNORED_OBJECTS = frozenset(
    {
        "argparse.Namespace",
        "_codecs.encode",  # bytes in a pickle
        "numpy.ndarray",
        "numpy.dtype",
        *(
            f"numpy.{core}.multiarray.{function}"  # numpy 1 and numpy 2 names
            for core in ("core", "_core")
            for function in ("scalar", "_reconstruct")
        ),
        *(f"pathlib.{path}" for path in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    }
)
IGNORED_MAPPINGS = frozenset({"yacs.config.CfgNode", "fvcore.common.config.CfgNode", "easydict.EasyDict"})

WRAPPER_KEYS = ("state_dict", "model_state_dict", "model", "module")
OPTION_KEYS = ("args", "config", "opt", "options")  # where training scripts store their options
PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
MAX_WRAPPERS = 8  # a mapping may contain itself


def convert_checkpoint(arch: str, tag: str, file: str | Path, cache: Cache | None = None) -> Path:
    """Convert the authors' checkpoint of ``arch.tag``, check it strictly, and add it to the weights folder.

    Args:
        arch: The architecture.
        tag: Which of its weights.
        file: The checkpoint as its authors publish it.
        cache: How to fetch the backbones that the authors keep in other files.

    Returns:
        The converted file.

    Raises:
        WeightsError: It is another file than the record's, or its content does not fit.

    >>> convert_checkpoint("mma_dfer", "dfew_fold1", "fold1_224.pth")  # doctest: +SKIP
    PosixPath('/home/me/.cache/dfer_zoo/mma_dfer.dfew_fold1.safetensors')
    """
    record = get_weights(arch, tag)
    if record.distribution not in CONVERTED:
        raise InputError(
            f"{record.name} needs no conversion (distribution '{record.distribution}'): "
            f'create_model("{arch}", pretrained="{tag}") gets it.'
        )
    path = Path(file)
    if not path.is_file():
        raise WeightsError(f"There is no file {path}.")
    origin = store.digest_of(path, "always", "")
    state = read_checkpoint(path)
    if record.origin_sha256 not in (None, origin):
        raise WeightsError(
            f"{path} is not the file that {record.name} is made from: its sha256 is {origin}, and "
            f"{record.origin_sha256} was expected. Download it again{_from(record)}."
        )
    conversion = _with_backbones(arch, record.backbones, convert_state_dict(arch, state), str(path), cache)
    written = checked_record(record, conversion, path)
    places = tuple(dataclasses.replace(place, sha256=origin, size=path.stat().st_size) for place in record.origin)
    written = dataclasses.replace(written, origin=places)

    def write(place: Path) -> None:
        write_safetensors(place, conversion.state, written.to_dict())
        store.check_unchanged(path)  # the tensors are views of the file until now

    try:
        return store.add(record, write)
    except OSError as error:
        raise WeightsError(
            f"{record.name} cannot be written to {store.weights_folder()} ({error.strerror or error}). "
            "Set DFER_ZOO_WEIGHTS to a writable folder with enough space."
        ) from error


def backbone_state(source: str, cache: Cache | None = None) -> Mapping[str, Tensor]:
    """Return the state dict of ``arch.tag`` or ``open_clip:NAME/TAG``, fetched and converted if needed."""
    found = source if source.startswith("open_clip:") else get_weights(source)
    return fetch.backbone_state(found, cache, convert_checkpoint)


def _with_backbones(
    arch: str, backbones: Mapping[str, str], conversion: Conversion, what: str, cache: Cache | None = None
) -> Conversion:
    """Add the tensors that the authors' file leaves out, from the backbones of the record."""
    state = dict(conversion.state)
    for part, source in backbones.items():
        try:
            found = backbone_state(source, cache)
        except WeightsUnavailable as error:
            raise WeightsUnavailable(f"{what} leaves out the part '{part}', {source}. {error}") from error
        state = {**model_class(arch).entries_of_backbone(part, found), **state}
    return dataclasses.replace(conversion, state=state)


def convert_own(
    arch: str,
    file: str | Path,
    folder: str | Path,
    *,
    tag: str = "own",
    labels: Sequence[str] | None = None,
    transform: Mapping[str, Any] | None = None,
    **model_args: Any,
) -> Path:
    """Convert a checkpoint that you trained with the authors' code.

    The arguments of the model come from the tensor shapes, then from the options stored in the file, then from
    ``model_args``, then from the published model.

    Args:
        arch: The architecture, such as "dk_clip".
        file: The checkpoint.
        folder: Where to write ``model.safetensors``; ``create_model("local-dir:folder")`` reads it.
        tag: The name of the weights.
        labels: Class names in order, if they are not the published ones.
        transform: Fields of the `VideoSpec`, such as ``{"rate": 1}``, for what the file does not store.
        **model_args: Arguments of the model, for what the file does not store.

    Returns:
        The path of the written file.

    Raises:
        WeightsError: The file does not fit, or an argument contradicts what it stores.

    >>> convert_own("dk_clip", "best.pth", "my_dk_clip", num_frames=8)  # doctest: +SKIP
    PosixPath('my_dk_clip/model.safetensors')
    """
    published = (r for r in manifest().values() if r.arch == arch and r.distribution in CONVERTED)
    backbones = next((record.backbones for record in published), {})
    conversion = _with_backbones(arch, backbones, convert_state_dict(arch, read_checkpoint(file)), str(file))
    stored = stored_options(arch, read_options(file), str(file))
    _check_agreement(file, stored.model_args, {**model_args, **conversion.model_args})
    arguments = {**stored.model_args, **model_args, **conversion.model_args}
    known = inspect.signature(model_class(arch)).parameters
    if unknown := arguments.keys() - known.keys():
        raise InputError(f"{arch} has no argument {', '.join(sorted(unknown))}.{suggest(unknown.pop(), known)}")
    if labels is not None:
        check_labels(labels)
        _check_count(file, arguments.get("num_classes", len(labels)), labels)
        if "labels" in known:
            arguments["labels"] = tuple(labels)
        elif "num_classes" in known:
            arguments["num_classes"] = len(labels)
    elif "prompts" in conversion.model_args and "labels" not in conversion.model_args:
        texts = conversion.model_args["prompts"]
        raise InputError(
            f"{file} stores no labels for its {len(texts)} class texts ({', '.join(map(repr, texts))}). Give them in this "
            "order with labels=[...], or --labels A,B,... on the command line."
        )
    model = build(arch, arguments)
    load_strictly(model, conversion.state, f"{file}, converted to {arch},")
    if labels is not None:
        _check_count(file, model.num_classes, labels)
        model.labels = tuple(labels)
    if stored.num_classes is not None:
        _check_agreement(file, {"num_classes": stored.num_classes}, {"num_classes": model.num_classes})
    _check_agreement(file, stored.video, transform or {})
    model.video_spec = _changed_spec(model.video_spec, {**stored.video, **(transform or {})})
    from .saving import save_pretrained  # imports the Hub's client, which loading weights does not need

    return save_pretrained(model, folder, tag=tag)


def _check_agreement(file: str | Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise an error if an option is stored with another value than the given one."""
    for name in stored.keys() & given.keys():
        if not is_same(stored[name], given[name]):
            raise WeightsError(
                f"{file} stores {name}={stored[name]!r} among the options of its training, which contradicts "
                f"{name}={given[name]!r}. Leave the argument out, or use the checkpoint that belongs to it."
            )


def _changed_spec(spec: VideoSpec | None, changes: Mapping[str, Any]) -> VideoSpec | None:
    if spec is None or not changes:
        return spec
    known = {f.name for f in dataclasses.fields(spec)}
    for name in changes:
        if name not in known:
            raise InputError(f"The transform has no option '{name}'.{suggest(name, known)}")
    return dataclasses.replace(spec, **changes)


def _check_count(file: str | Path, num_classes: int, labels: Sequence[str]) -> None:
    if len(labels) != num_classes:
        raise WeightsError(f"{file} has {num_classes} classes, but {len(labels)} labels were given.")


def checked_record(record: Weights, conversion: Conversion, path: Path) -> Weights:
    """Return the record with the constructor arguments of this file, after a model built from them has loaded it."""
    for argument, value in conversion.model_args.items():
        known = record.model_args.get(argument, value)
        if not is_same(known, value):
            raise WeightsError(
                f"{path} does not belong to {record.name}: it has {argument}={value!r}, and {known!r} was expected."
            )
    model_args = {**record.model_args, **conversion.model_args}
    model = build(record.arch, model_args)
    load_strictly(model, conversion.state, f"{path}, converted to {record.arch},")
    if len(record.labels) != model.num_classes:
        raise WeightsError(
            f"{path} does not belong to {record.name}: it has {model.num_classes} classes, "
            f"and {record.name} has {len(record.labels)} ({', '.join(record.labels)})."
        )
    params = sum(parameter.numel() for parameter in model.parameters())
    if params != record.params:
        raise WeightsError(
            f"{path} does not belong to {record.name}: it has {params:,} parameters, {record.params:,} were expected."
        )
    return dataclasses.replace(record, model_args=model_args)


def build(arch: str, model_args: Mapping[str, Any]) -> DferModel:
    with skip_init():
        return model_class(arch)(**model_args)


def is_same(one: Any, other: Any) -> bool:
    """Compare two values of an argument. JSON turns tuples into lists.

    >>> is_same((2, 5), [2, 5])
    True
    """
    one, other = (list(value) if isinstance(value, tuple) else value for value in (one, other))
    return bool(one == other)


def _from(record: Weights) -> str:
    return f" from {record.origin_page}" if record.origin_page else ""


# -- reading -----------------------------------------------------------------------------------------------------------


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint file, on the CPU, without wrappers and prefixes. Runs no code from the file."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no file {path}.")
    _check_kind(path)
    if path.suffix == ".safetensors":
        state, header = read_safetensors(path)
        if header is not None:
            raise WeightsError(
                f"{path} is already a file of dfer_zoo; load it with create_model(..., checkpoint_path=...)."
            )
        return without_prefix(state)
    if is_hdf5(path):  # Keras; a file with weights only has no such group
        arrays = read_hdf5(path, "model_weights") or read_hdf5(path)
        return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return without_prefix(find_state(load_pickle(path), path))


def read_options(path: str | Path) -> dict[str, Any]:
    """Read the training options that a checkpoint stores, as plain values by name. Runs no code from the file.

    Args:
        path: A checkpoint that `read_checkpoint` reads.

    Returns:
        The entries under "args", "config", "opt" or "options"; an empty dict if there are none.

    >>> read_options("checkpoint-99.pth")["sampling_rate"]  # doctest: +SKIP
    1
    """
    path = Path(path)
    if path.suffix == ".safetensors" or is_hdf5(path):
        return {}
    content = load_pickle(path)
    found: dict[str, Any] = {}
    for name in OPTION_KEYS if isinstance(content, Mapping) else ():
        stored = content.get(name)
        values = stored if isinstance(stored, Mapping) else getattr(stored, "kept", {})
        found |= {str(key): value for key, value in values.items()}
    return found


def _check_kind(path: Path) -> None:
    """Recognize the usual results of a broken download."""
    with path.open("rb") as stream:
        start = stream.read(512).lstrip().lower()
    if not start:
        raise WeightsError(f"{path} is empty. Download it again.")
    if start.startswith((b"<!doctype", b"<html")):
        raise WeightsError(f"{path} is a web page, not a checkpoint. Download it in a browser, past the warning page.")
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the file itself. Run 'git lfs pull' in its repository.")


# exceptions of torch's reader on damaged files
_DAMAGE = (
    *(RuntimeError, EOFError, ValueError, LookupError, OSError, AssertionError, TypeError, AttributeError),
    *(MemoryError, ArithmeticError, struct.error, zipfile.BadZipFile),
)


def load_pickle(path: Path) -> Any:
    """`torch.load(weights_only=True)`, with stand-ins for harmless classes that are not needed."""
    try:
        with path.open("rb") as stream:
            names = pickled_names(stream)
        with torch.serialization.safe_globals(stand_ins(names)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files: TypedStorage, pickle protocol
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except pickle.UnpicklingError as error:
        foreign = sorted(name for name in names if not (_is_ignored(name) or name in _known_to_torch()))
        asks = f": it asks for {', '.join(foreign[:10])}" if foreign else " (its opcodes are not those of weights)"
        raise WeightsError(
            f"{path} was refused{asks}. Weights need only tensors and plain values. No code from the file was run."
        ) from error
    except WeightsError:
        raise
    except Exception as error:  # a damaged pickle can make torch's reader fail in any way
        raise WeightsError(
            f"{path} is not a complete torch checkpoint ({first_line(error) or 'cut off'}). Download it again."
        ) from error


@functools.cache
def _known_to_torch() -> frozenset[str]:
    """Return the names that `torch.load(weights_only=True)` allows."""
    from torch import _weights_only_unpickler

    return frozenset(_weights_only_unpickler._get_allowed_globals())


def pickled_names(stream: BufferedReader) -> set[str]:
    """Return the classes and functions that a checkpoint refers to. The pickle is scanned, not run."""
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            pickles = [info for info in archive.infolist() if info.filename.endswith("/data.pkl")]
            if sum(info.file_size for info in pickles) > limit("pickle_bytes"):
                raise WeightsError(
                    f"{stream.name} has more than {limit('pickle_bytes'):,} bytes of pickles in addition to its tensors. "
                    f"Weights have far less. No code from the file was run. {raised_by('pickle_bytes')}"
                )
            return set().union(*(_names(archive.open(info)) for info in pickles))
    stream.seek(0)
    found: set[str] = set()
    for _ in range(4):  # before torch 1.6: a magic number, a protocol number, facts about the machine, the object
        if stream.peek(1):
            found |= _names(stream)
    return found


def _names(stream: IO[bytes]) -> set[str]:
    found, most = set(), limit("pickle_operations")
    for number, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if number > most:
            raise WeightsError(
                f"A pickle has more than {most:,} operations. No code from it was run. {raised_by('pickle_operations')}"
            )
        if operation.name in ("GLOBAL", "INST"):
            found.add(argument.replace(" ", "."))
        elif operation.name == "STACK_GLOBAL":
            found.add("a class whose name is computed while the file is read")
    return found


def _is_ignored(name: str) -> bool:
    return name in IGNORED_OBJECTS or name in IGNORED_MAPPINGS or name.startswith("__main__.")


class _Nothing:
    """Stand-in for an object that is not needed: it accepts any arguments and any state, and keeps none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Options(_Nothing):
    """Stand-in for a namespace of options. It keeps their values, which torch has checked to be plain."""

    def __setstate__(self, state: Any) -> None:
        self.kept = dict(state) if isinstance(state, Mapping) else {}


class _PlainMapping:
    """Stand-in for a subclass of dict: torch only fills real dicts."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict()


def stand_ins(names: set[str]) -> list[Any]:
    """Make a stand-in for every harmless class, and for those defined in the training script itself.

    torch finds a stand-in by its module and name."""
    made = []
    for name in sorted(filter(_is_ignored, names)):
        module, _, cls = name.rpartition(".")
        base = _PlainMapping if name in IGNORED_MAPPINGS else _Options if name == "argparse.Namespace" else _Nothing
        made.append(type(cls, (base,), {"__module__": module, "__qualname__": cls}))
    return made


def find_state(content: Any, path: Path) -> dict[str, Tensor]:
    """Follow the wrapper keys to the mapping of tensors."""
    for _ in range(MAX_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        inner = next((content[key] for key in WRAPPER_KEYS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} contains a {type(content).__name__}, not a state dict.")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        raise WeightsError(
            f"{path} has no state dict under {', '.join(WRAPPER_KEYS)}: "
            f"{', '.join(others[:5]) or 'nothing'} {'is not a tensor' if len(others) < 2 else 'are not tensors'}."
        )
    return {str(key): value.detach() for key, value in content.items()}


def without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that DataParallel and torch.compile add to every entry."""
    names = {name: name for name in state}
    with contextlib.suppress(StopIteration):
        while state:
            prefix = next(p for p in PREFIXES if all(name.startswith(p) for name in names.values()))
            names = {name: short.removeprefix(prefix) for name, short in names.items()}
    return {names[name]: tensor for name, tensor in state.items()}
