"""Helpers that the commands share: descriptions, tables and common options."""

from __future__ import annotations

import argparse
import ast
import math
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


# Python arguments in messages -> command line options
IN_OPTIONS = (
    (r"no_face='(\w+)'", r"--no-face \1"),
    (r"\bfaces='(\w+)'", r"--faces \1"),
    (r"\bpretrained=\.\.\.", "--pretrained TAG"),
    (r"\bgive window=, in seconds", "give --window SECONDS"),
    (r"\bgive fps\b", "give --fps"),
    (r"\b(window|stride|batch_size) is ", lambda found: f"--{found[1].replace('_', '-')} is "),
)


def in_options(message: str) -> str:
    """Replace Python arguments in an error message by command line options.

    >>> in_options("no_face='frame' takes whole frames, faces='none' does not search.")
    '--no-face frame takes whole frames, --faces none does not search.'
    """
    for pattern, option in IN_OPTIONS:
        message = re.sub(pattern, option, message)
    return message


def defined(rate: float) -> float | None:
    """Replace NaN, the rate of a class without clips, by None: JSON has no NaN."""
    return None if math.isnan(rate) else rate


def table(rows: Sequence[Sequence[str]]) -> str:
    """Format rows as aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for reading annotation lists."""
    parser.add_argument(
        "--root",
        metavar="DIR",
        help="the folder of the data: relative paths start there, absolute ones are searched there",
    )
    parser.add_argument("--replace", metavar="OLD=NEW", help="replace the start of every path of the list")
    parser.add_argument("--audio", help='where the sound of folders of frames is: "dfew", "mafw" or a template')
    parser.add_argument(
        "--missing-audio",
        choices=("keep", "none", "error"),
        help="a listed clip whose sound file is missing: keep (it cannot be read), none (read it without sound), "
        "error (stop); by default as the authors of the weights do",
    )
    parser.add_argument("--min-frames", type=int, metavar="N", help="leave out clips that are listed with fewer frames")
    parser.add_argument("--order", choices=("numeric", "string"), help="of the frames in a folder; lists: string")


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """Return the specified reader options by name."""
    given = {"root": options.root, "audio": options.audio, "without_audio": options.missing_audio}
    given |= {"min_frames": options.min_frames, "order": options.order, "replace": parse_replace(options.replace)}
    return {name: value for name, value in given.items() if value is not None}


def parse_replace(text: str | None) -> tuple[str, str] | None:
    """Parse OLD=NEW into a pair."""
    if text is None:
        return None
    old, separator, new = text.partition("=")
    if not separator or not old:
        raise InputError(f"--replace {text}: expected OLD=NEW, the start of the paths and its replacement.")
    return old, new


def parse_folds(text: str) -> list[int]:
    """Parse fold numbers such as "1-5", "1,3" or "2".

    >>> parse_folds("1-3,5")
    [1, 2, 3, 5]
    """
    folds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if (
            not re.fullmatch(r"[0-9]{1,3}", first)
            or not re.fullmatch(r"[0-9]{0,3}", last)
            or int(last or first) < int(first)
        ):
            raise InputError(f"--folds {text}: expected numbers such as 1-5 or 1,3, and at most 999.")
        folds += range(int(first), int(last or first) + 1)
    return folds


def parse_values(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Parse NAME=VALUE options. A value is a Python literal, such as 16 or (2, 5, 10), or a plain word."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            raise InputError(f"{option} {pair}: expected NAME=VALUE.")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two from nested brackets
            values[name] = text
    return values


def boxes_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="cache face boxes in this file, so that no frame is searched twice",
    )


def parse_faces(text: str, boxes: str | None = None) -> Any:
    """Parse a detector's name, optionally with a file for its boxes, or a box of four numbers."""
    parts = text.split(",")
    if boxes is not None:
        if text == "none" or len(parts) == 4:
            raise InputError(f"--boxes: --faces {text} searches no faces; omit one of the two options.")
        return f"{text}+boxes:{boxes}"
    if len(parts) != 4:
        return text
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise InputError(f"--faces {text}: expected a detector's name or LEFT,TOP,RIGHT,BOTTOM in pixels.") from error
