"""Write the annotation lists of the data sets: the published splits, in the format and label order of each system.

Each data set is read in the layout of its release, as the systems' preparation programs expect it. Face frames are read
from a folder of clips, where each clip is a folder of images.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..atomic import write_atomically
from ..errors import InputError, suggest
from ..media.images import IMAGE_SUFFIXES
from .crema_d import CREMA_D_WITHOUT_SOUND, MAFW_WITHOUT_SOUND, list_lines, read_crema_d
from .formats import RAVDESS_NAME, numbered_lines, read_class_folders
from .rows import Row

# -- the labels of each system -----------------------------------------------------------------------------------------

OFFICIAL = ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")  # DFEW's numbers 1 to 7
MORE = ("contempt", "anxiety", "helplessness", "disappointment")
MAFW = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise", *MORE)
SAME = {"happy": "happiness", "sad": "sadness", "angry": "anger"}  # other words for the same class

SYSTEMS = ("mma_dfer", "dfer_clip", "dk_clip", "mae_dfer", "hicmae", "s2d", "av_fusion")
# the order of the classes, where it is not the first
ORDERS: dict[tuple[str, str], tuple[str, ...]] = {
    ("dfew", ""): OFFICIAL,
    ("ferv39k", ""): OFFICIAL,
    ("ferv39k", "s2d"): tuple(sorted(OFFICIAL)),
    ("mafw", ""): (*OFFICIAL, *MORE),
    ("mafw", "mae_dfer"): MAFW,
    ("mafw", "hicmae"): MAFW,
    ("mafw", "s2d"): tuple(sorted(MAFW)),
}


def label_order(dataset: str, system: str) -> tuple[str, ...]:
    """Return the classes of a data set in the order of a system's labels.

    Args:
        dataset: "dfew", "ferv39k" or "mafw".
        system: One of `SYSTEMS`.

    Returns:
        Class names; the index is the label.

    >>> label_order("mafw", "mma_dfer")[0], label_order("mafw", "mae_dfer")[0]
    ('happiness', 'anger')
    """
    return ORDERS.get((dataset, system), ORDERS[dataset, ""])


# -- the rows of a fold ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fold:
    """One fold of a data set, and where its files are.

    Attributes:
        root: The folder of the data set.
        number: The fold, from 1; None for data sets with one official split.
        system: The system whose lists are written.
        frames: The folder with the face frames; by default that of the data set's release.
        sounds: The folder with the wav files, for lists that name them.
        all_clips: Keep the clips that HiCMAE leaves out because they have no sound.
        skip_missing: Leave out clips without frames. By default they are an error.
        parts: The number of folds of your own data.
        group: A regular expression whose first group finds the person in the name of a clip of your own data.
    """

    root: Path
    number: int | None
    system: str
    frames: Path | None = None
    sounds: Path | None = None
    all_clips: bool = False
    skip_missing: bool = False
    parts: int = 5
    group: str | None = None


Lists = dict[str, list[Row]]  # the rows of "train" and "test", or of other names


def read_fold(dataset: str, fold: Fold) -> Lists:
    """Read the rows of a data set's fold.

    Args:
        dataset: A key of `DATASETS`.
        fold: The fold, and where the files are.

    Returns:
        The rows of each list.

    Raises:
        InputError: A file of the data set is missing, or the system has no lists of this data set.

    >>> read_fold("mafw", Fold(Path("MAFW"), 1, "mae_dfer"))  # doctest: +SKIP
    """
    known = DATASETS[dataset]
    if fold.system not in known.systems:
        raise InputError(f"{fold.system} has no lists of {known.name}; --system is one of {', '.join(known.systems)}.")
    if known.folds and fold.number not in range(1, known.folds + 1):
        raise InputError(f"{known.name} has the folds 1 to {known.folds}; give --fold (it is {fold.number}).")
    if known.folds == 0 and fold.number not in (None, 1):
        raise InputError(f"{known.name} has one official split and no folds; omit --fold.")
    if not fold.root.is_dir():
        raise InputError(f"{fold.root} is not a folder; expected the folder of {known.name}.")
    return known.read(fold)


def _dfew(fold: Fold) -> Lists:
    """EmoLabel_DataSplit/{train,test}(single-labeled)/set_K.csv with the columns video_name and label (1 to 7)."""
    folder = _frames_folder("dfew", fold)

    def rows(name: str) -> Iterator[Row]:
        path = fold.root / "EmoLabel_DataSplit" / f"{name}(single-labeled)" / f"set_{fold.number}.csv"
        for where, cells in _csv_rows(path, ("video_name", "label")):
            if not cells["label"].isdecimal() or not 1 <= int(cells["label"]) <= 7:
                raise InputError(f"{where}: the label is {cells['label']!r}; expected 1 to 7.")
            yield Row(str(folder / cells["video_name"].zfill(5)), int(cells["label"]) - 1)

    return _train_and_test(rows, fold)


def _ferv39k(fold: Fold) -> Lists:
    """4_setups/All_scenes/{train,test}_All.csv: "Scene/Emotion/0001 Happy" without a header."""
    folder = _frames_folder("ferv39k", fold)
    order = label_order("ferv39k", fold.system)

    def rows(name: str) -> Iterator[Row]:
        for where, line in numbered_lines(fold.root / "4_setups" / "All_scenes" / f"{name}_All.csv"):
            clip, _, emotion = line.rpartition(" ")
            yield Row(str(folder / clip), _label(emotion, order, where))

    return _train_and_test(rows, fold)


def _mafw(fold: Fold) -> Lists:
    """split/single/no_caption/set_K/{train,test}.txt: "00025.mp4 anger"."""
    folder = _frames_folder("mafw", fold)
    order = label_order("mafw", fold.system)
    splits = fold.root / "split" / "single" / "no_caption" / f"set_{fold.number}"

    def rows(name: str) -> Iterator[Row]:
        for where, line in numbered_lines(splits / f"{name}.txt"):
            clip, _, emotion = line.rpartition(" ")
            number = clip.partition(".")[0]
            if fold.system == "hicmae" and not fold.all_clips and number in MAFW_WITHOUT_SOUND:
                continue
            sound = _sound_of(fold, number) if fold.system == "hicmae" else None
            yield Row(str(folder / number), _label(emotion, order, where), sound)

    return _train_and_test(rows, fold)


def _crema_d(fold: Fold) -> Lists:
    """Videos, or folders of face frames, with names such as 1001_DFA_ANG_XX."""
    left_out = () if fold.all_clips or fold.system == "mae_dfer" else CREMA_D_WITHOUT_SOUND
    if fold.system == "hicmae" and fold.sounds is None:
        raise InputError(
            "Lists of HiCMAE name the sound of each clip; give --sounds DIR, the folder with the wav files."
        )
    sounds = fold.sounds if fold.system == "hicmae" else None
    parts = {"train": "training", "test": "testing"}
    return {
        name: read_crema_d(
            fold.frames or fold.root, fold=fold.number, subset=part, sounds=sounds, without_sound=left_out
        )
        for name, part in parts.items()
    }


ENTERFACE = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
ENTERFACE_FOLDS = ((1, 2, 3, 4, 5, 7, 8, 9, 10), range(11, 20), range(20, 29), range(29, 38), range(38, 45))


def _enterface(fold: Fold) -> Lists:
    """subject_k/emotion/sentence_j/clip/*.jpg: the layout of MAE-DFER's aligned faces."""
    assert fold.number is not None
    testing = set(ENTERFACE_FOLDS[fold.number - 1])
    lists: Lists = {"train": [], "test": []}
    root = fold.frames or fold.root
    for clip in _frame_folders(root):
        parts = clip.relative_to(root).parts
        subject = re.fullmatch(r"subject[ _](\d+)", parts[0])
        if len(parts) < 3 or subject is None:
            raise InputError(f"{clip}: expected subject_K/EMOTION/SENTENCE/CLIP below {root}.")
        label = _label(parts[1], ENTERFACE, str(clip))
        lists["test" if int(subject[1]) in testing else "train"].append(Row(str(clip), label))
    return lists


RAVDESS_ACTORS = 24
PUBLISHED_SPLIT: dict[str, tuple[int, ...]] = {
    "testing": (5, 10, 16, 19),
    "validation": (11, 13, 18, 22),
}  # of av_fusion's weights


def ravdess_split(fold: int | None) -> dict[str, tuple[int, ...]]:
    """Return the actors for testing and validation.

    Args:
        fold: None is the split of av_fusion's published weights. 1 to 6 test four actors each, 01-04 to 21-24, as
            MAE-DFER and HiCMAE do; the four actors after them are for validation, which those systems do not have.

    Returns:
        Actors by subset; the others are for training.

    Raises:
        InputError: There is no such fold.

    >>> ravdess_split(6)
    {'testing': (21, 22, 23, 24), 'validation': (1, 2, 3, 4)}
    """
    if fold is None:
        return PUBLISHED_SPLIT
    if not 1 <= fold <= 6:
        raise InputError(f"RAVDESS has the folds 1 to 6; give --fold (it is {fold}).")
    first = 4 * (fold - 1)
    testing = tuple(range(first + 1, first + 5))
    return {
        "testing": testing,
        "validation": tuple(actor % RAVDESS_ACTORS + 1 for actor in range(first + 4, first + 8)),
    }


def _ravdess(fold: Fold) -> Lists:
    """Prepared faces and sounds (av_fusion), or folders of face frames named by RAVDESS' codes."""
    split = ravdess_split(fold.number)
    if fold.system == "av_fusion":
        return {"annotations": [*_ravdess_prepared(fold, split)]}
    if fold.number is None:
        raise InputError(f"The lists of {fold.system} have six folds; give --fold 1 to 6.")
    lists: Lists = {"train": [], "test": []}
    for clip in _frame_folders(fold.frames or fold.root):
        codes = RAVDESS_NAME.match(clip.name)
        if codes is None:
            raise InputError(f"{clip} is not named as in RAVDESS (MM-VC-EE-II-SS-RR-AA).")
        if codes[1] != "02" or codes[2] != "01":  # video-only recordings of speech
            continue
        sound = _sound_of(fold, f"03{codes.group()[2:]}", clip) if fold.system == "hicmae" else None
        name = "test" if int(codes[4]) in split["testing"] else "train"
        lists[name].append(Row(str(clip), int(codes[3]) - 1, sound))
    return lists


def _ravdess_prepared(fold: Fold, split: Mapping[str, Sequence[int]]) -> Iterator[Row]:
    faces = sorted((fold.frames or fold.root).rglob("*_facecroppad.npy"))
    if not faces:
        raise InputError(
            f"There is no *_facecroppad.npy below {fold.frames or fold.root}. Write them first: dfer-zoo prepare faces "
            f"{fold.root} --rule largest --format npy --out DIR."
        )
    sounds = {path.name: path for path in sorted((fold.sounds or fold.root).rglob("*_croppad.wav"))}
    for path in faces:
        codes = RAVDESS_NAME.match(path.name)
        if codes is None:
            raise InputError(f"{path} is not named as in RAVDESS (MM-VC-EE-II-SS-RR-AA_facecroppad.npy).")
        sound = sounds.get(f"03{codes.group()[2:]}_croppad.wav")
        if sound is None:
            raise InputError(
                f"There is no sound 03{codes.group()[2:]}_croppad.wav for {path}. Write it first: dfer-zoo prepare audio "
                f"{fold.root} --rule ravdess --out DIR, and give --sounds DIR."
            )
        actor = int(codes[4])
        subset = next((name for name, actors in split.items() if actor in actors), "training")
        yield Row(str(path), int(codes[3]) - 1, str(sound), subset=subset)


def _folders(fold: Fold) -> Lists:
    """A folder per class: the clips of each class, or of each person, are split into folds with a fixed seed."""
    if not fold.number or fold.number > fold.parts:
        raise InputError(f"The clips are split into {fold.parts} folds; give --fold 1 to {fold.parts}, or --parts.")
    rows = read_class_folders(fold.root)
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        if fold.group is None:
            groups.setdefault((row.label, row.path), []).append(row)
        else:
            groups.setdefault((-1, _person(fold.group, Path(row.path).stem)), []).append(row)
    lists: Lists = {"train": [], "test": []}
    keys = sorted(groups)
    random.Random(0).shuffle(keys)
    keys.sort(key=lambda key: key[0])  # class by class, so that each is spread evenly
    for place, key in enumerate(keys):
        lists["test" if place % fold.parts == fold.number - 1 else "train"] += groups[key]
    return {name: sorted(rows, key=lambda row: row.path) for name, rows in lists.items()}


def _person(pattern: str, name: str) -> str:
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise InputError(f"--group {pattern} is not a regular expression ({error}).") from error
    if match is None:
        raise InputError(f"--group {pattern} does not match '{name}'; it must find the person in each clip's name.")
    return match[1] if match.re.groups else match[0]


# where a release has the face crops that a system reads; DFEW: MAE-DFER's have all frames, S2D's 16 frames
FRAMES: dict[tuple[str, str], str] = {
    ("dfew", ""): "Clip/clip_224x224",
    ("dfew", "mae_dfer"): "Clip/jpg_256",
    ("dfew", "s2d"): "Clip/clip_224x224_16f",
    ("ferv39k", ""): "2_ClipsforFaceCrop",
    ("mafw", ""): "data/frames",
    ("mafw", "s2d"): "data/frames/frames_crop_align_224",
}


def _frames_folder(dataset: str, fold: Fold) -> Path:
    return fold.frames or fold.root / FRAMES.get((dataset, fold.system), FRAMES[dataset, ""])


# -- helpers of the readers --------------------------------------------------------------------------------------------


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    lines = list(numbered_lines(path))
    header = [cell.strip() for cell in next(csv.reader([lines[0][1]]))] if lines else []
    if missing := [name for name in columns if name not in header]:
        raise InputError(f"{path}: no column {' or '.join(missing)}; its columns are {', '.join(header) or 'none'}.")
    for where, line in lines[1:]:
        cells = [cell.strip() for cell in next(csv.reader([line]))]
        if len(cells) != len(header):
            raise InputError(f"{where}: expected {len(header)} values, found {len(cells)}.")
        yield where, dict(zip(header, cells))


def _label(word: str, order: Sequence[str], where: str) -> int:
    name = word.strip().lower()
    name = SAME.get(name, name)
    if name not in order:
        raise InputError(f"{where}: '{word}' is not a class; expected {', '.join(order)}.{suggest(name, order)}")
    return order.index(name)


def _frame_folders(root: Path) -> list[Path]:
    """Return all folders that contain images."""
    found = sorted({path.parent for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES})
    if not found:
        raise InputError(f"There is no folder of frames below {root}.")
    return found


def _sound_of(fold: Fold, name: str, clip: Path | None = None) -> str:
    if fold.sounds is None:
        raise InputError(f"Lists of {fold.system} name the sound of each clip; give --sounds DIR.")
    places = [fold.sounds / f"{name}.wav", *([fold.sounds / clip.parent.name / f"{name}.wav"] if clip else [])]
    return str(next((place for place in places if place.is_file()), places[0]))


def _train_and_test(rows: Callable[[str], Iterable[Row]], fold: Fold) -> Lists:
    """Make both lists, with the number of frames of each clip. Clips without frames are an error, or left out."""
    counted: Lists = {}
    for name in ("train", "test"):
        found = [dataclasses.replace(row, num_frames=_count_frames(Path(row.path))) for row in rows(name)]
        missing = [row.path for row in found if not row.num_frames]
        if missing and not fold.skip_missing:
            raise InputError(
                f"{len(missing)} of {len(found)} clips of the {name} list have no frames; the first is {missing[0]}. "
                "Give --frames DIR, the folder with a folder of face frames per clip, or --skip-missing."
            )
        counted[name] = [row for row in found if row.num_frames]
    return counted


def _count_frames(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(
        1 for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


# -- formats -----------------------------------------------------------------------------------------------------------


def three_fields(rows: Iterable[Row], *, less: int = 0) -> list[str]:
    """Format lines of DFER-CLIP, MMA-DFER and DK-CLIP: "folder count label".

    Args:
        rows: The clips.
        less: Subtracted from the frame count, which is one too low in MMA-DFER's lists of MAFW.

    Returns:
        One line per clip.

    >>> three_fields([Row("faces/00001", 3, num_frames=57)])
    ['faces/00001 57 3']
    """
    return [f"{row.path} {(row.num_frames or 0) - less} {row.label}" for row in rows]


def two_fields(rows: Iterable[Row]) -> list[str]:
    """Format lines of MAE-DFER: "folder label".

    >>> two_fields([Row("faces/00001", 3)])
    ['faces/00001 3']
    """
    return [f"{row.path} {row.label}" for row in rows]


def four_fields(rows: Iterable[Row]) -> list[str]:
    """Format lines of av_fusion: "faces;sound;label;subset", labels from 1.

    >>> four_fields([Row("a.npy", 2, "a.wav", subset="testing")])
    ['a.npy;a.wav;3;testing']
    """
    return [f"{row.path};{row.audio};{row.label + 1};{row.subset}" for row in rows]


def with_header(rows: Sequence[Row], labels: Sequence[str] | None = None, root: Path | None = None) -> list[str]:
    """Format lines of S2D and of CSV lists: a header, then "path,label".

    Args:
        rows: The clips.
        labels: Write these names instead of the numbers.
        root: Paths are written relative to this folder; None writes absolute paths.

    Returns:
        The header and one line per clip.

    >>> with_header([Row("faces/00001", 1)], labels=["happy", "sad"], root=Path("faces"))
    ['path,label', '00001,sad']
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "label"))
    for row in rows:
        path = Path(row.path)
        if root is not None and path.is_relative_to(root):
            path = path.relative_to(root)
        elif root is None:
            path = Path(os.path.abspath(path))  # readers resolve relative paths from the folder of the list
        writer.writerow((path.as_posix(), row.label if labels is None else labels[row.label]))
    return text.getvalue().splitlines()


def lines_of(dataset: str, fold: Fold, rows: Sequence[Row]) -> list[str]:
    """Format the lines of a list for the system."""
    if dataset == "folders":
        return with_header(rows, sorted(p.name for p in fold.root.iterdir() if p.is_dir() and p.name[0] != "."))
    if fold.system == "s2d":
        return with_header(rows, root=_frames_folder(dataset, fold))
    if fold.system == "av_fusion":
        return four_fields(rows)
    if fold.system == "hicmae":
        return list_lines(rows)
    if fold.system == "mae_dfer":
        return two_fields(rows)
    return three_fields(rows, less=dataset == "mafw" and fold.system == "mma_dfer")


@dataclass(frozen=True)
class Dataset:
    """A data set whose lists can be written."""

    name: str
    read: Callable[[Fold], Lists]
    systems: tuple[str, ...]  # the first is the default
    folds: int | None  # 0: one official split; None: the reader checks


THREE = ("mma_dfer", "dfer_clip", "dk_clip")
DATASETS: dict[str, Dataset] = {
    "ravdess": Dataset("RAVDESS", _ravdess, ("av_fusion", "mae_dfer", "hicmae"), None),
    "dfew": Dataset("DFEW", _dfew, (*THREE, "mae_dfer", "s2d"), 5),
    "mafw": Dataset("MAFW", _mafw, (*THREE, "mae_dfer", "hicmae", "s2d"), 5),
    "ferv39k": Dataset("FERV39k", _ferv39k, ("dfer_clip", "dk_clip", "mae_dfer", "s2d"), 0),
    "crema_d": Dataset("CREMA-D", _crema_d, ("hicmae", "mae_dfer"), 5),
    "enterface": Dataset("eNTERFACE05", _enterface, ("mae_dfer",), 5),
    "folders": Dataset("a folder per class", _folders, ("own",), None),
}


def write_lists(dataset: str, fold: Fold, out: str | Path) -> dict[Path, int]:
    """Write the lists of a fold.

    Args:
        dataset: A key of `DATASETS`.
        fold: The fold, and where the files are.
        out: The folder to write to: train.csv and test.csv (.txt for three fields), or annotations.txt.

    Returns:
        The number of clips in each file.

    Raises:
        InputError: The data set or its files are missing, or the folder cannot be written.

    >>> write_lists("dfew", Fold(Path("DFEW"), 1, "mae_dfer"), "lists/fold1")  # doctest: +SKIP
    """
    if dataset not in DATASETS:
        raise InputError(f"There is no data set '{dataset}'.{suggest(dataset, DATASETS)}")
    suffix = "txt" if fold.system in (*THREE, "av_fusion") else "csv"
    written = {}
    for name, rows in read_fold(dataset, fold).items():
        if not rows:
            raise InputError(f"{fold.root}: the {name} list of fold {fold.number} would be empty.")
        path = Path(out) / f"{name}.{suffix}"
        try:
            write_atomically(path, ("\n".join(lines_of(dataset, fold, rows)) + "\n").encode())
        except OSError as error:
            raise InputError(f"--out {out}: {path.name} cannot be written ({error.strerror}).") from error
        written[path] = len(rows)
    return written
