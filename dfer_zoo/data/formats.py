"""Readers of annotation files: the list formats of the published systems, CSV files, RAVDESS, and a folder per class."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ..errors import InputError, MediaError, suggest
from ..media.container import open_file
from ..media.files import VIDEO_SUFFIXES
from ..media.limits import check_limit
from .rows import Row, Rows, audio_path

# modality, vocal channel (1 is speech, 2 is song), emotion, intensity, statement, repetition, actor
RAVDESS_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-\d\d-\d\d-\d\d-(\d\d)")
SUBSETS = ("training", "validation", "testing")


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
        root: The folder of the data. Absolute paths are searched below it, without the leading folders of the machine
            that wrote the list.
        replace: ``("/their/disk", "/mine")`` replaces the start of every path.
        audio: Where the sound is: a key of `AUDIO_RULES`, a template like its values, or a function of the folder.
        without_audio: What to do if a sound file is missing: "keep" the clip, whose reading then fails (as published for
            DFEW), read it with "none" (as published for MAFW), or raise an "error".
        num_classes: Labels must be below this number.
        min_frames: Leave out clips with fewer frames (DK-CLIP: 3).
        order: "string" sorts frame names as text, as the published programs do (0, 1, 10, 100, ...); "numeric" sorts
            them by time.
        subset: The subset of all rows.

    Returns:
        The rows; ``.skipped`` names the clips that were left out.

    Raises:
        InputError: A line cannot be read.

    >>> read_frame_list("DFEW_set_1_test.txt", audio="dfew", num_classes=7)  # doctest: +SKIP
    """
    if without_audio not in ("keep", "none", "error"):
        raise InputError(f"without_audio is '{without_audio}'; expected 'keep', 'none' or 'error'.")
    move = _Relocation(root, replace)
    rows, skipped = [], []
    for where, line in numbered_lines(path):
        folder, count, label = _three_fields(line, where, num_classes)
        if count < min_frames:
            skipped.append(f"{where}: {folder} has {count} frames; {min_frames} are needed")
            continue
        if count == 0:
            raise InputError(
                f"{where}: the clip {folder} has 0 frames. Remove it from the list, or set min_frames=1 to leave such "
                "clips out."
            )
        folder = move(folder, where)
        sound = audio_path(folder, audio)
        if sound is not None and without_audio != "keep" and not Path(sound).is_file():
            if without_audio == "error":
                raise InputError(f"{where}: no such sound file: {sound}.")
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

    Paths may contain spaces: the label follows the last one. Options as in `read_frame_list`.

    >>> read_clip_list("dfew_fold1/test.csv", replace=("/their/disk", "/mine"), num_classes=7)  # doctest: +SKIP
    """
    move = _Relocation(root, replace)
    return Rows(
        Row(move(clip, where), label, subset=subset, order=order, upright=False)
        for where, (clip,), label in _files_and_label(path, "folder label", num_classes)
    )


def read_sound_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    num_classes: int | None = None,
    order: str = "string",
    subset: str | None = None,
) -> Rows:
    """Read a three-field list of HiCMAE: "folder wav label", one clip per line, no spaces in the paths.

    Lists of continuous values instead of labels are not read. Options as in `read_frame_list`, for folders and sound
    files.

    >>> read_sound_list("crema_d_fold1/test.csv", replace=("/their/disk", "/mine"))  # doctest: +SKIP
    """
    move = _Relocation(root, replace)
    rows = []
    for where, files, label in _files_and_label(path, "folder wav label", num_classes):
        folder, sound = (move(file, where) for file in files)
        rows.append(Row(folder, label, sound, subset=subset, order=order, upright=False))
    return Rows(rows)


def _files_and_label(path: str | Path, expected: str, num_classes: int | None) -> Iterator[tuple[str, list[str], int]]:
    """Yield (place, files, label) for the lines of a list; the last field is the label."""
    count = expected.count(" ")
    for where, line in numbered_lines(path):
        *files, label = line.split(" ") if count > 1 else line.rsplit(" ", 1)
        if len(files) != count or not all(file.strip() for file in files) or not label.isdecimal():
            raise InputError(f"{where}: expected '{expected}', found {line!r}.")
        yield where, [file.strip() for file in files], _label(label, where, num_classes)


def read_audiovisual_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    replace: tuple[str, str] | None = None,
    subset: str | None = None,
) -> Rows:
    """Read a list of av_fusion: "faces.npy;sound.wav;label;subset", labels from 1, one clip per line.

    ``subset`` keeps the rows of "training", "validation" or "testing". Other options as in `read_frame_list`.
    """
    if subset is not None and subset not in SUBSETS:
        raise InputError(f"subset is '{subset}'; expected one of {', '.join(SUBSETS)}.")
    move = _Relocation(root, replace)
    rows = []
    for where, line in numbered_lines(path):
        fields = line.split(";")
        label = _label(fields[2], where) if len(fields) == 4 and fields[2].isdecimal() else 0
        if label < 1 or fields[3] not in SUBSETS:
            raise InputError(
                f"{where}: expected 'faces;sound;label;subset' with a label from 1 and a subset of "
                f"{', '.join(SUBSETS)}, found {line!r}."
            )
        faces, sound = (move(field, where) for field in fields[:2])
        rows.append(Row(faces, label - 1, sound, subset=fields[3]))
    return Rows(row for row in rows if subset is None or row.subset == subset)


# column -> its accepted names in a CSV file
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
    """Read a CSV file, such as your own or a list of S2D.

    The first line names the columns: ``path`` and ``label``, optionally ``audio``, ``num_frames`` and ``subset``.
    `COLUMNS` lists other accepted names.

    Args:
        path: The file.
        labels: The labels of the model. A label in the file is one of them, or its index, from 0.
        root: The folder of the data, as in `read_frame_list`. Without it, relative paths start at the folder of the
            CSV file, and absolute paths are used as they are.
        replace: ``("/their/disk", "/mine")`` replaces the start of every path.
        order: How to sort the frames of a folder, as in `read_clip`; S2D sorts them as text, "string".
        subset: Keep only the rows of this subset.

    Raises:
        InputError: A column is missing, or a value is wrong.
    """
    lines = list(numbered_lines(path))
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
        raise InputError(f"{where}: this clip has no {' and no '.join(sorted(missing))}.")
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
    """List the speech videos of RAVDESS, with label, sound and subset from their names. Songs (vocal channel 02) are left out.

    "01-01-03-02-01-01-05.mp4" means modality, vocal channel, emotion, intensity, statement, repetition, actor. The sound
    is "03-01-03-02-01-01-05.wav" in the same folder, or in the video itself if there is no such file. Videos with sound
    (01) and without (02) are both clips, as published.

    Args:
        folder: The folder with one folder per actor.
        subset: "training", "validation" or "testing".
        testing: The actors of the test set; the default is the split of the published models.
        validation: The actors of the validation set.
    """
    if subset is not None and subset not in SUBSETS:
        raise InputError(f"subset is '{subset}'; expected one of {', '.join(SUBSETS)}.")
    testing, validation = set(testing), set(validation)
    if testing & validation:
        raise InputError(f"The actors {sorted(testing & validation)} are in both testing and validation.")
    rows = []
    for video in sorted(Path(folder).rglob("*.mp4")):
        codes = RAVDESS_NAME.fullmatch(video.stem)
        if codes is None or not 1 <= int(codes[3]) <= 8:
            raise InputError(f"{video} has no file name of RAVDESS (MM-VC-EE-II-SS-RR-AA.mp4).")
        if codes[2] != "01":
            continue
        actor = int(codes[4])
        part = "testing" if actor in testing else "validation" if actor in validation else "training"
        sound = video.with_name(f"03{video.stem[2:]}.wav")
        rows.append(Row(str(video), int(codes[3]) - 1, str(sound) if sound.is_file() else None, subset=part))
    if not rows:
        raise InputError(f"There is no .mp4 file of speech in {folder}.")
    return Rows(row for row in rows if subset is None or row.subset == subset)


def numbered_lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """Yield (place, line) for every line of a text file that is not empty; the place is for error messages."""
    try:
        with open_file(path) as stream:
            check_limit("list_bytes", os.fstat(stream.fileno()).st_size, f"{path}: the size of the list", InputError)
            text = stream.read().decode("utf-8-sig")
    except MediaError as error:
        raise InputError(f"The list cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"The list {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The list {path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def _number(name: str, digits: str, where: str) -> int:
    """Parse a number below its limit. Python refuses thousands of digits with an error of its own."""
    check_limit(
        name, int(digits) if len(digits) < 20 else 10 ** min(len(digits), 5000), f"{where}: the {name}", InputError
    )
    return int(digits)


def _label(digits: str, where: str, num_classes: int | None = None) -> int:
    label = _number("label", digits, where)
    if num_classes is not None and label >= num_classes:
        raise InputError(f"{where}: the label is {label}; with {num_classes} classes it must be below {num_classes}.")
    return label


def _three_fields(line: str, where: str, num_classes: int | None) -> tuple[str, int, int]:
    fields = line.rsplit(maxsplit=2)  # from the right: the folder may contain spaces
    if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
        return fields[0], _number("frames", fields[1], where), _label(fields[2], where, num_classes)
    raise InputError(f"{where}: expected 'folder count label', found {line!r}.")


class _Relocation:
    """Translates the paths of a list to this machine."""

    def __init__(
        self, root: str | Path | None, replace: tuple[str, str] | None, start: str | Path | None = None
    ) -> None:
        self.root, self.replace = None if root is None else Path(root), replace
        self.start = start  # of relative paths, if no root is given
        self.foreign: int | None = None  # leading parts of absolute paths that exist only on the list's own machine

    def __call__(self, path: str, where: str) -> str:
        if self.replace is not None:
            old, new = self.replace
            if not path.startswith(old):
                raise InputError(f"{where}: the path {path} does not start with '{old}', so it cannot be replaced.")
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
        for end in (len(parts), len(parts) - 1):  # try the clip itself, then its folder
            for count in range(1, end):
                if self.root.joinpath(*parts[count:end]).exists():
                    return count
        tried = [str(self.root.joinpath(*parts[count:])) for count in (1, len(parts) - 1)]
        raise InputError(
            f"{where}: {'/'.join(parts).replace('//', '/')} is not below {self.root}; tried {tried[0]} to {tried[1]}. "
            "Give another root, or replace the start of the paths (--replace OLD=NEW)."
        )


def read_class_folders(path: str | Path, labels: Sequence[str] | None = None) -> Rows:
    """Read ``path/CLASS/clip.mp4``, or ``path/CLASS/clip/`` with frames.

    Args:
        path: The folder with one folder per class.
        labels: The labels, in the order of the model; every folder must be one of them. By default the folders in
            alphabetical order.
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
