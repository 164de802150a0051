"""CREMA-D, which is free to download, and the clips that HiCMAE's lists of CREMA-D and MAFW leave out.

A file name is the annotation: "1001_DFA_ANG_XX" means actor, sentence, emotion, intensity.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..media.files import VIDEO_SUFFIXES
from .rows import Row

CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")  # in the order of the labels
NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_[A-Z]{1,3}")

# test actors of each fold of MAE-DFER and HiCMAE
FOLDS = (range(1001, 1019), range(1019, 1037), range(1037, 1055), range(1055, 1073), range(1073, 1092))

# in MAE-DFER's lists, but without usable sound and therefore not in HiCMAE's
CREMA_D_WITHOUT_SOUND = frozenset(
    {"1040_ITH_SAD_XX", "1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX"}
)
MAFW_WITHOUT_SOUND = frozenset(
    [
        "00903",
        "03414",
        "03440",
        "03721",
        "03724",
        "03726",
        "03727",
        "03728",
        "03730",
        "03732",
        "03810",
        "03855",
        "03927",
        "03928",
        "03931",
        "09529",
    ]
)


def read_crema_d(
    folder: str | Path,
    *,
    fold: int | None = None,
    subset: str | None = None,
    sounds: str | Path | None = None,
    without_sound: Sequence[str] | frozenset[str] = CREMA_D_WITHOUT_SOUND,
) -> list[Row]:
    """List the clips of CREMA-D below a folder, sorted by name.

    Args:
        folder: The folder with the videos (``VideoFlash/1001_DFA_ANG_XX.flv``), or with a folder of face frames per clip,
            at any depth.
        fold: 1 to 5. Rows of test actors have the subset "testing", all others "training"; there is no validation set.
            Without a fold, rows have no subset.
        subset: Keep only the rows of "training" or "testing"; requires a fold.
        sounds: The folder with ``1001_DFA_ANG_XX.wav`` (CREMA-D's ``AudioWAV``). By default the sound is in the
            videos.
        without_sound: Names of clips to leave out; by default those that HiCMAE leaves out. Pass () for all clips, as in
            MAE-DFER's lists.

    Returns:
        One row per clip; labels are indices into `CODES`.

    Raises:
        InputError: The folder holds no clip of CREMA-D, a sound is missing, or the fold does not exist.

    >>> rows = read_crema_d("CREMA-D/VideoFlash", sounds="CREMA-D/AudioWAV", fold=1)  # doctest: +SKIP
    """
    if fold is not None and fold not in range(1, len(FOLDS) + 1):
        raise InputError(f"fold is {fold!r}; CREMA-D has the folds 1 to {len(FOLDS)}.")
    if subset is not None and (subset not in ("training", "testing") or fold is None):
        raise InputError(f"subset is '{subset}'; expected 'training' or 'testing', and a fold from 1 to {len(FOLDS)}.")
    rows = []
    for path in _clips(Path(folder)):
        match = NAME.fullmatch(path.stem)
        assert match is not None
        actor, emotion = int(match[1]), match[3]
        if path.stem in without_sound:
            continue
        part = None if fold is None else "testing" if actor in FOLDS[fold - 1] else "training"
        if subset is None or part == subset:
            sound = _sound(path, sounds)
            rows.append(Row(str(path), CODES.index(emotion), sound, subset=part, order="string", upright=False))
    if not rows:
        raise InputError(
            f"There is no clip of CREMA-D in {folder}; expected videos or folders of frames with names like 1001_DFA_ANG_XX."
        )
    return rows


def _clips(folder: Path) -> list[Path]:
    """List videos and folders with the name of a clip."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected the one with CREMA-D's videos or face frames.")
    found: dict[str, Path] = {}
    for path in folder.rglob("*"):
        match = NAME.fullmatch(path.stem)
        if match is None or not (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
            continue
        if match[3] not in CODES:
            raise InputError(f"{path}: '{match[3]}' is not an emotion of CREMA-D; they are {', '.join(CODES)}.")
        if path.stem in found:
            raise InputError(f"The clip {path.stem} exists twice: {found[path.stem]} and {path}.")
        found[path.stem] = path
    return [found[name] for name in sorted(found)]


def _sound(path: Path, sounds: str | Path | None) -> str | None:
    if sounds is None:
        return None
    sound = Path(sounds) / f"{path.stem}.wav"
    if not sound.is_file():
        raise InputError(f"No such sound file: {sound}, for the clip {path}.")
    return str(sound)


def without_silent_clips(rows: Sequence[Row], names: Sequence[str] | frozenset[str] = MAFW_WITHOUT_SOUND) -> list[Row]:
    """Leave out clips without usable sound: turns MAE-DFER's lists of MAFW into HiCMAE's.

    Args:
        rows: The rows of any list; clips are identified by the name of their file or folder.
        names: Clips to leave out: `MAFW_WITHOUT_SOUND` or `CREMA_D_WITHOUT_SOUND`.

    Returns:
        The other rows, in the same order.

    >>> rows = [Row("data/frames/00902", 3), Row("data/frames/00903", 1)]
    >>> [row.path for row in without_silent_clips(rows)]
    ['data/frames/00902']
    """
    left_out = set(names)
    return [row for row in rows if PurePosixPath(row.path.replace("\\", "/")).stem not in left_out]


def list_lines(rows: Sequence[Row]) -> list[str]:
    """Format rows as lines of HiCMAE's lists: "folder wav label". `read_sound_list` reads them.

    >>> list_lines([Row("faces/1001_DFA_ANG_XX", 0, "audio/1001_DFA_ANG_XX.wav")])
    ['faces/1001_DFA_ANG_XX audio/1001_DFA_ANG_XX.wav 0']
    """
    lines = []
    for row in rows:
        if row.audio is None or any(re.search(r"\s", path) for path in (row.path, row.audio)):
            raise InputError(
                f"The clip {row.path} cannot be written to this list: it needs a sound file (found {row.audio}), and the "
                "paths must not contain spaces."
            )
        lines.append(f"{row.path} {row.audio} {row.label}")
    return lines
