"""Every command of docs/coming_from.md runs, on drawn data in the layouts of the data sets and with tiny models.

The rows are read from the page. Names of published weights are replaced by tiny models with their labels and crop rule,
and recipes train tiny models for one epoch; everything else is the command as written.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from dfer_zoo import registry
from dfer_zoo.cli import main
from dfer_zoo.cli.prepare import DATASETS
from dfer_zoo.data.lists import SYSTEMS
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.factory import create_model
from dfer_zoo.media.faces import detect
from dfer_zoo.registry import MODELS, get_weights
from dfer_zoo.saving import save_pretrained
from dfer_zoo.training.recipe import Recipe, read_recipe
from tests.drawn_data import draw_frames, draw_sound
from tests.scripts import ROOT
from tests.tiny import TINY

pytestmark = pytest.mark.train

pytest.importorskip("av")
pytest.importorskip("accelerate")
pytest.importorskip("sklearn")

PAGE = ROOT / "docs" / "coming_from.md"
LINE = re.compile(r"^\| (?P<left>.+?) \| `(?P<command>dfer-zoo .+)` \|$")
DRAWN = {"av_fusion.puppets"}  # these weights are in the package

# the options that the specifications of the authors' repositories mention
THEIR_OPTIONS = (
    "--dataset", "--checkpoint", "--fold", "--img-size", "--temporal-layers", "--workers", "--milestones",
    "sampling_rate", "nb_classes", "input_size", "short_side_size", "attn_type", "region_size",
    "classify_token_type", "target_diff_weight", "num_sample", "num_segments", "warmup_lr", "init_scale",
    "use_mean_pooling", "keep_temporal_dim", "head_activation", "share_first_third", "share_all", "no_second",
    "no_third", "contexts_number", "class_token_position", "class_specific_contexts", "temporal_layers",
    "class_names", "class_names_with_context", "class_descriptor", "load_and_tune_prompt_learner", "duration",
    "NUM_FRAMES", "NUM_DIVIDE", "NUM_CLIP", "NUM_CROP", "NUM_CLASSES", "FIX_TEXT", "PRETRAINED", "ROOT",
    "only_test", "use_cache", "use_checkpoint", "droppath", "msim_layers", "prompts_layers", "prompts_alpha",
    "--mask", "softhard", "noise", "nodropout", "fusion", "num_heads", "--no_train", "--no_val", "--test",
    "result_path", "sample_size", "ft_dfew.sh", "ft_ferv39k.sh", "ft_mafw.sh", "--ban_mixup", "--smoothing",
    "--sdl", "qs", "freq", "use_bds", "fix_lgp", "head_dropout_ratio", "prompt_type", "hidden_dim",
    "adapter_scale", "global_pool", "--depth", "--eval", "num_samples", "l1", "smooth_l1", "ccc", "pcc",
)  # fmt: skip


def sections() -> dict[str, str]:
    """{name of a table: text of its section}"""
    parts = re.split(r"^<!-- rows: (\w+) -->$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def rows() -> list[tuple[str, str]]:
    """(section, command) of every row, in page order."""
    found = []
    for name, text in sections().items():
        table = text.strip().split("\n\n")[0].splitlines()[2:]
        matches = [LINE.fullmatch(line) for line in table]
        assert all(matches), [line for line, match in zip(table, matches) if match is None]
        found += [(name, match["command"].replace(r"\|", "|")) for match in matches if match]
    return found


def test_every_repository_has_a_table_of_commands():
    assert list(sections()) == ["mma_dfer", "mae_dfer", "dfer_clip", "dk_clip", "av_fusion", "s2d", "hicmae", "own"]
    assert len(rows()) > 55


@pytest.mark.parametrize("option", THEIR_OPTIONS)
def test_the_page_mentions_every_option_of_the_authors_programs(option):
    assert re.search(rf"(?<![\w-]){re.escape(option)}(?!\w)", PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", [name for name in sections() if name != "own"])
def test_every_name_of_ours_in_the_page_exists(section):
    known = set(inspect.signature(registry.model_class(section).__init__).parameters)
    fields = {f.name: {g.name for g in dataclasses.fields(kind)} for f, kind in recipe_sections()}
    for name in re.findall(r"model\.args\.(\w+)", sections()[section]):
        assert name in known, f"{section} has no argument {name}"
    for place, name in re.findall(r"\b(model|data|train|optimizer|schedule)\.(\w+)", sections()[section]):
        if name in ("txt", "csv"):  # a file
            continue
        assert name in fields[place] or (place, name) == ("model", "set_grad_checkpointing"), f"{place}.{name}"


def recipe_sections():
    import typing

    hints = typing.get_type_hints(Recipe)
    return [(f, hints[f.name]) for f in dataclasses.fields(Recipe) if dataclasses.is_dataclass(hints[f.name])]


# -- drawn data --------------------------------------------------------------------------------------------------------

SMALL = {"size": (24, 24)}


def draw_clips(folder: Path, names, count: int = 17, digits: int = 5) -> None:
    for number, name in enumerate(names):
        draw_frames(folder / name, count, digits=digits, seed=number, **SMALL)


def draw_dfew(root: Path) -> None:
    names = [str(number) for number in range(1, 5)]
    for fold in range(1, 6):
        for name, clips in (("train", names[:2]), ("test", names[2:])):
            path = root / "EmoLabel_DataSplit" / f"{name}(single-labeled)" / f"set_{fold}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("video_name,label\n" + "".join(f"{clip},{clip}\n" for clip in clips))
    for place in ("clip_224x224", "jpg_256", "clip_224x224_16f"):
        draw_clips(root / "Clip" / place, [name.zfill(5) for name in names])
    for name in names:
        draw_sound(root / "Clip" / "raw_wav" / f"{name}.wav", 1.0)


def draw_mafw(root: Path) -> None:
    names = [f"{number:05d}" for number in range(1, 5)]
    for fold in range(1, 6):
        folder = root / "split" / "single" / "no_caption" / f"set_{fold}"
        folder.mkdir(parents=True)
        for name, clips in (("train", names[:2]), ("test", names[2:])):
            lines = (f"{clip}.mp4 {emotion}\n" for clip, emotion in zip(clips, ("anger", "disappointment")))
            (folder / f"{name}.txt").write_text("".join(lines))
    for place in ("data/frames", "data/frames/frames_crop_align_224"):
        draw_clips(root / place, names, digits=1)
    for name in names:
        draw_sound(root / "wav" / f"{name}.wav", 1.0)
    draw_films(root / "clips", ["00001"])


def draw_mfaw(root: Path) -> None:
    """MAFW as MMA-DFER prepares it."""
    names = [f"{number:05d}" for number in range(1, 5)]
    draw_clips(root / "clips_faces", names, digits=1)
    for name in names[:3]:  # the last clip has no sound
        draw_sound(root / "clips_wav" / f"{name}.wav", 1.0)


def draw_ferv39k(root: Path) -> None:
    for name, lines in (("train", ("Action/Happy/0001", "Action/Sad/0002")), ("test", ("Crisis/Fear/0003",))):
        path = root / "4_setups" / "All_scenes" / f"{name}_All.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line} {line.split('/')[1]}\n" for line in lines))
        draw_clips(root / "2_ClipsforFaceCrop", lines)


def draw_ravdess(root: Path) -> None:
    for actor in range(1, 24, 4):
        name = f"01-01-03-01-01-01-{actor:02d}"
        draw_clips(root / "faces" / f"Actor_{actor:02d}", [f"02{name[2:]}"])
        draw_sound(root / "wav" / f"03{name[2:]}.wav", 1.0)
        (root / "prepared").mkdir(exist_ok=True)
        np.save(root / "prepared" / f"{name}_facecroppad.npy", np.full((15, 24, 24, 3), actor, np.uint8))
        draw_sound(root / "prepared" / f"03{name[2:]}_croppad.wav", 3.6, rate=22050)
    draw_films(root / "videos" / "ACTOR05", ["01-01-03-01-01-01-05"])


def draw_crema_d(root: Path) -> None:
    names = [f"{actor}_DFA_{emotion}_XX" for actor in (1001, 1019, 1037, 1055, 1073) for emotion in ("ANG", "SAD")]
    draw_clips(root / "faces", names)
    for name in names:
        draw_sound(root / "AudioWAV" / f"{name}.wav", 1.0)


def draw_enterface(root: Path) -> None:
    for subject, emotion in ((1, "anger"), (11, "fear"), (20, "surprise"), (29, "anger"), (38, "sadness")):
        draw_clips(root / "faces" / f"subject_{subject}" / emotion / "sentence_1", ["clip"])


def draw_films(folder: Path, names, size: int = 32) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Puppet("happiness", size=size).write(folder / f"{name}.mp4")


def draw_own(root: Path) -> None:
    lines = ["path,label"]
    for emotion, names in (("calm", ("ann_1", "bob_1")), ("tense", ("ann_2", "bob_2"))):
        draw_films(root / "own" / emotion, names)
        lines += [f"own/{emotion}/{name}.mp4,{emotion}" for name in names]
    (root / "own.csv").write_text("\n".join(lines) + "\n")
    draw_films(root / "videos", ["happy"])


DATA = {
    "DFEW": draw_dfew,
    "MAFW": draw_mafw,
    "mfaw": draw_mfaw,
    "FERV39k": draw_ferv39k,
    "RAVDESS": draw_ravdess,
    "CREMA-D": draw_crema_d,
    "eNTERFACE": draw_enterface,
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder for the data sets, which are drawn when a row needs them."""
    root = tmp_path_factory.mktemp("drawn")
    draw_own(root)
    return root


