"""Read the annotations of a data set: a list in one of the published formats, a CSV file, or a folder per class."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import math
import os
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import InputError, MediaError, suggest
from ..media.clip import Clip, Frames
from ..media.container import open_file
from ..media.limits import check_limit
from ..transforms import Transform


@dataclass(frozen=True)
class Row:
    """One labelled clip of a data set."""

    path: str  # a video file, or a folder of frames
    label: int
    audio: str | None = None  # the sound file, if the sound is not in the video file
    num_frames: int | None = None  # as the list says; `VideoSpec.frame_count` decides whether it is used
    subset: str | None = None  # "training", "validation", "testing"
    order: str = "numeric"  # of the frames in a folder, as `read_clip` takes it
    upright: bool = True  # turn frames as their EXIF orientation says; the published programs do not


class Rows(list[Row]):
    """The clips of a data set, and the lines of its list that were left out.

    Args:
        rows: The clips.
        skipped: One sentence for each clip that was left out.
    """

    def __init__(self, rows: Iterable[Row] = (), skipped: Iterable[str] = ()) -> None:
        super().__init__(rows)
        self.skipped = tuple(skipped)


SPEECH = 1  # the vocal channel in the names of RAVDESS; 2 is song
SUBSETS = ("training", "validation", "testing")

# Where the sound of a folder of frames is. {name} is the folder's name, {number} the name as a number without leading
# zeros, {parent} the path of the folder around it, {above} the path one level further up.
AUDIO_RULES = {
    "dfew": "{above}/raw_wav/{number}.wav",
    "mafw": "{above}/clips_wav/{name}.wav",
}


def read_frame_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    audio: str | Callable[[str], str | None] | None = None,
    without_audio: str = "keep",
    num_classes: int | None = None,
    min_frames: int = 0,
    order: str = "string",
    subset: str | None = None,
) -> Rows:
    """Read a three-field list of DFER-CLIP, MMA-DFER or DK-CLIP: "folder count label", one clip per line.

    Args:
        path: The list.
        root: The folder that the paths are relative to. Absolute paths are looked for below it, without the folders
            of the machine that the list was made on.
        replace: ``("/their/disk", "/mine")`` replaces the start of every path.
        audio: Where the sound is: a key of `AUDIO_RULES`, a template like its values, or a function of the folder.
        without_audio: What to do with a clip whose sound file is missing: "keep" it (reading it fails, as published
            for DFEW), read it with "none" (as published for MAFW), or "error".
        num_classes: Labels must be below this number.
        min_frames: Leave out clips with a smaller count (DK-CLIP: 3).
        order: "string" sorts frames by name as text, as the published programs do (0, 1, 10, 100, ...);
            "numeric" sorts them by time.
        subset: The subset that the clips belong to.

    Returns:
        The clips; ``.skipped`` names those that were left out.

    Raises:
        InputError: A line cannot be read.

    >>> read_frame_list("DFEW_set_1_test.txt", audio="dfew", num_classes=7)  # doctest: +SKIP
    """
    if without_audio not in ("keep", "none", "error"):
        raise InputError(f"without_audio is '{without_audio}'; expected 'keep', 'none' or 'error'.")
    move = _Relocation(root, replace)
    rows, skipped = [], []
    for where, line in _lines(path):
        folder, count, label = _three_fields(line, where, num_classes)
        if count < min_frames:
            skipped.append(f"{where}: {folder} has {count} frames, and {min_frames} are needed")
            continue
        if count == 0:
            raise InputError(
                f"{where}: the clip {folder} has 0 frames. Remove it from the list, or leave such clips out with "
                "min_frames=1."
            )
        folder = move(folder, where)
        sound = audio_path(folder, audio)
        if sound is not None and without_audio != "keep" and not Path(sound).is_file():
            if without_audio == "error":
                raise InputError(f"{where}: there is no sound file {sound}.")
            sound = None
        rows.append(Row(folder, label, sound, count, subset, order, upright=False))
    return Rows(rows, skipped)


def read_clip_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    num_classes: int | None = None,
    order: str = "string",
    subset: str | None = None,
) -> Rows:
    """Read a two-field list of MAE-DFER: "folder label", or "video 0" for pre-training.

    The label is what follows the last blank, so a path may contain blanks. The options are those of `read_frame_list`.

    >>> read_clip_list("dfew_fold1/test.csv", replace=("/their/disk", "/mine"), num_classes=7)  # doctest: +SKIP
    """
    move = _Relocation(root, replace)
    rows = []
    for where, line in _lines(path):
        clip, _, label = line.rpartition(" ")
        if not clip.strip() or not label.isdecimal():
            raise InputError(f"{where}: expected 'folder label', found {line!r}.")
        _check_number("label", label, where)
        if num_classes is not None and int(label) >= num_classes:
            raise InputError(
                f"{where}: the label is {label}; with {num_classes} classes it must be below {num_classes}."
            )
        place = move(clip.strip(), where)
        rows.append(Row(place, int(label), subset=subset, order=order, upright=False))
    return Rows(rows)


def read_sound_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    num_classes: int | None = None,
    order: str = "string",
    subset: str | None = None,
) -> Rows:
    """Read a three-field list of HiCMAE: "folder wav label", one clip per line, no blanks in the paths.

    Args:
        path: The list. Lists of several continuous values in place of the label are not read.
        root: Put in front of the folders and of the sound files.
        replace: ("/their/disk", "/mine") exchanges the start of both.
        num_classes: Labels must be below it.
        order: Of the frames in a folder, as `read_clip` takes it.
        subset: The subset that the rows are noted as.

    Returns:
        One row per line, with the sound file as `audio`.

    Raises:
        InputError: If the file cannot be read, or a line is not of this form.

    Examples:
        >>> read_sound_list("crema_d_fold1/test.csv", replace=("/their/disk", "/mine"))  # doctest: +SKIP
    """
    move = _Relocation(root, replace)
    rows = []
    for where, line in _lines(path):
        fields = line.split(" ")
        if len(fields) != 3 or not fields[2].isdecimal():
            raise InputError(f"{where}: expected 'folder wav label', found {line!r}.")
        label = int(fields[2])
        if num_classes is not None and label >= num_classes:
            raise InputError(
                f"{where}: the label is {label}; with {num_classes} classes it must be below {num_classes}."
            )
        folder, sound = (move(field, where) for field in fields[:2])
        rows.append(Row(folder, label, sound, subset=subset, order=order, upright=False))
    return Rows(rows)


def audio_path(folder: str, rule: str | Callable[[str], str | None] | None) -> str | None:
    """Where the sound of a folder of frames is, by a rule.

    >>> audio_path("/data/dfew/clip_224x224/01234", "dfew")
    '/data/dfew/raw_wav/1234.wav'
    >>> audio_path("/data/mfaw/clips_faces/04321", "mafw")
    '/data/mfaw/clips_wav/04321.wav'
    """
    if rule is None:
        return None
    if callable(rule):
        return rule(folder)
    if "{" not in rule and rule not in AUDIO_RULES:
        raise InputError(f"There is no audio rule '{rule}', and it is not a template.{suggest(rule, AUDIO_RULES)}")
    template, place = AUDIO_RULES.get(rule, rule), PurePosixPath(folder.replace("\\", "/"))
    if "{number}" in template and not place.name.isdecimal():
        raise InputError(f"The audio rule '{template}' needs folders that are named by a number; this is {folder}.")
    number = int(place.name) if place.name.isdecimal() else None
    try:
        return template.format(name=place.name, number=number, parent=place.parent, above=place.parent.parent)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"The audio rule '{template}' cannot be filled in ({error}); it may contain {{name}}, {{number}}, "
            "{parent} and {above}."
        ) from error


def read_audiovisual_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    subset: str | None = None,
) -> Rows:
    """Read a list of av_fusion: "faces.npy;sound.wav;label;subset", labels from 1, one clip per line.

    ``subset`` keeps the rows of "training", "validation" or "testing"; ``root`` and ``replace`` are those of
    `read_frame_list`.
    """
    if subset is not None and subset not in SUBSETS:
        raise InputError(f"subset is '{subset}'; expected one of {', '.join(SUBSETS)}.")
    move = _Relocation(root, replace)
    rows = []
    for where, line in _lines(path):
        fields = line.split(";")
        if len(fields) == 4 and fields[2].isdecimal():
            _check_number("label", fields[2], where)
        if len(fields) != 4 or not fields[2].isdecimal() or int(fields[2]) < 1 or fields[3] not in SUBSETS:
            raise InputError(
                f"{where}: expected 'faces;sound;label;subset' with a label from 1 and a subset of "
                f"{', '.join(SUBSETS)}, found {line!r}."
            )
        faces, sound = (move(field, where) for field in fields[:2])
        rows.append(Row(faces, int(fields[2]) - 1, sound, subset=fields[3]))
    return Rows(row for row in rows if subset is None or row.subset == subset)


# the names that a column of a CSV file may have
COLUMNS = {
    "path": ("path", "file", "video", "clip", "folder", "video_name"),
    "label": ("label", "class", "emotion", "expression", "labels", "id"),
    "audio": ("audio", "sound", "wav"),
    "num_frames": ("num_frames", "frames"),
    "subset": ("subset", "split"),
}


def read_csv(
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    order: str = "numeric",
    subset: str | None = None,
) -> Rows:
    """Read a CSV file of your own, or a list of S2D. Its first line names the columns: ``path`` and ``label``, and where there are such
    ``audio``, ``num_frames`` and ``subset`` (`COLUMNS` has the other names that are known).

    Args:
        path: The file.
        labels: The model's labels. A label of the file is one of them, or its number, counted from 0.
        root: The folder of the data, as in `read_frame_list`. Without it, relative paths start at the folder of the
            CSV file, and absolute paths are used as they are.
        replace: ``("/their/disk", "/mine")`` replaces the start of every path.
        order: Of the frames in a folder, as `read_clip` takes it; S2D sorts them as texts, "string".
        subset: Keep only the rows of this subset.

    Raises:
        InputError: A column is missing, or a value is wrong.
    """
    lines = list(_lines(path))
    if not lines:
        raise InputError(f"The list {path} is empty.")
    header = [name.strip().lower() for name in next(csv.reader([lines[0][1]]))]
    found = {key: next((n for n in names if n in header), None) for key, names in COLUMNS.items()}
    for key in ("path", "label"):
        if found[key] is None:
            raise InputError(
                f"{path}: no column is called '{key}' (or {', '.join(COLUMNS[key][1:])}); the columns are "
                f"{', '.join(header)}."
            )
    move = _Relocation(root, replace, Path(path).parent)
    rows = []
    for where, line in lines[1:]:
        values = next(csv.reader([line]))
        if len(values) != len(header):
            raise InputError(f"{where}: expected {len(header)} values, found {len(values)}.")
        cells = dict(zip(header, (value.strip() for value in values)))
        row = {key: cells[name] for key, name in found.items() if name is not None and cells[name]}
        rows.append(dataclasses.replace(_csv_row(row, labels, move, where), order=order))
    return Rows(row for row in rows if subset is None or row.subset == subset)


def _csv_row(row: Mapping[str, str], labels: Sequence[str] | None, move: _Relocation, where: str) -> Row:
    if missing := {"path", "label"} - row.keys():
        raise InputError(f"{where}: the {' and the '.join(sorted(missing))} of this clip is empty.")
    label = row["label"]
    if label.isdecimal():
        number = int(label)
    elif labels is not None and label in labels:
        number = list(labels).index(label)
    else:
        known = "give the labels" if labels is None else f"the labels are {', '.join(labels)}"
        raise InputError(f"{where}: '{label}' is not a class; {known}.{suggest(label, labels or ())}")
    count = row.get("num_frames")
    if count is not None and not count.isdecimal():
        raise InputError(f"{where}: num_frames is {count!r}; expected a number.")
    audio = row.get("audio")
    return Row(
        move(row["path"], where),
        number,
        None if audio is None else move(audio, where),
        None if count is None else int(count),
        row.get("subset"),
    )


def read_ravdess(
    folder: str | Path,
    *,
    subset: str | None = None,
    testing: Iterable[int] = (5, 10, 16, 19),
    validation: Iterable[int] = (11, 13, 18, 22),
) -> Rows:
    """The speech videos of RAVDESS, with label, sound and subset from their names. Songs (vocal channel 02) are left out.

    "01-01-03-02-01-01-05.mp4" is modality, vocal channel, emotion, intensity, statement, repetition, actor. Its sound is
    "03-01-03-02-01-01-05.wav" in the same folder or, without such a file, in the video itself. The video with sound (01)
    and the silent one (02) are both clips, as published.

    Args:
        folder: The folder with one folder per actor.
        subset: "training", "validation" or "testing".
        testing: The actors for testing; the default is the split of the published models.
        validation: The actors for validation.
    """
    if subset is not None and subset not in SUBSETS:
        raise InputError(f"subset is '{subset}'; expected one of {', '.join(SUBSETS)}.")
    testing, validation = set(testing), set(validation)
    if testing & validation:
        raise InputError(f"The actors {sorted(testing & validation)} are in both testing and validation.")
    rows = []
    for video in sorted(Path(folder).rglob("*.mp4")):
        fields = video.stem.split("-")
        if len(fields) != 7 or not all(field.isdecimal() for field in fields) or not 1 <= int(fields[2]) <= 8:
            raise InputError(f"{video} is not named as in RAVDESS (MM-VC-EE-II-SS-RR-AA.mp4).")
        if int(fields[1]) != SPEECH:
            continue
        actor = int(fields[6])
        part = "testing" if actor in testing else "validation" if actor in validation else "training"
        sound = video.with_name(f"03{video.stem[2:]}.wav")
        rows.append(Row(str(video), int(fields[2]) - 1, str(sound) if sound.is_file() else None, subset=part))
    if not rows:
        raise InputError(f"There is no .mp4 file of speech in {folder}.")
    return Rows(row for row in rows if subset is None or row.subset == subset)


def _lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """(where, line) for every line of a list that is not blank."""
    try:
        with open_file(path) as stream:
            check_limit("list_bytes", os.fstat(stream.fileno()).st_size, f"{path}: the size of the list", InputError)
            text = stream.read().decode("utf-8-sig")
    except MediaError as error:
        raise InputError(f"The list cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"The list {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The list {path} is not text in UTF-8 (byte {error.start}); save it in UTF-8.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def _check_number(name: str, digits: str, where: str) -> None:
    """Raise an error for a number above its limit; Python refuses to read thousands of digits with another one."""
    check_limit(
        name, int(digits) if len(digits) < 20 else 10 ** min(len(digits), 5000), f"{where}: the {name}", InputError
    )


def _three_fields(line: str, where: str, num_classes: int | None) -> tuple[str, int, int]:
    fields = line.rsplit(maxsplit=2)  # from the right: a folder may have blanks in its name
    if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
        _check_number("frames", fields[1], where)
        _check_number("label", fields[2], where)
        count, label = int(fields[1]), int(fields[2])
        if num_classes is None or label < num_classes:
            return fields[0], count, label
        raise InputError(f"{where}: the label is {label}; with {num_classes} classes it must be below {num_classes}.")
    raise InputError(f"{where}: expected 'folder count label', found {line!r}.")


class _Relocation:
    """The place of a list's files on this machine."""

    def __init__(
        self, root: str | Path | None, replace: tuple[str, str] | None, start: str | Path | None = None
    ) -> None:
        self.root, self.replace = None if root is None else Path(root), replace
        self.start = start  # of relative paths, where no root is given
        self.foreign: int | None = None  # parts of an absolute path that exist on the list's own machine only

    def __call__(self, path: str, where: str) -> str:
        if self.replace is not None:
            old, new = self.replace
            if not path.startswith(old):
                raise InputError(f"{where}: the path {path} does not start with '{old}', which was to be replaced.")
            path = new + path[len(old) :]
        if self.root is None:
            return path if self.start is None else str(Path(self.start, path))
        parts = PurePosixPath(path).parts
        if not path.startswith("/"):
            return str(self.root / path)
        if self.foreign is None:
            self.foreign = self._count_foreign(parts, where)
        return str(self.root.joinpath(*parts[self.foreign :]))

    def _count_foreign(self, parts: Sequence[str], where: str) -> int:
        assert self.root is not None
        for end in (len(parts), len(parts) - 1):  # the clip itself, or the folder around it
            for count in range(1, end):
                if self.root.joinpath(*parts[count:end]).exists():
                    return count
        tried = [str(self.root.joinpath(*parts[count:])) for count in (1, len(parts) - 1)]
        raise InputError(
            f"{where}: no part of {'/'.join(parts).replace('//', '/')} is below {self.root}; looked from {tried[0]} to "
            f"{tried[1]}. Give another root, or replace the start of the paths (--replace OLD=NEW)."
        )


