"""Predict many clips into one table, in a run that can be interrupted and resumed."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DferZooError, InputError
from ..media.clip import Clip
from ..media.files import read_clip
from ..transforms import Transform
from .batcher import model_identity
from .inputs import Item
from .journal import Journal
from .prediction import Prediction
from .recognizer import Recognizer
from .samples import visual_of
from .sources import local
from .tables import (
    VECTOR_SUFFIXES,
    check_table_path,
    error_row,
    identity,
    prediction_rows,
    vector_row,
    write_table,
    write_vectors,
)
from .tables import (
    columns as table_columns,
)
from .tiers import check_tier_kinds, write_tiers


@dataclass(frozen=True)
class BatchReport:
    """Summary of a batch.

    Attributes:
        table: The file with one row per clip and window.
        clips: Number of clips in the table.
        failed: Number of these clips that have an error instead of a prediction.
        skipped: Number of clips completed by an earlier run.
        seconds: Duration of this run.
    """

    table: Path
    clips: int
    failed: int
    skipped: int
    seconds: float


def predict_table(
    recognizer: Recognizer,
    items: Iterable[Item],
    out: str | Path,
    *,
    resume: bool = False,
    retry_errors: bool = False,
    shard: tuple[int, int] = (1, 1),
    workers: int = 0,
    tiers: Sequence[str] = (),
    overlay: str | Path | None = None,
    progress: bool | None = None,
    told: Callable[[Item, Prediction | DferZooError], None] | None = None,
    **reading: Any,
) -> BatchReport:
    """Predict many clips and write one table.

    Each result is appended to a journal next to the table (``<out>.journal``), so a killed run loses only the
    clips in progress. The table is written at the end, in the order of the items.

    Args:
        recognizer: The models and their options.
        items: The clips, as `expand` lists them.
        out: `.csv`, `.jsonl` or `.parquet`.
        resume: Continue an earlier run with the same settings.
        retry_errors: When resuming, also retry clips that had an error.
        shard: (number, count), from (1, 1): only every count-th clip, for one of several machines.
        workers: Processes that decode and find faces ahead of the model, as in `Recognizer.many`.
        tiers: Annotation files to write next to each clip: "eaf", "textgrid", "vtt", "srt".
        overlay: Write every clip with the prediction drawn into it: "beside" the clip, or into a folder; see `overlay_paths`.
        progress: Show a progress bar; by default on a terminal.
        told: Called with every clip and its prediction or error.
        **reading: Options of `read_clip`.

    Returns:
        What was done.

    Raises:
        InputError: The table format is unknown, or an earlier run had other settings.
    """
    check_table_path(out)
    check_tier_kinds(tiers)
    items = list(items)
    read = ItemReader(visual_of(recognizer.transforms), reading)
    beside = _FilesBeside(items, read, tiers, overlay)

    def finish(item: Item, answer: Prediction | DferZooError) -> list[dict[str, Any]]:
        answer = beside(item, answer)
        if told is not None:
            told(item, answer)
        return _rows(item, answer, recognizer.labels)

    return _run(
        items,
        out,
        {**_settings(recognizer, shard), **reading},
        lambda todo: recognizer.answers(todo, read, "return", progress, workers),
        finish,
        lambda rows: write_table(out, rows, recognizer.labels),
        resume=resume,
        retry_errors=retry_errors,
        shard=shard,
    )


def predict_items(
    recognizer: Recognizer,
    items: Sequence[Item],
    *,
    overlay: str | Path | None = None,
    progress: bool | None = None,
    workers: int = 0,
    **reading: Any,
) -> Iterator[Prediction | DferZooError]:
    """Predict many clips in order.

    Args:
        recognizer: The models and their options.
        items: The clips, as `expand` lists them.
        overlay: As in `predict_table`.
        progress: As in `predict_table`.
        workers: As in `predict_table`.
        **reading: Options of `read_clip`.

    Yields:
        The prediction or error of each clip.
    """
    read = ItemReader(visual_of(recognizer.transforms), reading)
    beside = _FilesBeside(items, read, (), overlay)
    yield from map(beside, items, recognizer.answers(items, read, "return", progress, workers))


def embed_table(
    recognizer: Recognizer,
    items: Iterable[Item],
    out: str | Path,
    *,
    resume: bool = False,
    retry_errors: bool = False,
    shard: tuple[int, int] = (1, 1),
    workers: int = 0,
    progress: bool | None = None,
    told: Callable[[Item, np.ndarray | DferZooError], None] | None = None,
    **reading: Any,
) -> BatchReport:
    """Write the embeddings of many clips into one table, in a run that can be interrupted and resumed.

    Args:
        recognizer: One model and its options.
        items: The clips, as `expand` lists them.
        out: `.csv`, `.jsonl`, `.parquet` or `.npz`.
        resume: As in `predict_table`.
        retry_errors: As in `predict_table`.
        shard: As in `predict_table`.
        workers: As in `predict_table`.
        progress: As in `predict_table`.
        told: Called with every clip and its embedding or error.
        **reading: Options of `read_clip`.

    Returns:
        What was done.

    Raises:
        InputError: The table format is unknown, or an earlier run had other settings.
    """
    check_table_path(out, VECTOR_SUFFIXES)
    read = ItemReader(visual_of(recognizer.transforms), reading)
    if len(recognizer.models) > 1:
        raise InputError(f"Embeddings take one model, and this Recognizer has {len(recognizer.models)}.")
    model = recognizer.models[0]
    weights = identity(model_identity(model))

    def finish(item: Item, answer: np.ndarray | DferZooError) -> list[dict[str, Any]]:
        if told is not None:
            told(item, answer)
        return [vector_row(item.name, answer, weights, id=item.id, start=item.start, stop=item.stop)]

    return _run(
        items,
        out,
        {"embed": True, **_settings(recognizer, shard), **reading},
        lambda todo: recognizer.answers(todo, read, "return", progress, workers, embed=True),
        finish,
        lambda rows: write_vectors(out, rows, int(model.num_features or 0)),
        resume=resume,
        retry_errors=retry_errors,
        shard=shard,
    )


class Batch:
    """Predict batches of an engine such as Ray Data: takes and returns a dict of columns.

    It can be pickled. The first call creates the model, once per process.

    Args:
        model: As for `Recognizer`.
        pretrained: As for `Recognizer`.
        path: The column with paths, or with the content of files (`bytes`).
        id: The column that names the clips in the result. By default the paths, or the positions in the batch.
        **options: Other options of `Recognizer`, such as faces, window and device.

    Example:
        >>> batch = Batch("av_fusion", "puppets", faces="none")
        >>> batch({"path": ["missing.mp4"]})["error"]
        ['missing.mp4: no such file or folder.']
    """

    def __init__(
        self,
        model: str | None = None,
        pretrained: str | Sequence[str] | None = None,
        *,
        path: str = "path",
        id: str | None = None,
        **options: Any,
    ) -> None:
        self.model, self.pretrained, self.path, self.id, self.options = model, pretrained, path, id, options
        self._recognizer: Recognizer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recognizer": None}

    def __call__(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Predict the clips of one batch.

        Args:
            columns: Lists or arrays of equal length. `bytes` are file contents; other values are paths.

        Returns:
            The columns of `dfer-zoo predict --out`: a row per clip, person and window, and a row with ``error`` for a
            clip without a prediction.

        Raises:
            InputError: A column is missing, or an option of the `Recognizer` is wrong.
        """
        if self._recognizer is None:
            self._recognizer = Recognizer(self.model, self.pretrained, **self.options)
        recognizer = self._recognizer
        items = list(self._items(columns))
        read = ItemReader(visual_of(recognizer.transforms), {})
        answers = recognizer.answers(items, read, "return", False, 0)
        rows = [row for item, answer in zip(items, answers) for row in _rows(item, answer, recognizer.labels)]
        return {name: [row[name] for row in rows] for name in table_columns(recognizer.labels)}

    def _items(self, columns: Mapping[str, Sequence[Any]]) -> Iterator[Item]:
        for name in filter(None, (self.path, self.id)):
            if name not in columns:
                raise InputError(f"The batch has no column '{name}'; it has {', '.join(map(str, columns)) or 'none'}.")
        for number, source in enumerate(columns[self.path]):
            is_path = isinstance(source, str | Path)
            source = str(source) if is_path else source
            named = columns[self.id][number] if self.id else (source if is_path else number)
            yield Item(source, str(named), id=str(named) if self.id else None)


