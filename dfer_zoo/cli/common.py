"""What all commands share: their description, tables, and the reading of `--faces`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError


@dataclass(frozen=True)
class Command:
    summary: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


# what messages say to Python -> what they say on the command line
IN_OPTIONS = (
    (r"no_face='(\w+)'", r"--no-face \1"),
    (r"\bfaces='(\w+)'", r"--faces \1"),
    (r"\bpretrained=\.\.\.", "--pretrained TAG"),
    (r"\bgive window=, in seconds", "give --window SECONDS"),
    (r"\bgive fps\b", "give --fps"),
    (r"\b(window|stride|batch_size) is ", lambda found: f"--{found[1].replace('_', '-')} is "),
)


def in_options(message: str) -> str:
    """An error message in the words of the command line.

    >>> in_options("no_face='frame' takes whole frames, faces='none' does not search.")
    '--no-face frame takes whole frames, --faces none does not search.'
    """
    for pattern, option in IN_OPTIONS:
        message = re.sub(pattern, option, message)
    return message


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def parse_faces(text: str) -> Any:
    """A detector's name, or a box in four numbers."""
    parts = text.split(",")
    if len(parts) != 4:
        return text
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise InputError(f"--faces {text}: expected a detector's name or LEFT,TOP,RIGHT,BOTTOM in pixels.") from error