# -- any data set ------------------------------------------------------------------------------------------------------

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".mpg", ".mpeg", ".m4v", ".wmv"})


def read_rows(
    source: str | Path,
    labels: Sequence[str] | None = None,
    *,
    subset: str | None = None,
    transform: Transform | None = None,
    **options: Any,
) -> Rows:
    """The labelled clips of an annotation file, of a folder with one folder per class, or of drawn puppets.

    Args:
        source: A list in one of the five published formats, a CSV file, the folder of RAVDESS, a folder with one folder
            per class, or "puppets:clips=8,split=test".
        labels: The model's labels, in its order. Folders are matched with them by name, puppets are drawn for them, and
            a list with other class numbers is an error.
        subset: Keep only the rows of this subset, where the file names subsets.
        transform: The model's transform. What its record says about lists (`AudioSpec.without_audio`,
            `VideoSpec.min_frames`) is the default of the reader's options.
        **options: Options of the reader.

    Raises:
        InputError: The source cannot be read, or an option is not one of its reader's.

    >>> rows = read_rows("puppets:clips=8,split=test", labels=["happy", "sad"])
    >>> [row.label for row in rows]
    [0, 1, 0, 1, 0, 1, 0, 1]
    """
    text = str(source)
    if text == "puppets" or text.startswith("puppets:"):
        return _puppet_rows(text, labels, **options)
    path = Path(source)
    if path.is_dir() and not any(re.fullmatch(r"\d\d(-\d\d){6}", video.stem) for video in path.glob("*/*.mp4")):
        _check_options(text, read_class_folders, options)
        return read_class_folders(path, labels)
    if not path.exists():
        raise InputError(
            f"There is no data set '{text}': it is not a file, not a folder, and does not start with 'puppets'."
        )
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
        raise InputError(f"{text} names no clip{' that is long enough' if rows.skipped else ''}.")
    if labels is not None:
        _check_classes(text, rows, labels)
    return rows