def _run(
    items: Iterable[Item],
    out: str | Path,
    settings: Mapping[str, Any],
    compute: Callable[[list[Item]], Iterator[Any]],
    finish: Callable[[Item, Any], list[dict[str, Any]]],
    write: Callable[[Iterator[dict[str, Any]]], Path],
    *,
    resume: bool,
    retry_errors: bool,
    shard: tuple[int, int],
) -> BatchReport:
    """Compute the items that the journal lacks, append their rows to it, and write all rows at the end."""
    started = time.monotonic()
    out = Path(out)
    number, count = shard
    if not 1 <= number <= count:
        raise InputError(f"The shard is {number} of {count}; expected 1 to {count}.")
    keyed = list(itertools.islice(_keyed(items), number - 1, None, count))
    path = out.with_name(f"{out.name}.journal")
    with Journal.opened(path, settings, resume=resume) as journal:
        todo = [(key, item) for key, item in keyed if not journal.done(key, retry_errors=retry_errors)]
        answers = compute([item for _, item in todo])
        for (key, item), answer in zip(todo, answers):
            journal.add(key, finish(item, answer))
        keys = [key for key, _ in keyed]
        try:
            write(journal.rows(keys))
        except DferZooError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"{path}: this journal is damaged ({error}). Delete it to start again.") from error
        report = BatchReport(out, len(keys), journal.failed(keys), len(keyed) - len(todo), time.monotonic() - started)
    path.unlink()
    return report


