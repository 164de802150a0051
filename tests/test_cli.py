"""The command line: exit codes, messages, imports."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dfer_zoo import cli
from dfer_zoo.errors import MediaError
from dfer_zoo.inference.evaluate import Evaluation
from dfer_zoo.registry import MODELS, get_weights
from tests.media_files import ffmpeg

HEAVY = ("torch", "timm", "open_clip", "torchvision", "torchaudio", "av", "cv2", "numpy")


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a new interpreter has imported after running this code."""
    script = f"{code}\nimport sys; print('|' + ' '.join(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("|")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import dfer_zoo; dfer_zoo.list_models(); dfer_zoo.list_pretrained()",
        "from dfer_zoo.cli import main; assert main(['list']) == 0",
        "from dfer_zoo.cli import main; assert main(['info', 'mma_dfer']) == 0",
        "from dfer_zoo.cli import main; assert main(['--help']) == 0",
    ],
)
def test_listing_models_imports_no_heavy_package(code):
    assert loaded_after(code) == set()


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "dfer_zoo", "list"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and all(name in done.stdout for name in MODELS)


@pytest.mark.parametrize("arch", ["mma_dfer", "dfer_clip"])
def test_info_points_to_the_fold_with_the_mean_over_folds(arch, capsys):
    assert cli.main(["info", f"{arch}.mafw_fold3"]) == 0
    assert f"{arch}.mafw_fold1" in capsys.readouterr().out


