"""The logic behind the page: list the weights, predict a clip, and write the result files."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import InputError, printable
from ..inference.overlay import write_overlay
from ..inference.plots import THEMES, timeline_figure, write_figure
from ..inference.prediction import Prediction
from ..inference.recognizer import BASELINE, Recognizer
from ..inference.tables import prediction_rows, write_table
from ..inference.tiers import write_tiers
from ..registry import get_weights, manifest
from ..weights import store
from ..weights.record import Weights
from ..weights.transfer import watch_downloads

Progress = Callable[[float, str], None]  # (fraction done, current step)

_loading = threading.Lock()


@dataclass(frozen=True)
class Person:
    """The results for one person.

    Attributes:
        name: The name of the person in the menu.
        headline: Label and probability.
        remarks: Notes about faces, cautions and missing inputs.
        pictures: The timeline as PNG files, by (theme, "wide" or "narrow").
        rows: (start, stop, label, probability) of every window, as text.
    """

    name: str
    headline: str
    remarks: tuple[str, ...]
    pictures: Mapping[tuple[str, str], Path]
    rows: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True)
class Answer:
    """The results for one clip.

    Attributes:
        prediction: The prediction.
        people: One entry per person, the most prominent first.
        table: A CSV file with all probabilities of all people.
        tiers: An ELAN file with a tier for each person; None if the clip has no times.
    """

    prediction: Prediction
    people: tuple[Person, ...]
    table: Path
    tiers: Path | None


def choices() -> list[tuple[str, str]]:
    """Return (menu text, name of the weights): the baseline, then local weights, then weights to download."""
    records = [record for record in manifest().values() if is_offered(record)]
    records.sort(key=lambda record: (record.name != BASELINE, not is_here(record), record.name))
    return [(f"{record.name} ({_where(record)})", record.name) for record in records]


def is_offered(record: Weights) -> bool:
    """Return whether a record is a trained classifier that is local or can be downloaded directly."""
    if not record.labels or record.distribution == "composed":
        return False
    return is_here(record) or any(origin.kind != "page" for origin in record.origin) or record.distribution == "hub"


def is_here(record: Weights) -> bool:
    """Return whether the weights are on this machine."""
    return record.distribution == "bundled" or store.is_complete(store.stored_path(record))


def _where(record: Weights) -> str:
    if is_here(record):
        return "built in" if record.distribution == "bundled" else "on this machine"
    size = next((origin.size for origin in record.origin if origin.size), record.size)
    return f"download, {size / 1e6:,.0f} MB" if size else "download"


def about(name: str) -> str:
    """Return the license, data, published results and cautions of weights as Markdown.

    >>> print(about("mini_xception.fer2013").splitlines()[0])
    **mini_xception.fer2013**: 7 labels, trained on FER2013
    """
    record = get_weights(name)
    lines = [f"**{record.name}**: {len(record.labels)} labels, trained on {record.dataset or 'unknown data'}"]
    lines.append(f"- Licence of the weights: **{record.license}** ({record.license_source})")
    lines += [
        f"- {m.name.upper() if len(m.name) < 4 else m.name.capitalize()} {m.value:g} %: {m.protocol} ({m.source})"
        for m in record.metrics[:2]
    ]
    if "audio" in _inputs(record):
        lines.append("- Uses the face and the voice.")
    if record.caution:
        lines.append(f"- {record.caution}")
    if not is_here(record):
        page = record.origin_page
        lines.append(f"- The file comes from {f'[{urlsplit(page).hostname}]({page})' if page else 'its host'}.")
    return "\n".join(lines)


def _inputs(record: Weights) -> tuple[str, ...]:
    return ("video", "audio") if record.video and record.audio else ("audio",) if record.audio else ("video",)


def answer(
    source: str | Path | None,
    weights: str,
    folder: str | Path,
    *,
    accepted: bool = False,
    faces: str = "auto",
    people: str = "largest",
    progress: Progress = lambda share, what: None,
) -> Answer:
    """Predict one clip and write the result files.

    Args:
        source: The video file.
        weights: "arch.tag".
        folder: The output folder.
        accepted: Whether the user accepts the license, so that missing weights may be downloaded.
        faces: As in `media.faces.find`.
        people: "largest" (the most prominent face) or "all".
        progress: Called with the progress.

    Returns:
        The results.

    Raises:
        InputError: There is no clip, or the license is not accepted.
        MediaError: The clip cannot be used.
    """
    if source is None:
        raise InputError("There is no clip yet: drop a video file, or record one with the camera.")
    recognizer = _recognizer(weights, faces, people, accepted, progress)
    progress(0.5, "Reading the clip, finding faces")
    (prediction,) = recognizer.many([source], progress=False)
    assert isinstance(prediction, Prediction)
    progress(0.95, "Drawing")
    return _written(prediction, Path(source).name, Path(folder))


def overlay(source: str | Path, done: Answer, folder: str | Path) -> Path | None:
    """Write the clip with boxes, labels and bars as a video that every browser plays.

    Args:
        source: The video file.
        done: The results of the clip.
        folder: The output folder.

    Returns:
        The path of the video; None for a clip without frames.

    Raises:
        MediaError: The video cannot be written.
    """
    if done.prediction.faces is None:
        return None
    return write_overlay(source, done.prediction, Path(folder) / f"{_stem(Path(source).name)}.overlay.mp4")


def _recognizer(weights: str, faces: str, people: str, accepted: bool, progress: Progress) -> Recognizer:
    record = get_weights(weights)
    if not is_here(record) and not accepted:
        raise InputError(
            f"{record.name} has to be downloaded. Its licence is {record.license} ({record.license_source}): "
            "tick the box below the menu if you accept it."
        )

    def told(done: int, total: int | None) -> None:
        size = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB"
        progress(0.5 * done / total if total else 0.1, f"Downloading {record.name}: {size}")

    progress(0.05, f"Loading {record.name}")
    with _loading, watch_downloads(told):
        return _loaded(record.name, faces, people)


@functools.lru_cache(maxsize=2)
def _loaded(name: str, faces: str, people: str) -> Recognizer:
    return Recognizer(name, faces=faces, people=people, thumbnails=8)


def _stem(name: str) -> str:
    return Path(name).stem[:60] or "clip"


def _written(prediction: Prediction, name: str, folder: Path) -> Answer:
    everybody = prediction.people or (prediction,)
    rows = [row for person in everybody for row in prediction_rows(person, file=name)]
    timed = all(window.stop is not None for person in everybody for window in person.windows)
    return Answer(
        prediction=prediction,
        people=tuple(_person(number, one, len(everybody), name, folder) for number, one in enumerate(everybody)),
        table=write_table(folder / f"{_stem(name)}.csv", rows, prediction.labels),
        tiers=write_tiers(everybody, ["eaf"], folder / _stem(name))[0] if timed else None,
    )


def _person(number: int, one: Prediction, count: int, file: str, folder: Path) -> Person:
    called = f"person {number + 1}, " if count > 1 else ""  # the number in the video and in the ELAN file
    title = f"{printable(file)}: {called}{one.label}"
    pictures = {
        (theme, shape): write_figure(
            folder / f"timeline{number}_{theme}_{shape}.png",
            timeline_figure(one, title, theme=theme, narrow=shape == "narrow"),
        )
        for theme in THEMES
        for shape in ("wide", "narrow")
    }
    chance = max(one.probabilities)
    return Person(
        name=f"Person {number + 1}: {one.label}",
        headline=f"{f'Person {number + 1}: ' if count > 1 else ''}{one.label}, {chance:.0%}",
        remarks=remarks(one),
        pictures=pictures,
        rows=tuple(_row(window, one.labels) for window in one.windows),
    )


def _row(window: Any, labels: Sequence[str]) -> tuple[str, str, str, str]:
    chance = max(window.probabilities)
    stop = "" if window.stop is None else f"{window.stop:.1f} s"
    return f"{window.start:.1f} s", stop, labels[window.probabilities.index(chance)], f"{chance:.0%}"


def remarks(prediction: Prediction) -> tuple[str, ...]:
    """Return notes to show next to the label, one sentence each."""
    found = []
    faces = prediction.faces or {}
    if faces.get("searched"):
        found.append(f"A face was found in {faces['found']} of {faces['searched']} frames ({faces['detector']}).")
    found += prediction.cautions
    if prediction.overlooked:
        found.append(f"Only a part of the clip was seen: {prediction.overlooked}.")
    found += [f"Computed without {name}: the clip has none that can be used." for name in prediction.missing]
    return tuple(found)
