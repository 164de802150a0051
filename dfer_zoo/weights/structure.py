"""Read JSON and TOML values strictly into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import suggest

T = TypeVar("T")


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """Return the evaluated type hints of a class; it would be slow to evaluate them for every record."""
    return typing.get_type_hints(cls)


@dataclass(frozen=True)
class Reader:
    """Settings of the reader.

    Args:
        error: The exception class to raise.
        defaults: Fields with a default may be absent. Otherwise every field must be present, except those whose
            metadata says `optional`.
        hint: A sentence at the end of errors about missing or unknown fields.
    """

    error: type[Exception]
    defaults: bool = False
    hint: str = ""

    def read(self, cls: type[T], data: Any, where: str, path: str = "") -> T:
        """Return an instance of ``cls``: no field missing, none unknown, each value of its declared type.

        Args:
            cls: A dataclass with resolvable type hints.
            data: The value as JSON or TOML gives it.
            where: What is being read, for error messages: a file, a record.
            path: The place of the value in it: "video.mean".

        Raises:
            Exception: ``error``, with the place of the fault.
        """
        place = f"{where}: {path}" if path else where
        if not isinstance(data, Mapping):
            raise self.error(
                f"{place}: expected an object with the fields of {cls.__name__}, found {type(data).__name__}."
            )
        hints = _hints(typing.cast(Any, cls))
        missing = sorted(self._required(cls) - data.keys())
        unknown = sorted(str(name) for name in data.keys() - hints.keys())
        if missing or unknown:
            faults = [f"{kind} fields {names}" for kind, names in (("missing", missing), ("unknown", unknown)) if names]
            similar = suggest(unknown[0], hints) if len(unknown) == 1 else ""
            raise self.error(f"{place}: {cls.__name__} has {' and '.join(faults)}.{similar}{self.hint}")
        prefix = f"{path}." if path else ""
        return cls(**{name: self.value(hints[name], value, where, prefix + name) for name, value in data.items()})

    def _required(self, cls: Any) -> set[str]:
        absent = dataclasses.MISSING
        fields = dataclasses.fields(cls)
        return {
            f.name
            for f in fields
            if not (self.defaults or f.metadata.get("optional")) or f.default is f.default_factory is absent
        }

    def value(self, hint: Any, value: Any, where: str, path: str) -> Any:
        """Return a value as the type hint declares it: lists as tuples, whole numbers as floats. Arguments as in `read`."""
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if hint is Any or (value is None and type(None) in options):
            return value
        kind = next(option for option in options if option is not type(None))
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if dataclasses.is_dataclass(kind):
            return self.read(typing.cast(type, kind), value, where, path)
        if origin is tuple and isinstance(value, list | tuple):
            kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
            if len(kinds) == len(value):
                return tuple(
                    self.value(k, item, where, f"{path}[{i}]") for i, (k, item) in enumerate(zip(kinds, value))
                )
        elif origin is not None and isinstance(value, Mapping):
            return {key: self.value(args[1], item, where, f"{path}[{key}]") for key, item in value.items()}
        elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif origin is None and isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
            return value
        expected = hint if args or len(options) > 1 else hint.__name__
        raise self.error(f"{where}: {path}: expected {expected}, found {value!r:.200}.")
