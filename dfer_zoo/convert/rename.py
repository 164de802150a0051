"""The renaming engine of all converters: tables of patterns, and one error for entries that no pattern matches."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..errors import WeightsError

Table = Sequence[tuple[str, str]]  # (pattern of the authors' name, our name with \1, \2, ...)
OurName = Callable[[str], "str | None"]


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def our_name(name: str, table: Table) -> str | None:
    r"""Our name by the first pattern that matches. A pattern that ends in ``\.`` matches the beginning of a name only.

    >>> our_name("fc.weight", [(r"fc\.", "classifier.")])
    'classifier.weight'
    """
    for pattern, ours in table:
        if pattern.endswith(r"\."):
            if match := _compiled(pattern).match(name):
                return match.expand(ours) + name[match.end() :]
        elif match := _compiled(pattern).fullmatch(name):
            return match.expand(ours)
    return None


def match_names(names: Iterable[str], rule: Table | OurName, refusal: str) -> dict[str, str]:
    """{authors' name: ours}. Unknown names raise a WeightsError, whose text starts with ``refusal``."""
    find: OurName = rule if callable(rule) else functools.partial(our_name, table=rule)
    found = {name: find(name) for name in names}
    if unknown := [name for name, ours in found.items() if ours is None]:
        raise WeightsError(
            f"{refusal}: {len(unknown)} of its {len(found)} entries are unknown, "
            f"the first are {', '.join(unknown[:3])}."
        )
    return {name: ours for name, ours in found.items() if ours is not None}


def rename(
    arch: str, state: Mapping[str, Tensor], rule: Table | OurName, unused: Sequence[str] = ()
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(renamed state dict, names that were left out). ``unused``: shell patterns of entries that no output depends on."""
    left_out = tuple(name for name in state if any(fnmatch.fnmatchcase(name, pattern) for pattern in unused))
    names = match_names(state.keys() - set(left_out), rule, f"This is not a checkpoint of {arch}")
    return {names[name]: state[name] for name in state if name in names}, left_out


def count_blocks(names: Iterable[str], pattern: str) -> int:
    r"""How many numbered blocks there are: the highest number in the pattern's first group plus one.

    >>> count_blocks(["blocks.0.weight", "blocks.1.weight", "norm.weight"], r"blocks\.(\d+)\.")
    2
    """
    return 1 + max((int(match[1]) for name in names if (match := _compiled(pattern).match(name))), default=-1)


def not_default(model: type, arguments: Mapping[str, Any], always: Sequence[str] = ("num_classes",)) -> dict[str, Any]:
    """The arguments that differ from the defaults of the model's constructor, and those in ``always``."""
    defaults = inspect.signature(model).parameters
    return {
        name: value
        for name, value in arguments.items()
        if name in defaults and (name in always or value != defaults[name].default)
    }
