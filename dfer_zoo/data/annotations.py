"""Read the labeled clips of any data set: an annotation file, a folder with one folder per class, or puppets.

`read_rows` chooses the reader of `data.formats`; `read_row` reads the clip of a row.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, suggest
from ..transforms import Transform
from .formats import (
    RAVDESS_NAME,
    numbered_lines,
    read_audiovisual_list,
    read_class_folders,
    read_clip_list,
    read_csv,
    read_frame_list,
    read_ravdess,
    read_sound_list,
)
from .rows import Row as Row
from .rows import Rows
from .rows import read_row as read_row


def read_rows(
    source: str | Path,
    labels: Sequence[str] | None = None,
    *,
    subset: str | None = None,
    transform: Transform | None = None,
    **options: Any,
) -> Rows:
    """Read the labeled clips of an annotation file, of a folder with one folder per class, or of puppets.

    Args:
        source: An annotation file in one of the formats of `data.formats`, the folder of RAVDESS, a folder with one
            folder per class, or "puppets:clips=8,split=test".
        labels: The labels of the model, in its order. Class folders are matched by name, puppets are drawn for these
            labels, and class indices outside of them are an error.
        subset: Keep only the rows of this subset, if the file names subsets.
        transform: The transform of the model. What its record says about lists (`AudioSpec.without_audio`,
            `VideoSpec.min_frames`) is the default of the reader's options.
        **options: Options of the reader.

    Returns:
        The rows.

    Raises:
        InputError: The source cannot be read, or its reader does not have the option.

    >>> rows = read_rows("puppets:clips=8,split=test", labels=["happy", "sad"])
    >>> [row.label for row in rows]
    [0, 1, 0, 1, 0, 1, 0, 1]
    """
    text = str(source)
    if text == "puppets" or text.startswith("puppets:"):
        return _puppet_rows(text, labels, **options)
    path = Path(source)
    if path.is_dir() and not any(RAVDESS_NAME.fullmatch(video.stem) for video in path.glob("*/*.mp4")):
        _check_options(text, read_class_folders, options)
        return read_class_folders(path, labels)
    if not path.exists():
        raise InputError(f"There is no data set '{text}': expected a file, a folder, or 'puppets:...'.")
    reader = read_ravdess if path.is_dir() else _annotation_reader(path)
    _check_options(text, reader, options)
    known = _options_of(reader)
    if "labels" in known:
        options["labels"] = labels
    rows = reader(path, **{name: value for name, value in _rules(transform).items() if name in known} | options)
    if subset is not None:
        subsets = sorted({str(row.subset) for row in rows})
        rows = Rows((row for row in rows if row.subset == subset), rows.skipped)
        if not rows:
            raise InputError(f"{text} has no rows of the subset '{subset}'; its subsets are {', '.join(subsets)}.")
    if not rows:
        raise InputError(f"{text} has no clips{' that are long enough' if rows.skipped else ''}.")
    if labels is not None:
        _check_classes(text, rows, labels)
    return rows


def _rules(transform: Transform | None) -> dict[str, Any]:
    """Return what a record says about lists, as options of the readers."""
    rules: dict[str, Any] = {}
    if transform is not None and transform.video is not None:
        rules["min_frames"] = transform.video.min_frames
    if transform is not None and transform.audio is not None:
        rules["without_audio"] = transform.audio.without_audio
    return rules


def _check_classes(text: str, rows: Sequence[Row], labels: Sequence[str]) -> None:
    highest = max(rows, key=lambda row: row.label)
    if highest.label >= len(labels):
        raise InputError(
            f"{text}: the clip {highest.path} has the class index {highest.label} (from 0), but there are {len(labels)} "
            f"labels: {', '.join(labels)}."
        )


def _options_of(reader: Callable[..., Any]) -> list[str]:
    return [name for name, p in inspect.signature(reader).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _check_options(text: str, reader: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = _options_of(reader)
    for name in options:
        if name not in known:
            raise InputError(f"{text}: its reader, `{reader.__name__}`, has no option '{name}'.{suggest(name, known)}")


def _puppet_rows(text: str, labels: Sequence[str] | None, **options: Any) -> Rows:
    from .puppets import ACTION_UNITS, puppets

    kinds: dict[str, Callable[[str], Any]] = {"clips": int, "seed": int, "identities": int, "size": int, "split": str}
    kinds |= {"noise": float, "blur": float, "disagree": float, "intensity": _bounds}
    for pair in filter(None, text.removeprefix("puppets").removeprefix(":").split(",")):
        name, _, value = pair.partition("=")
        if name not in kinds:
            raise InputError(f"'{text}': puppets have no option '{name}'.{suggest(name, kinds)}")
        try:
            options[name] = kinds[name](value)
        except ValueError as error:
            raise InputError(f"'{text}': {name} is {value!r}; expected a number.") from error
    _check_options(text, puppets, options)
    data = puppets(tuple(labels or ACTION_UNITS), **options)
    return Rows(Row(str(puppet), label, subset=options.get("split", "train")) for puppet, label in data)


def _bounds(text: str) -> tuple[float, float]:
    """Parse "0.2-0.4", or one number for both bounds."""
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def _annotation_reader(path: Path) -> Callable[..., Rows]:
    """Choose the reader of an annotation file by its first line."""
    _, first = next(numbered_lines(path), ("", ""))
    if first.count(";") == 3:
        return read_audiovisual_list
    if re.fullmatch(r"\S+ \S+\.wav \d+", first, re.IGNORECASE):
        return read_sound_list
    if re.fullmatch(r".+\s\d+\s+\d+", first):
        return read_frame_list
    if re.fullmatch(r".+ \d+", first):
        return read_clip_list
    if "," in first:
        return read_csv
    raise InputError(
        f"{path}: the first line, {first[:80]!r}, has no known format. Known formats: 'folder count label', "
        "'folder label', 'folder wav label', 'faces;sound;label;subset', and CSV with columns path,label."
    )
