"""Prepare many clips in parallel, with a report. Runs can be interrupted and resumed."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..atomic import WriteError, write_atomically
from ..errors import DferZooError, InputError, suggest
from ..media.faces import RULES
from ..media.files import IMAGE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from ..media.workers import Workers
from ..registry import get_weights
from ..weights.record import Weights
from . import prepare_clips
from .annotations import Row, read_rows
from .formats import COLUMNS, RAVDESS_NAME
from .prepare_clips import SUFFIXES, Result, Source

JOURNAL, REPORT, LIST = "prepare.jsonl", "report.csv", "annotations.csv"
PREPARED_ARRAYS = "av_fusion.ravdess_ia"  # its record defines the frames of an .npy file


@dataclass(frozen=True)
class Report:
    """The results of all clips.

    Attributes:
        results: One per clip, in the order of the source.
        resumed: How many of them were written by an earlier run.
    """

    results: tuple[Result, ...]
    resumed: int = 0

    @property
    def without_face(self) -> tuple[Result, ...]:
        """Return the clips without a face."""
        return tuple(result for result in self.results if result.status == "no face")

    @property
    def failed(self) -> tuple[Result, ...]:
        """Return the clips that cannot be read."""
        return tuple(result for result in self.results if result.status == "failed")

    def summary(self, shown: int = 10) -> str:
        """Return a few lines of text: counts, and the clips that need attention."""
        counts = Counter(result.status for result in self.results)
        parts = [f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status]]
        again = f" ({self.resumed} by an earlier run)" if self.resumed else ""
        lines = [f"{len(self.results)} clips: {', '.join(parts)}{again}"]
        for title, results in (("no face in", self.without_face), ("not written:", self.failed)):
            lines += [f"{title} {r.clip}{_without_name(r)}" for r in results[:shown]]
            lines += [f"{title} {len(results) - shown} more"] * (len(results) > shown)
        return "\n".join(lines)


def _without_name(result: Result) -> str:
    """Return the reason without the name of the clip."""
    return f": {result.reason.removeprefix(f'{result.clip}: ')}" if result.reason else ""


STATUS_WORDS = {"written": "written", "no face": "without a face", "failed": "failed"}


# -- the three kinds of preparation ------------------------------------------------------------------------------------


def faces(
    source: str | Path,
    out: str | Path,
    *,
    rule: str,
    detector: Any = "auto",
    no_face: str = "error",
    kind: str = "jpg",
    names: str | None = None,
    preview: bool = False,
    workers: int = 0,
    **reading: Any,
) -> Report:
    """Crop all clips of a source to the face.

    Args:
        source: An annotation list, a folder with videos or folders of frames, or one video.
        out: The output folder, with one folder of images or one .npy file per clip. ``report.csv`` lists all clips.
            If the source has labels, ``annotations.csv`` is a list for `read_rows`.
        rule: A crop rule of `media.faces`, or the name of weights: "mma_dfer.mafw_fold1" uses their rule.
        detector: How faces are found, as in `read_clip`.
        no_face: "error" writes nothing for a clip without a face; "frame" writes whole frames.
        kind: "jpg" or "png" for a folder of images per clip, "npy" for the files of av_fusion.
        names: "padded" (00000.jpg) or "plain" (0.jpg); by default plain for "union_square", as MMA-DFER's files.
        preview: Also write an .avi for each .npy file.
        workers: Number of worker processes; 0 for none.
        **reading: Options of `read_rows` for a list.

    Returns:
        The report.

    Raises:
        InputError: An argument is wrong, or the folder contains clips that were prepared with other options.

    >>> report = faces("RAVDESS", "faces", rule="largest", kind="npy")  # doctest: +SKIP
    """
    record = None if rule in RULES else _record(rule)
    crop = rule if record is None or record.video is None else record.video.face_crop
    if kind not in SUFFIXES:
        raise InputError(f"The format is '{kind}'; expected {', '.join(SUFFIXES)}.")
    if preview and kind != "npy":
        raise InputError("An .avi is written for .npy files only; add --format npy.")
    names = names or ("plain" if crop == "union_square" else "padded")
    video = None
    if kind == "npy":
        video = (record or get_weights(PREPARED_ARRAYS)).video
    options: dict[str, Any] = {"crop": crop, "no_face": no_face, "kind": kind, "names": names, "preview": preview}
    work = functools.partial(prepare_clips.prepare_faces, out=Path(out), faces=detector, video=video, **options)
    header = {"what": "faces", "detector": str(detector), **options}
    return _run(read_sources(source, SUFFIXES[kind], **reading), work, Path(out), header, workers)


def audio(source: str | Path, out: str | Path, *, rule: str = "file", workers: int = 0, **reading: Any) -> Report:
    """Write the sound of all clips of a source as 16-bit WAV files.

    Args:
        source: An annotation list, a folder, or one file.
        out: The folder to write to.
        rule: "file": rate and channels of the file, for MMA-DFER. "ravdess": av_fusion's mono 22,050 Hz, 3.6 seconds.
        workers: Number of worker processes; 0 for none.
        **reading: Options of `read_rows` for a list.

    Returns:
        The report.

    Raises:
        InputError: An argument is wrong.

    >>> report = audio("MAFW/data/clips", "mfaw/clips_wav")  # doctest: +SKIP
    """
    if rule not in ("file", "ravdess"):
        raise InputError(f"The rule is '{rule}'; expected 'file' or 'ravdess'.")
    sources = read_sources(source, ".wav" if rule == "file" else "_croppad.wav", sounds=True, **reading)
    if rule == "ravdess":
        sources = _speech_once(sources)
    work = functools.partial(prepare_clips.prepare_audio, out=Path(out), rule=rule)
    return _run(sources, work, Path(out), {"what": "audio", "rule": rule}, workers, listed=False)


def frames(
    source: str | Path,
    out: str | Path,
    *,
    fps: float | None = None,
    kind: str = "jpg",
    workers: int = 0,
    **reading: Any,
) -> Report:
    """Write the frames of all videos of a source as folders of images.

    Args:
        source: An annotation list, a folder with videos, or one video.
        out: The folder to write to.
        fps: Frames per second to write; None writes every frame.
        kind: "jpg" or "png".
        workers: Number of worker processes; 0 for none.
        **reading: Options of `read_rows` for a list.

    Returns:
        The report.

    Raises:
        InputError: An argument is wrong.

    >>> report = frames("videos", "frames", fps=5)  # doctest: +SKIP
    """
    if kind not in ("jpg", "png"):
        raise InputError(f"The format is '{kind}'; expected jpg or png.")
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"fps is {fps}; expected more than 0 and at most 1000 frames per second.")
    work = functools.partial(prepare_clips.prepare_frames, out=Path(out), fps=fps, kind=kind)
    return _run(
        read_sources(source, "", **reading), work, Path(out), {"what": "frames", "fps": fps, "kind": kind}, workers
    )


def _record(name: str) -> Weights:
    """Return the record of the weights that a rule names."""
    try:
        record = get_weights(name)
    except DferZooError as error:
        raise InputError(
            f"There is no crop rule '{name}'; expected {', '.join(RULES)}, or the name of weights such as "
            f"mma_dfer.mafw_fold1.{suggest(name, RULES)}"
        ) from error
    if not isinstance(record, Weights) or record.video is None:
        raise InputError(f"{name} takes no frames, so it has no crop rule.")
    return record


# -- what to prepare ---------------------------------------------------------------------------------------------------


def read_sources(source: str | Path, suffix: str = "", *, sounds: bool = False, **reading: Any) -> list[Source]:
    """List the clips of a list, a folder or a file, with their paths in the output folder.

    Args:
        source: An annotation list, a folder with videos or folders of frames, or one file.
        suffix: The end of the output names.
        sounds: Include sound files and exclude folders of frames.
        **reading: Options of `read_rows` for a list.

    Returns:
        One source per clip.

    Raises:
        InputError: There is no clip, or two clips have the same output path.
    """
    path = Path(source)
    if reading and (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
        raise InputError(f"{source} is no list, so {', '.join(f'--{name}' for name in reading)} cannot be used.")
    if path.is_dir():
        sources = [*_sources_of_folder(path, suffix, sounds)]
    elif path.suffix.lower() in VIDEO_SUFFIXES | (SOUND_SUFFIXES if sounds else frozenset()):
        sources = [Source(Row(str(path), 0), f"{path.stem}{suffix}")]
    else:
        sources = _sources_of_list(source, suffix, reading)
    if not sources:
        raise InputError(f"There is no clip in {source}: no video{' or sound' if sounds else ', no folder of frames'}.")
    places = Counter(item.output for item in sources)
    place, count = places.most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{count} clips of {source} would be written to {place}. Give --root DIR, the folder that their paths start in."
        )
    return sources


def _sources_of_folder(root: Path, suffix: str, sounds: bool) -> Iterator[Source]:
    suffixes = VIDEO_SUFFIXES | (SOUND_SUFFIXES if sounds else frozenset())
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = sorted(name for name in files if not name.startswith("."))
        found += [Path(folder) / name for name in files if Path(name).suffix.lower() in suffixes]
        if not sounds and any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in files):
            found.append(Path(folder))
    if found == [root]:  # one folder of frames
        yield Source(Row(str(root), 0), f"{root.name}{suffix}")
        return
    found = sorted(path for path in found if path != root)
    per_class = all(len(path.relative_to(root).parts) == 2 for path in found)
    for path in found:
        place, label = path.relative_to(root), None
        if match := RAVDESS_NAME.fullmatch(path.stem):
            if match[2] == "02":  # songs
                continue
            label = str(int(match[3]) - 1)
        elif per_class:
            label = place.parts[0]
        stem = place.with_suffix("") if path.is_file() else place
        yield Source(Row(str(path), 0), f"{stem.as_posix()}{suffix}", label)


def _sources_of_list(source: str | Path, suffix: str, reading: Mapping[str, Any]) -> list[Source]:
    labels = _label_names(Path(source)) if Path(source).suffix.lower() == ".csv" else None
    rows = read_rows(source, labels, **reading)
    root = reading.get("root")
    sources = []
    for row in rows:
        place = PurePosixPath(Path(row.path).as_posix())
        if root is not None and place.is_relative_to(PurePosixPath(Path(root).as_posix())):
            place = place.relative_to(PurePosixPath(Path(root).as_posix()))
        else:
            place = PurePosixPath(place.name)
        if place.suffix.lower() in VIDEO_SUFFIXES | SOUND_SUFFIXES:
            place = place.with_suffix("")
        label = labels[row.label] if labels else str(row.label)
        sources.append(Source(row, f"{place}{suffix}", label))
    return sources


def _label_names(path: Path) -> list[str] | None:
    """Return the class names of a CSV file if its labels are names."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(itertools.islice(csv.DictReader(stream), 1_000_000))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None  # the reader of the list raises the error
    names = {name.strip().lower(): name for name in (rows[0] if rows else {}) if name}
    column = next((names[name] for name in COLUMNS["label"] if name in names), None)
    values = {str(row.get(column) or "").strip() for row in rows} - {""}
    return sorted(values) if column and values and not all(value.isdecimal() for value in values) else None