def _rules(transform: Transform | None) -> dict[str, Any]:
    """What a record says about lists, as options of the readers."""
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
            f"{text}: the clip {highest.path} is of class {highest.label}, counted from 0; the {len(labels)} labels are "
            f"{', '.join(labels)}."
        )


def _options_of(reader: Callable[..., Any]) -> list[str]:
    return [name for name, p in inspect.signature(reader).parameters.items() if p.kind is p.KEYWORD_ONLY]


def _check_options(text: str, reader: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = _options_of(reader)
    for name in options:
        if name not in known:
            raise InputError(
                f"{text}: `{reader.__name__}`, which reads it, has no option '{name}'.{suggest(name, known)}"
            )


def read_class_folders(path: str | Path, labels: Sequence[str] | None = None) -> Rows:
    """``path/CLASS/clip.mp4``, or ``path/CLASS/clip/`` with frames in it.

    Without ``labels`` the classes are the folders in alphabetical order. With them every folder must be one of the
    labels, and the order is theirs.
    """
    root = Path(path)
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    order = list(folders if labels is None else labels)
    unknown = [name for name in folders if name not in order]
    if unknown or not folders:
        raise InputError(
            f"{root}: expected one folder per class, named {', '.join(order) or 'by the class'}; "
            f"found {', '.join(unknown) or 'no folder'}."
        )
    rows = []
    for name in folders:
        for entry in sorted((root / name).iterdir()):
            if entry.name.startswith("."):
                continue
            if entry.is_dir() or entry.suffix.lower() in VIDEO_SUFFIXES:
                rows.append(Row(str(entry), order.index(name)))
    if not rows:
        raise InputError(f"{root}: the class folders contain neither videos nor folders of frames.")
    return Rows(rows)


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
            raise InputError(f"'{text}': {name} is {value!r}, expected a number.") from error
    _check_options(text, puppets, options)
    data = puppets(tuple(labels or ACTION_UNITS), **options)
    return Rows(Row(str(puppet), label, subset=options.get("split", "train")) for puppet, label in data)


def _bounds(text: str) -> tuple[float, float]:
    """ "0.2-0.4", or one number that is both bounds."""
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def _annotation_reader(path: Path) -> Callable[..., Rows]:
    """The reader for an annotation file, by its first line."""
    _, first = next(_lines(path), ("", ""))
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
        f"{path}: the first line, {first[:80]!r}, is not of a known format. Known are 'folder count label', "
        "'folder label', 'faces;sound;label;subset', and CSV with columns path,label."
    )