def test_an_unknown_name_prints_one_line_and_exits_with_2(capsys):
    assert cli.main(["info", "mma_dfr"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "mma_dfer" in err


def test_wrong_usage_exits_with_2(capsys):
    assert cli.main([]) == 2
    assert cli.main(["frobnicate"]) == 2
    assert "invalid choice: 'frobnicate'" in capsys.readouterr().err


def test_list_prints_one_json_object_per_line(capsys):
    assert cli.main(["list", "*clip*", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["model"] for row in rows] == ["dfer_clip", "dk_clip"]


def test_a_pattern_without_a_match_is_an_error(capsys):
    assert cli.main(["list", "no such*"]) == 2
    assert "'no such*'" in capsys.readouterr().err


def test_dfer_zoo_errors_print_no_traceback(capsys, monkeypatch):
    def run(options):
        raise MediaError("clip.mp4: no frames.")

    monkeypatch.setitem(cli.COMMANDS, "list", cli.common.Command("", cli.weights.list_options, run))
    assert cli.main(["list"]) == 2
    assert capsys.readouterr().err == "dfer-zoo list: clip.mp4: no frames.\n"


def test_every_command_has_help(capsys):
    for name in cli.COMMANDS:
        assert cli.main([name, "--help"]) == 0
        assert name in capsys.readouterr().out


# -- predict -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with small saved weights, a folder of frames, a video, and a broken video."""
    from PIL import Image

    import dfer_zoo
    from tests.media_files import test_pattern
    from tests.tiny import TINY

    folder = tmp_path_factory.mktemp("predict")
    model = dfer_zoo.create_model("av_fusion", **TINY["av_fusion"])
    dfer_zoo.save_pretrained(model, folder / "weights", tag="small")
    (folder / "frames").mkdir()
    for number, frame in enumerate(np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)):
        Image.fromarray(frame).save(folder / "frames" / f"{number}.png")
    pytest.importorskip("av")
    test_pattern(folder / "talk.mp4", "-c:v", "libx264", "-c:a", "aac", seconds=3, size="64x64")
    (folder / "bad.mp4").write_text("no video")
    return folder


def predict(place, *arguments):
    return cli.main(["predict", "--model", f"local-dir:{place / 'weights'}", "--faces", "none", *map(str, arguments)])


def test_predict_prints_one_line_per_file(place, capsys):
    assert predict(place, place / "frames") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{place / 'frames'}: ") and out.count(" %") == 3
    assert "without audio" in out and err == ""


def test_predict_prints_a_timeline_for_windows(place, capsys):
    assert predict(place, place / "talk.mp4", "--window", 2, "--stride", 0.5) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["FROM", "0.00", "0.50", "1.00"]


def test_predict_writes_json_lines_and_continues_after_a_bad_file(place, tmp_path, capsys):
    files = [place / "frames", place / "bad.mp4", place / "talk.mp4"]
    assert predict(place, *files, "--json", tmp_path / "out.jsonl") == 1
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [str(f) for f in files]
    assert "cannot be decoded" in rows[1]["error"] and rows[0]["missing"] == ["audio"]
    assert rows[2]["label"] == max(rows[2]["probabilities"], key=rows[2]["probabilities"].get)
    assert rows[2]["models"][0]["weights"] == "small"
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and "bad.mp4" in err and out.count(": ") >= 2
    assert predict(place, place / "talk.mp4", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["label"] == rows[2]["label"]


def test_predict_stops_at_the_first_bad_file_on_request(place, capsys):
    assert predict(place, place / "bad.mp4", place / "frames", "--fail-fast") == 1
    assert capsys.readouterr().out == ""


def test_predict_draws_a_plot_for_every_file(place, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert predict(place, place / "talk.mp4", "--plot", tmp_path / "one.png") == 0
    assert predict(place, place / "talk.mp4", place / "frames", "--plot", tmp_path / "many.png") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many.frames.png", "many.talk.mp4.png", "one.png"]


def test_plots_of_files_with_the_same_name_are_numbered():
    paths = cli.predict._plot_paths("out/p", ["a/c.mp4", "b/c.mp4", "b/d.mp4"])
    assert [str(path) for path in paths] == ["out/p.c.mp4.png", "out/p.c.mp4.2.png", "out/p.d.mp4.png"]


def test_predict_counts_the_windows_without_sound(place, capsys):
    ffmpeg("-i", place / "talk.mp4", "-af", "atrim=0:1", "-c:v", "copy", place / "short_sound.mp4")
    assert predict(place, place / "short_sound.mp4", "--window", 1, "--stride", 1) == 0
    assert "without audio in 2 of 3 windows" in capsys.readouterr().out


def test_os_errors_are_one_line_errors(place, capsys, monkeypatch, tmp_path):
    assert predict(place, "n" * 300) == 1
    assert "cannot be accessed" in capsys.readouterr().err

    def locked(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("os.listdir", locked)
        assert predict(place, place / "frames") == 1
    assert "(Permission denied)" in capsys.readouterr().err
    (tmp_path / "taken").write_text("a file")
    assert cli.main(["demo", "--out", str(tmp_path / "taken")]) == 2
    assert "taken" in capsys.readouterr().err
    assert cli.main(["demo", "--seed", "-1", "--out", str(tmp_path / "demo")]) == 2
    assert "--seed is -1" in capsys.readouterr().err


def test_a_full_disk_is_a_one_line_error(place, tmp_path, capsys):
    resource = pytest.importorskip("resource")  # files that may not grow are as good as a full disk

    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))

    full()
    try:
        status = predict(place, place / "frames", "--json", tmp_path / "out.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2 and "(File too large)" in capsys.readouterr().err
    command = [sys.executable, "-m", "dfer_zoo", "list"]
    with open(tmp_path / "out.txt", "w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, preexec_fn=full)
    assert (done.returncode, done.stderr) == (2, "dfer-zoo list: [Errno 27] File too large\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", "-1"), "window is -1"),
        (("--device", "toaster"), "device 'toaster'"),
        (("--device", "meta"), "device 'meta'"),
        (("--fps", "0"), "fps is 0"),
        (("--faces", "nan,0,1,1"), "not finite"),
        (("--pretrained", "no_such_tag"), "names the weights"),
        (("--faces", "1,2,3,x"), "expected a detector's name"),
        (("--json", "no/such/folder/out.jsonl"), "cannot be written"),
        (("--dtype", "int8"), "invalid choice"),
    ],
)
def test_predict_with_a_wrong_option_prints_one_line_and_exits_with_2(place, capsys, arguments, message):
    assert predict(place, place / "frames", *arguments) == 2
    out, err = capsys.readouterr()
    assert message in err and "Traceback" not in err and out == ""


def test_predict_needs_weights(place, capsys):
    assert cli.main(["predict", "--model", "av_fusion", str(place / "frames")]) == 2
    assert "without weights" in capsys.readouterr().err


def test_predict_takes_a_face_box(place, capsys):
    assert predict(place, place / "frames", "--faces", "0,0,20,20") == 0
    assert "face in" not in capsys.readouterr().out
    assert predict(place, place / "frames", "--faces", "magic") == 2
    assert "'magic'" in capsys.readouterr().err


# -- evaluate ----------------------------------------------------------------------------------------------------------


def evaluate(place, *arguments):
    return cli.main(["evaluate", f"local-dir:{place / 'weights'}", *map(str, arguments)])


def test_an_undefined_rate_is_null_in_json(monkeypatch, place, capsys):
    def never_the_first(model, rows, **_):
        return Evaluation(tuple(rows), np.eye(model.num_classes)[[1] * len(rows)])

    monkeypatch.setattr("dfer_zoo.inference.evaluate.evaluate", never_the_first)
    assert evaluate(place, "puppets:clips=1", "--json") == 0  # the one clip is of the first class
    row = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert row["uar"] is None and row["war"] == 0.0


def test_evaluate_crops_faces_on_request(place, tmp_path, capsys):
    shutil.copytree(place / "frames", tmp_path / "happy" / "1")
    assert evaluate(place, tmp_path, "--faces", "4,4,20,20", "--without", "audio") == 0


@pytest.mark.parametrize(
    ("data", "arguments", "message"),
    [
        ("puppets", ("--device", "toaster"), "device 'toaster'"),
        ("puppets:clips=1", ("--batch-size", "0"), "--batch-size is 0"),
        ("puppets", ("--root", "/data"), "has no option 'root'"),
        ("faces.txt", ("--audio", "dfew"), "has no option 'audio'"),
        ("faces.txt", (), "none.npy"),
        ("frames.txt", ("--faces", "magic", "--without", "audio"), "'magic'"),
    ],
)
def test_evaluate_with_a_wrong_option_prints_one_line_and_exits_with_2(
    place, tmp_path, capsys, data, arguments, message
):
    (tmp_path / "faces.txt").write_text("none.npy;none.wav;1;testing\n")
    (tmp_path / "frames.txt").write_text(f"{place / 'frames'} 12 0\n")
    assert evaluate(place, data if data.startswith("puppets") else tmp_path / data, *arguments) == 2
    out, err = capsys.readouterr()
    assert message in err and len(err.splitlines()) == 1 and out == ""


def test_published_rates_are_found_per_fold_and_as_a_mean():
    from dfer_zoo.cli.evaluate import _published, _published_recalls
    from dfer_zoo.inference import metrics

    records = [get_weights(f"mae_dfer.dfew_fold{fold}") for fold in range(1, 6)]
    each, mean = _published(records)
    assert each[0] == {"uar": 62.59, "war": 74.88} and mean == {"uar": 63.41, "war": 74.43}
    recalls = _published_recalls(records)
    assert np.mean([*recalls.values()]) == pytest.approx(63.41, abs=0.006) and list(recalls) == list(records[0].labels)
    each, mean = _published([get_weights(f"mma_dfer.mafw_fold{fold}") for fold in range(1, 6)])
    assert not any(each) and mean == {"uar": 44.11, "war": 58.52}
    tables = [np.eye(7, dtype=int)] * 2
    text = metrics.folds_table([1, 2], tables, {"uar": 63.41}, [{"uar": 62.59, "war": 74.88}, {}])
    assert text.splitlines()[1].endswith("62.59   74.88") and text.splitlines()[2].endswith("-       -")


def test_evaluate_reports_each_fold_their_mean_and_the_pooled_rates(place, tmp_path, capsys):
    for fold in (1, 2):
        (tmp_path / f"w{fold}").symlink_to(place / "weights")
    name = f"local-dir:{tmp_path}/w{{fold}}"
    arguments = ["evaluate", name, "puppets:clips=6,seed={fold}", "--folds", "1-2"]
    assert cli.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tables = [np.array(row["confusion"]) for row in found["folds"]]
    assert [table.sum() for table in tables] == [6, 6]
    for number, table in enumerate(tables, 1):
        assert (
            cli.main(["evaluate", f"local-dir:{tmp_path}/w{number}", f"puppets:clips=6,seed={number}", "--json"]) == 0
        )
        assert json.loads(capsys.readouterr().out)["confusion"] == table.tolist()
    assert cli.main([*arguments, "--plot", str(tmp_path / "table.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2", "mean", "pooled"] and lines[4].split()[-1] == "12"
    assert (tmp_path / "table.png").stat().st_size > 1000
    assert lines[6].split() == ["recall", "mean", "pooled"]
    assert cli.main([*arguments, "--csv", str(tmp_path / "rates.csv")]) == 0
    rates = (tmp_path / "rates.csv").read_text().splitlines()
    assert rates[0].startswith("fold,uar,war,clips,recall ")
    assert [line.split(",")[0] for line in rates[1:]] == ["1", "2", "mean", "pooled"]
    assert float(rates[4].split(",")[2]) == pytest.approx(found["over_folds"]["pooled_war"], abs=1e-4)
    capsys.readouterr()
    assert cli.main(["evaluate", name, "puppets:clips=6", "--folds", "1-2"]) == 2
    assert "{fold}" in capsys.readouterr().err