def _speech_once(sources: Iterable[Source]) -> list[Source]:
    """Keep one sound per utterance of RAVDESS: the file 03-..., or else the sound of the video 01-..., named 03-...."""
    kept: dict[str, Source] = {}
    for item in sources:
        place = PurePosixPath(item.output)
        if RAVDESS_NAME.fullmatch(Path(item.row.path).stem) is None:
            kept[item.output] = item
        elif place.name[:2] in ("01", "03"):  # 02 is a silent video
            output = str(place.with_name(f"03{place.name[2:]}"))
            if output not in kept or place.name.startswith("03"):
                kept[output] = dataclasses.replace(item, output=output)
    return list(kept.values())


# -- running -----------------------------------------------------------------------------------------------------------


def _run(
    sources: Sequence[Source],
    work: Callable[[Source], Result],
    out: Path,
    header: Mapping[str, Any],
    workers: int,
    listed: bool = True,
) -> Report:
    """Prepare the clips that an earlier run has not written, and write the report."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        before = _read_journal(out / JOURNAL, header)
        done = {
            item.output: before[item.output]
            for item in sources
            if item.output in before and before[item.output].frames and (out / item.output).exists()
        }
        todo = [item for item in sources if item.output not in done]
        results = dict(done)
        with (out / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write("\n")  # a killed process may have left an incomplete line
            for item, result in zip(todo, _results(todo, work, workers)):
                results[item.output] = result
                journal.write(json.dumps(dataclasses.asdict(result)) + "\n")
                journal.flush()
        report = Report(tuple(results[item.output] for item in sources), len(done))
        write_report(report, out / REPORT)
        if listed:
            _write_list(sources, report, out)
    except WriteError:
        raise
    except OSError as error:
        raise InputError(f"{out}: {error.strerror or error}.") from error
    return report


def _results(todo: Sequence[Source], work: Callable[[Source], Result], workers: int) -> Iterator[Result]:
    if workers == 0:
        answers: Iterable[Any] = map(functools.partial(_caught, work), todo)
        yield from (_result(item, answer) for item, answer in zip(todo, answers))
        return
    with Workers(work, min(workers, max(1, len(todo)))) as pool:
        for item, answer in zip(todo, pool.map(todo)):
            yield _result(item, answer)


def _caught(work: Callable[[Source], Result], item: Source) -> Result | DferZooError:
    try:
        return work(item)
    except DferZooError as error:
        return error


def _result(item: Source, answer: Result | DferZooError) -> Result:
    if isinstance(answer, WriteError):  # a full disk is not an error of the clip
        raise answer
    if isinstance(answer, Result):
        return answer
    return Result(item.row.path, item.output, "failed", reason=str(answer))


def _read_journal(path: Path, header: Mapping[str, Any]) -> dict[str, Result]:
    """Return the results of earlier runs by output. The options in an existing journal must be the same."""
    wanted = json.loads(json.dumps(header))
    if not path.exists():
        write_atomically(path, (json.dumps(wanted) + "\n").encode())
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = _parsed(lines[0]) if lines else None
    if found != wanted:
        differing = [k for k in wanted if not isinstance(found, dict) or found.get(k) != wanted[k]]
        told = ", ".join(f"{k}={found.get(k)} there, {wanted[k]} here" for k in differing if isinstance(found, dict))
        raise InputError(
            f"{path.parent} contains clips that were prepared with other options ({told or 'its journal is damaged'}). "
            "Choose another folder with --out."
        )
    results = {}
    kinds = {field.name: type(getattr(Result("", "", ""), field.name)) for field in dataclasses.fields(Result)}
    for line in lines[1:]:
        fields = _parsed(line)
        complete = isinstance(fields, dict) and fields.keys() == kinds.keys()
        if complete and all(isinstance(value, kinds[name]) for name, value in fields.items()):
            results[fields["output"]] = Result(**fields)
    return results


def _parsed(line: str) -> Any:
    """Parse a line of the journal; None if it is empty, damaged or incomplete."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def write_report(report: Report, path: Path) -> None:
    """Write the report, one entry per clip: CSV, or JSON if the name ends in .json.

    Args:
        report: The report.
        path: The file.
    """
    entries = [dataclasses.asdict(result) for result in report.results]
    if path.suffix == ".json":
        counts = Counter(result.status for result in report.results)
        content = json.dumps({"counts": counts, "clips": entries}, indent=1) + "\n"
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in dataclasses.fields(Result)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)
        content = text.getvalue()
    write_atomically(path, content.encode())


def _write_list(sources: Sequence[Source], report: Report, out: Path) -> None:
    """Write the labeled clips as a CSV list with paths relative to its folder."""
    if any(item.label is None for item in sources):
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label", "audio", "subset"))
    for item, result in zip(sources, report.results):
        if result.frames:
            sound = "" if item.row.audio is None else os.path.abspath(item.row.audio)
            writer.writerow((item.output, item.label, sound, item.row.subset or ""))
    write_atomically(out / LIST, text.getvalue().encode())