@pytest.fixture
def place(drawn, tmp_path, monkeypatch):
    """The working directory of a row: it contains the data sets and no output of other rows."""
    for name in ("own", "own.csv", "videos"):
        (tmp_path / name).symlink_to(drawn / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detect, "find_detector", lambda faces: detect_middle)
    from dfer_zoo.media import faces

    monkeypatch.setattr(faces, "find_detector", lambda faces: detect_middle)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def detect_middle(frame):
    """A face detector for puppets."""
    height, width = frame.shape[:2]
    return np.array([[width * 0.2, height * 0.2, width * 0.8, height * 0.8]])


def need_data(words, drawn: Path, place: Path) -> None:
    words = [word for before, word in zip(["", *words], words) if before != "--out"]
    for name, draw in DATA.items():
        if any(re.search(rf"(?<![\w-]){name}\b", word) for word in words) and not (place / name).exists():
            if not (drawn / name).exists():
                draw(drawn / name)
            (place / name).symlink_to(drawn / name)


# -- tiny models -------------------------------------------------------------------------------------------------------


def tiny(name: str, place: Path) -> str:
    """Save a tiny model that replaces published weights. Returns its name."""
    arch, _, tag = name.partition(".")
    folder = place / "weights" / name
    if not folder.exists():
        torch.manual_seed(0)
        record = get_weights(name) if tag else None
        args = {k: v for k, v in TINY[arch].items() if k not in ("labels", "num_classes")}
        labels = (
            record.labels if record else ("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear")
        )
        model = create_model(arch, **({"labels": labels} if labels else {}), **args)
        if record and record.video:
            model.video_spec = dataclasses.replace(model.video_spec, face_crop=record.video.face_crop)
        save_pretrained(model, folder, tag="tiny", dataset="none")
    return f"local-dir:{folder}"


