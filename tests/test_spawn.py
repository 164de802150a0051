"""Start workers from scripts with and without a guard, in user pools, and in other processes."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("av")

import dfer_zoo
from dfer_zoo.data.puppets import Puppet
from dfer_zoo.errors import InputError
from dfer_zoo.media.workers import Workers

ROOT = Path(__file__).resolve().parent.parent
READ = """
import multiprocessing, sys
from dfer_zoo import Recognizer

def whole(clip):
    return clip

def answers(**options):
    recognizer = Recognizer("av_fusion", "puppets", **{"faces": "none", **options})
    return [answer.label for answer in recognizer.many(sys.argv[1:], workers=2)]
"""
GUARD = '\nif __name__ == "__main__":\n    '


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [str(Puppet(emotion, size=64).write(folder / f"{emotion}.mp4")) for emotion in ("happiness", "anger")]


@pytest.fixture(scope="module")
def labels(clips):
    recognizer = dfer_zoo.Recognizer("av_fusion", "puppets", faces="none")
    return [recognizer(clip).label for clip in clips]


def run(folder, text, clips):
    (folder / "script.py").write_text(READ + text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(folder / "script.py"), *clips]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_with_a_guard_works_however_processes_start(method, clips, labels, tmp_path):
    work = f'multiprocessing.set_start_method("{method}"); print(answers())'
    done = run(tmp_path, GUARD + work, clips)
    assert (done.stdout.strip(), done.stderr.strip()) == (str(labels), "")


def test_a_script_without_a_guard_works_too(clips, labels, tmp_path):
    """Workers do not import the script unless they need its definitions."""
    done = run(tmp_path, "\nprint(answers())", clips)
    assert (done.stdout.strip(), done.stderr.strip()) == (str(labels), "")


def test_a_script_without_a_guard_whose_functions_are_needed_is_one_sentence_and_no_storm(clips, tmp_path):
    done = run(tmp_path, "\nprint(answers(faces=whole))", clips)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("Traceback") == 1  # from the script itself
    assert (
        done.stderr.strip()
        .splitlines()[-1]
        .endswith(
            "script.py: worker processes import this script, and it starts workers when it is imported. Put what it does "
            'below `if __name__ == "__main__":`, or use workers=0.'
        )
    )


def label(recognizer, clip):
    return recognizer(clip).label


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_recognizer_is_pickled_into_another_process(method, clips, labels):
    recognizer = dfer_zoo.Recognizer("av_fusion", "puppets", faces="none")
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.starmap(label, [(recognizer, clip) for clip in clips]) == labels


@pytest.mark.parametrize("faces", ["cascade", "auto"])
def test_a_recognizer_with_a_detector_is_pickled(faces, clips):
    recognizer = dfer_zoo.Recognizer("mini_xception", "fer2013", faces=faces, no_face="frame")
    before = recognizer(clips[0])
    again = pickle.loads(pickle.dumps(recognizer))
    assert again(clips[0]).probabilities == before.probabilities
    assert recognizer(clips[0]).probabilities == before.probabilities


def test_a_recognizer_that_holds_a_function_of_no_name_is_one_sentence():
    recognizer = dfer_zoo.Recognizer("av_fusion", "puppets", faces="none", identity=lambda crop: crop.mean())
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(recognizer)
    with pytest.raises(InputError, match="can be pickled"):
        list(recognizer.many(["a.mp4"], workers=1))


def start_workers(_):
    try:
        Workers(str, 1)
    except InputError as error:
        return str(error)
    return ""


def test_a_worker_of_a_pool_does_not_start_workers():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert "Use workers=0 in it" in pool.map(start_workers, [0])[0]
