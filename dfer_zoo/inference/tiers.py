"""Write predictions as annotation tiers (ELAN, Praat) and subtitles (WebVTT, SRT).

The intervals of a tier do not overlap. Windows may overlap, so each window covers the part around its middle, up to
halfway to its neighbors. Neighboring intervals with the same label are joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from ..atomic import write_atomically
from ..errors import DferZooError, InputError

if TYPE_CHECKING:
    from .prediction import Prediction

Interval = tuple[float, float, str, float]  # start, stop, label, mean probability of the label


def intervals(prediction: Prediction) -> list[Interval]:
    """Return the labels over time as intervals without overlap.

    Args:
        prediction: A prediction whose windows have times.

    Returns:
        (start, stop, label, probability) in seconds, in order.
    """
    windows = [window for window in prediction.windows if window.stop is not None]
    if len(windows) < len(prediction.windows) or not windows:
        raise InputError(f"{prediction.source}: tiers need times, but the frame rate is unknown; give fps.")
    middles = [(w.start + (w.stop or 0.0)) / 2 for w in windows]
    borders = [(a + b) / 2 for a, b in itertools.pairwise(middles)]
    parts: list[Interval] = []
    for number, window in enumerate(windows):
        start = max(window.start, borders[number - 1]) if number else window.start
        stop = min(window.stop or 0.0, borders[number]) if number < len(borders) else (window.stop or 0.0)
        chance = max(window.probabilities)
        if stop > start:
            parts.append((start, stop, prediction.labels[window.probabilities.index(chance)], chance))
    return _joined(parts)


def _joined(parts: Sequence[Interval]) -> list[Interval]:
    joined: list[Interval] = []
    for start, stop, label, chance in parts:
        if joined and joined[-1][2] == label and abs(joined[-1][1] - start) < 1e-6:
            before = joined.pop()
            share = (before[1] - before[0]) / (stop - before[0])
            joined.append((before[0], stop, label, share * before[3] + (1 - share) * chance))
        else:
            joined.append((start, stop, label, chance))
    return joined


def write_tiers(
    predictions: Sequence[Prediction], kinds: Sequence[str], stem: str | Path, media: str = ""
) -> list[Path]:
    """Write one annotation file per format, with one tier per person.

    Args:
        predictions: The predictions for one file, one per person.
        kinds: Any of "eaf", "textgrid", "vtt", "srt".
        stem: The path without a suffix; each format adds its own.
        media: The media file that an ELAN file links to.

    Returns:
        The paths of the files.
    """
    check_tier_kinds(kinds)
    tiers = {_tier_name(number, len(predictions)): intervals(p) for number, p in enumerate(predictions)}
    paths = []
    for kind in kinds:
        suffix, render = FORMATS[kind]
        path = Path(f"{stem}{suffix}")
        try:
            write_atomically(path, render(tiers, media).encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise DferZooError(f"{path}: this file cannot be written ({error.strerror or error}).") from error
        paths.append(path)
    return paths


def check_tier_kinds(kinds: Sequence[str]) -> None:
    if unknown := sorted(set(kinds) - FORMATS.keys()):
        raise InputError(f"There is no tier format {', '.join(unknown)}; expected {', '.join(FORMATS)}.")


def _tier_name(number: int, count: int) -> str:
    return "expression" if count == 1 else f"expression of person {number + 1}"


# -- formats -----------------------------------------------------------------------------------------------------------


def _elan(tiers: dict[str, list[Interval]], media: str) -> str:
    times = sorted({round(1000 * t) for parts in tiers.values() for part in parts for t in part[:2]})
    slot = {time: f"ts{number}" for number, time in enumerate(times, 1)}
    counter = itertools.count(1)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<ANNOTATION_DOCUMENT AUTHOR="dfer_zoo" DATE="{datetime.now(timezone.utc).isoformat(timespec="seconds")}" '
        'FORMAT="3.0" VERSION="3.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">',
        '  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">',
    ]
    if media:
        kind = "audio/x-wav" if media.lower().endswith(".wav") else "video/mp4"
        url = Path(media).absolute().as_uri()
        lines.append(f"    <MEDIA_DESCRIPTOR MEDIA_URL={quoteattr(url)} MIME_TYPE={quoteattr(kind)}/>")
    lines += ["  </HEADER>", "  <TIME_ORDER>"]
    lines += [f'    <TIME_SLOT TIME_SLOT_ID="{slot[time]}" TIME_VALUE="{time}"/>' for time in times]
    lines.append("  </TIME_ORDER>")
    for name, parts in tiers.items():
        lines.append(f'  <TIER LINGUISTIC_TYPE_REF="expression" TIER_ID={quoteattr(name)}>')
        for start, stop, label, _ in parts:
            a, b = slot[round(1000 * start)], slot[round(1000 * stop)]
            lines += [
                "    <ANNOTATION>",
                f'      <ALIGNABLE_ANNOTATION ANNOTATION_ID="a{next(counter)}" TIME_SLOT_REF1="{a}" TIME_SLOT_REF2="{b}">',
                f"        <ANNOTATION_VALUE>{escape(label)}</ANNOTATION_VALUE>",
                "      </ALIGNABLE_ANNOTATION>",
                "    </ANNOTATION>",
            ]
        lines.append("  </TIER>")
    lines += [
        '  <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="expression" TIME_ALIGNABLE="true"/>',
        "</ANNOTATION_DOCUMENT>",
    ]
    return "\n".join(lines) + "\n"


def _textgrid(tiers: dict[str, list[Interval]], media: str) -> str:
    end = max(parts[-1][1] for parts in tiers.values())
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end:.6f}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (name, parts) in enumerate(tiers.items(), 1):
        filled = _without_gaps(parts, end)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{_praat(name)}"']
        lines += ["        xmin = 0", f"        xmax = {end:.6f}", f"        intervals: size = {len(filled)}"]
        for place, (start, stop, label) in enumerate(filled, 1):
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {start:.6f}",
                f"            xmax = {stop:.6f}",
            ]
            lines.append(f'            text = "{_praat(label)}"')
    return "\n".join(lines) + "\n"


def _without_gaps(parts: Sequence[Interval], end: float) -> list[tuple[float, float, str]]:
    """Fill gaps with empty intervals, because Praat tiers must cover the full duration."""
    filled: list[tuple[float, float, str]] = []
    at = 0.0
    for start, stop, label, _ in parts:
        if start > at + 1e-6:
            filled.append((at, start, ""))
        filled.append((max(at, start) if start > at + 1e-6 else at, stop, label))
        at = stop
    if end > at + 1e-6:
        filled.append((at, end, ""))
    return filled


def _praat(text: str) -> str:
    return text.replace('"', '""')


def _vtt(tiers: dict[str, list[Interval]], media: str) -> str:
    cues = [f"{_clock(a, '.')} --> {_clock(b, '.')}\n{escape(text)}" for a, b, text in _cues(tiers)]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


def _srt(tiers: dict[str, list[Interval]], media: str) -> str:
    cues = [f"{n}\n{_clock(a, ',')} --> {_clock(b, ',')}\n{text}" for n, (a, b, text) in enumerate(_cues(tiers), 1)]
    return "\n\n".join(cues) + "\n"


def _cues(tiers: dict[str, list[Interval]]) -> list[tuple[float, float, str]]:
    several = len(tiers) > 1
    cues = [
        (start, stop, f"{name.rpartition(' of ')[2]}: {label} {chance:.0%}" if several else f"{label} {chance:.0%}")
        for name, parts in tiers.items()
        for start, stop, label, chance in parts
    ]
    return sorted(cues)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(1000 * seconds)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


# format -> (suffix of the file, (tiers, media) -> text)
FORMATS: dict[str, tuple[str, Callable[[dict[str, list[Interval]], str], str]]] = {
    "eaf": (".eaf", _elan),
    "textgrid": (".TextGrid", _textgrid),
    "vtt": (".vtt", _vtt),
    "srt": (".srt", _srt),
}