def tiny_recipe(words: list[str]) -> list[str]:
    """Options that make the model of a recipe tiny and its training short."""
    if words[1] == "puppets_demo":
        return ["--set=train.epochs=1", "--set=train.batch_size=4"]
    recipe = read_recipe(words[1], fold=1)
    changes = {"model.pretrained": '""', "train.epochs": 1, "train.batch_size": 2, "train.micro_batch": 0}
    changes |= {"train.precision": "no", "data.workers": 0}
    sizes = {k: v for k, v in TINY[recipe.model.name].items() if k not in ("labels", "num_classes")}
    for name, value in sizes.items():
        changes[f"model.args.{name}"] = toml(value)
    return [f"--set={name}={value}" for name, value in changes.items()]


def toml(value) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def need_lists(words, drawn: Path, place: Path) -> None:
    """Write the lists that a command reads; on the page an earlier row writes them."""
    for path, dataset, system in re.findall(
        rf"((?<![\w/])lists/({'|'.join(DATASETS)})_({'|'.join(SYSTEMS)})/fold(?:\d|{{fold}}))", " ".join(words)
    ):
        command = next(
            command
            for _, command in rows()
            if f"--out lists/{dataset}_{system}/fold" in command and "prepare annotations" in command
        )
        folds = [k for k in "12345" if "{fold}" in path] or [path[-1]]
        for fold in folds:
            if (place / path.replace("{fold}", fold)).exists():
                continue
            told = shlex.split(re.sub(r"--fold \S+", f"--fold {fold}", command).replace("{fold}", fold))[1:]
            told[-1] = path.replace("{fold}", fold)
            need_data(told, drawn, place)
            assert main(told) == 0