# -- from a row to a clip ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListedFrames:
    """The frames of a folder, as many as a list says. The published programs choose frames by the number in the list,
    so the folder may contain more; if it contains fewer, only a chosen frame that is not there is an error."""

    frames: Frames
    count: int
    source: str

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        if max(indices, default=0) >= len(self.frames):
            raise MediaError(
                f"{self.source}: the list says {self.count} frames, the folder contains {len(self.frames)}, and frame "
                f"{max(indices)} (counted from 0) is needed."
            )
        return self.frames.take(indices)


def read_row(row: Row, *, frame_count: str = "list") -> Clip:
    """Read the clip of a row.

    Args:
        row: A row of `read_rows`.
        frame_count: Which number of frames counts if they differ: that of the "list", or of the "folder"
            (`VideoSpec.frame_count`).

    Returns:
        The clip. Puppets and prepared faces are marked as face crops, so that no transform searches them for faces.
        ``clip.notes["short"]`` is (frames in the list, frames in the folder) if the folder has fewer.

    Raises:
        MediaError: The files cannot be read.
    """
    if row.path.startswith("puppet:"):
        from .puppets import Puppet

        return _marked_as_crops(Puppet.parse(row.path).clip())
    from ..media.files import read_clip
    from ..media.images import ImageFiles

    _check_files(row)
    if row.path.endswith(".npy"):
        return _marked_as_crops(_prepared_clip(row))
    clip = read_clip(row.path, audio=row.audio, order=row.order)
    if not row.upright and isinstance(clip.frames, ImageFiles):
        clip = dataclasses.replace(clip, frames=dataclasses.replace(clip.frames, upright=False))
    if row.num_frames is not None and clip.frames is not None:
        found, notes = len(clip.frames), dict(clip.notes)
        if row.num_frames > found:
            notes["short"] = (row.num_frames, found)
        frames = clip.frames if frame_count == "folder" else ListedFrames(clip.frames, row.num_frames, row.path)
        clip = dataclasses.replace(clip, frames=frames, notes=notes)
    return clip