def _keyed(items: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    """Yield each item with a key that is stable between runs. Duplicates are numbered."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        key = "|".join(str(part) for part in (item.name, item.start, item.stop, item.audio, item.box, item.id))
        seen[key] += 1
        yield f"{key}|{seen[key]}", item


def _settings(recognizer: Recognizer, shard: tuple[int, int]) -> dict[str, Any]:
    """Return all settings that affect the results."""
    models = [m.weights.name if m.weights else type(m).__name__ for m in recognizer.models]
    digests = [m.weights.sha256 if m.weights else None for m in recognizer.models]
    finding = recognizer.transforms[0]
    return {
        "models": models,
        "sha256": digests,
        "labels": recognizer.labels,
        "window": recognizer.window,
        "stride": recognizer.stride,
        "faces": str(finding.faces),
        "no_face": finding.no_face,
        "people": recognizer.people,
        "shard": list(shard),
    }


@dataclass(frozen=True)
class ItemReader:
    """Read the clip of an item: its time range, with the sound and the face box that the list gives."""

    visual: Transform
    reading: Mapping[str, Any]

    def __call__(self, item: Item) -> Clip:
        clip = self.whole(item)
        return clip if item.box is None else dataclasses.replace(self.visual, faces=item.box).crop(clip)

    def whole(self, item: Item) -> Clip:
        """Read the clip without cropping the frames."""
        reading = dict(self.reading)
        if item.audio is not None:
            reading["audio"] = item.audio
        clip = read_clip(item.source, stream=True, **reading)
        if item.start is not None or item.stop is not None:
            clip = _part(item, clip)
        return clip


def _part(item: Item, clip: Clip) -> Clip:
    if clip.duration is None:
        raise InputError(f"{item.name}: start and stop are in seconds, but the frame rate is unknown; give fps.")
    start = item.start or 0.0
    stop = clip.duration if item.stop is None else min(item.stop, clip.duration)
    if start >= stop:
        raise InputError(f"{item.name}: {start:g} s is after the end of the clip ({clip.duration:g} s).")
    return clip.cut(start, stop)


def _moved(answer: Prediction, seconds: float) -> Prediction:
    """Shift the times of a prediction from a part of a file to the whole file."""
    windows = [
        dataclasses.replace(w, start=w.start + seconds, stop=None if w.stop is None else w.stop + seconds)
        for w in answer.windows
    ]
    track = tuple((second + seconds, box) for second, box in answer.track)
    people = tuple(_moved(person, seconds) for person in answer.people)
    return dataclasses.replace(answer, windows=tuple(windows), track=track, people=people)


class _FilesBeside:
    """Write the annotation files and the overlay video of each clip.

    Args:
        items: All clips of the run.
        read: Reads an item.
        tiers: As in `predict_table`.
        overlay: As in `predict_table`.
    """

    def __init__(
        self, items: Sequence[Item], read: ItemReader, tiers: Sequence[str], overlay: str | Path | None
    ) -> None:
        self.read, self.tiers = read, tiers
        paths: Sequence[Path | None] = [None] * len(items)
        if overlay is not None:
            from .overlay import overlay_paths  # imports fonts and encoders

            paths = overlay_paths(items, overlay)
        self.overlays = {id(item): path for item, path in zip(items, paths) if path is not None}

    def __call__(self, item: Item, answer: Prediction | DferZooError) -> Prediction | DferZooError:
        """Write the files. Return the prediction in times of the whole file, or the error if writing fails."""
        if isinstance(answer, DferZooError):
            return answer
        try:
            if id(item) in self.overlays:
                with local(item) as (here, name):
                    clip = self.read.whole(here)
                    clip = clip if name is None else dataclasses.replace(clip, source=name)
                    from .overlay import write_overlay

                    write_overlay(clip, answer, self.overlays[id(item)])
            answer = _moved(answer, item.start) if item.start else answer
            if self.tiers:
                _write_tiers(item, answer, self.tiers)
        except DferZooError as error:
            return error
        return answer


def _write_tiers(item: Item, answer: Prediction, tiers: Sequence[str]) -> None:
    stem = f"{Path(item.source).with_suffix('')}{item.part}"
    write_tiers(answer.people or [answer], tiers, stem, media=str(item.source))


def _rows(item: Item, answer: Prediction | DferZooError, labels: Sequence[str]) -> list[dict[str, Any]]:
    if isinstance(answer, DferZooError):
        return [error_row(item.name, answer, labels, id=item.id)]
    people = answer.people or (answer,)
    return [row for person in people for row in prediction_rows(person, file=item.name, id=item.id)]