def need_files(words, place: Path) -> None:
    """Write the files that no command of the page writes: checkpoints and lists of the authors' programs."""
    from tests.parity.making import seeded_state
    from tests.parity.runner import read_case
    from tests.test_end_to_end import mae_dfer_checkpoint

    if "checkpoint-99.pth" in words:
        sizes = mae_dfer_checkpoint(place / "checkpoint-99.pth", sampling_rate=4)
        words += [word for name, value in sizes.items() for word in ("--set", f"{name}={value}")]
    if "best.pth" in words:
        case = read_case(ROOT / "tests" / "parity" / "dk_clip" / "tiny_t8_n4.json")
        config = {"DATA": {"NUM_FRAMES": 8, "NUM_DIVIDE": 4, "NUM_CLASSES": 7}}
        state = seeded_state(case["state_dict"], case["weights"]["seed"])
        torch.save({"model": state, "config": config}, place / "best.pth")
    if any("lists/theirs" in word for word in words):
        (place / "lists" / "theirs").mkdir(parents=True)
        lines = "/theirs/Clip/clip_224x224/00003 17 2\n/theirs/Clip/clip_224x224/00004 17 3\n"
        (place / "lists" / "theirs" / "DFEW_set_1_test.txt").write_text(lines)


def prepared_words(command: str, drawn: Path, place: Path) -> list[str]:
    """The words of a command, changed for the tiny models."""
    words = shlex.split(command)[1:]
    need_data(words, drawn, place)
    need_lists(words, drawn, place)
    need_files(words, place)
    if words[:2] in (["prepare", "faces"], ["prepare", "audio"], ["prepare", "frames"]):
        words += ["--workers", "0"]
    if words[0] == "train":
        words += tiny_recipe(words)
    if words[0] == "pretrain":
        if "--voxceleb2" in words:  # its crop belongs to frames of 224 pixels
            (place / "videos").unlink()
            draw_films(place / "videos", ["a", "b"], size=224)
        words += pretrain_sizes()
        if "--resume" in words:
            assert main([word for word in words if word != "--resume"]) == 0
    for number, word in enumerate(words):
        arch, _, tag = word.partition(".")
        if words[number - 1] == "--rule":
            continue
        if arch in MODELS and tag and "=" not in word and "/" not in word and word not in DRAWN:
            if "{fold}" in word:
                names = [tiny(word.replace("{fold}", str(fold)), place) for fold in range(1, 6)]
                words[number] = re.sub(r"fold1$", "fold{fold}", names[0])
            else:
                words[number] = tiny(word, place)
        if word.startswith("local-dir:weights/"):
            words[number] = tiny(word.removeprefix("local-dir:weights/"), place)
    return words


def pretrain_sizes() -> list[str]:
    return [f"--set={name}={value!r}" for name, value in TINY["mae_dfer_pretrain"].items()]


@pytest.mark.parametrize("section, command", rows(), ids=lambda text: re.sub(r"[^\w.-]+", "_", text)[:60])
def test_every_command_in_the_page_runs(section, command, drawn, place, capsys):
    words = prepared_words(command, drawn, place)
    capsys.readouterr()
    status = main(words)
    out, err = capsys.readouterr()
    assert status == 0, err
    for option in ("--out", "--csv", "--plot", "--report", "--output"):
        if option in words:
            path = Path(words[words.index(option) + 1].replace("{fold}", "1"))
            assert path.exists(), f"{option} {path} was not written"
    if words[0] == "evaluate":
        assert "UAR" in out
    if words[0] == "train":
        run = Path(words[words.index("--out") + 1])
        assert next(run.rglob("last/model.safetensors")).is_file()
        if "--folds" in words:
            assert {"folds.csv", "folds.json", "confusion.png"} <= {path.name for path in run.iterdir()}