def _marked_as_crops(clip: Clip) -> Clip:
    report = {"detector": "given boxes", "crop": "as given", "searched": 0, "found": 0}
    return dataclasses.replace(clip, notes={**clip.notes, "faces": report})


def _check_files(row: Row) -> None:
    if not Path(row.path).exists():
        raise MediaError(
            f"{row.path}: there is no such file or folder. If the list was made on another machine, give the folder of "
            "the data (--root DIR), or replace the start of the paths (--replace OLD=NEW)."
        )
    if row.audio is not None and not Path(row.audio).exists():
        raise MediaError(
            f"{row.audio}: there is no such sound file; it belongs to {row.path}. Another place is given with --audio, "
            "and --missing-audio none reads such clips without sound."
        )


def _prepared_clip(row: Row) -> Clip:
    """av_fusion's prepared faces: blue first, cropped and sampled already."""
    from ..media.files import read_clip

    faces = _prepared_faces(row.path)[..., ::-1]
    # spread over 3.6 seconds, so that the record's rule takes each of them once
    clip = Clip.from_arrays(faces, fps=len(faces) / 3.6, source=row.path)
    if row.audio is None:
        return clip
    sound = read_clip(row.audio)
    return dataclasses.replace(clip, waveform=sound.waveform, sample_rate=sound.sample_rate)


def _check_npy_header(stream: Any, path: str) -> None:
    """Raise an error for a header that promises more than the file holds, before memory is allocated for it."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    size = math.prod(shape) * kind.itemsize
    check_limit("array_bytes", size, f"{path}: the size of the array")
    if min(shape, default=0) < 0 or size > os.fstat(stream.fileno()).st_size:
        raise MediaError(f"{path}: the header promises an array {shape} of {size} bytes, and the file is shorter.")
    stream.seek(0)


def _prepared_faces(path: str) -> np.ndarray:
    try:
        with open_file(path) as stream:
            _check_npy_header(stream, path)
            faces = np.load(stream, allow_pickle=False)
    except MediaError as error:
        raise MediaError(f"the prepared faces cannot be read: {error}") from error
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        MemoryError,
        RecursionError,
        tokenize.TokenError,
    ) as error:
        raise MediaError(f"{path}: the prepared faces cannot be read ({error}).") from error
    if not isinstance(faces, np.ndarray) or faces.ndim != 4:
        found = getattr(faces, "shape", "several arrays")
        raise MediaError(f"{path}: expected prepared faces, (frames, height, width, 3), found {found}.")
    return faces
