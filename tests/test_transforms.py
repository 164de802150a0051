"""Transforms, from files to tensors: the lines of the README and the Recognizer give the same logits."""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch

import dfer_zoo
from dfer_zoo import Clip, Recognizer, create_transform, read_clip
from dfer_zoo.errors import InputError, MediaError, UnknownTag
from dfer_zoo.media.faces import RULES, find
from dfer_zoo.registry import MODELS, model_class
from dfer_zoo.transforms import Plan, TrainingTransform
from dfer_zoo.transforms.train import AUGMENTATIONS, PUBLISHED, published_augmentation
from tests.media_files import test_pattern
from tests.tiny import TINY

pytest.importorskip("av")
CLASSIFIERS = sorted(arch for arch in MODELS if model_class(arch).has_classifier)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "interview.mp4"
    return test_pattern(path, "-c:v", "libx264", "-c:a", "aac", "-ar", 16000, seconds=4, size="96x64")


def moving_faces(frame):
    """Detect two faces, so that every crop rule gives another crop. They move with the content of the frame."""
    shift = int(frame.mean()) % 7
    return [(10 + shift, 8, 44 + shift, 48), (60, 20, 80, 44)]


@functools.cache
def tiny(arch):
    torch.manual_seed(0)
    return dfer_zoo.create_model(arch, **TINY[arch]).eval()


def with_record(arch, video_spec, audio_spec=None):
    """The tiny model with the preprocessing of a record, in its own sizes."""
    model = copy.copy(tiny(arch))  # the weights are shared
    own = model_class(arch)(**TINY[arch])
    if own.video_spec:
        sizes = {"num_frames": own.video_spec.num_frames, "img_size": own.video_spec.img_size}
        model.video_spec = dataclasses.replace(video_spec, **sizes)
    if own.audio_spec and audio_spec:
        sizes = {"shape": own.audio_spec.shape, "seconds": own.audio_spec.seconds}
        model.audio_spec = dataclasses.replace(audio_spec, **sizes)
    return model


@torch.no_grad()
def readme_logits(model, source):
    """The lines of the README."""
    transform = create_transform(model, faces=moving_faces)
    return model(**transform.batch([source]))[0]


def check_same_logits(model, source, rule=None):
    """The lines of the README and the Recognizer give the same logits, from crops by this rule."""
    prediction = Recognizer(model, faces=moving_faces, window=None)(source)
    logits = readme_logits(model, source)
    if len(prediction.logits[0, 0]) == 1:
        np.testing.assert_allclose(logits, prediction.logits[0, 0, 0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits.softmax(-1), prediction.probabilities, rtol=1e-4, atol=1e-6)
    if rule is not None:
        assert ("whole" if prediction.faces is None else prediction.faces["crop"]) == rule
    return prediction


def records():
    """All different ways in which the records of the manifest read a clip, except for the crop rule."""
    ways = {}
    for arch, tag in dfer_zoo.list_pretrained():
        if arch in CLASSIFIERS:
            record = dfer_zoo.get_weights(arch, tag)
            video_spec = record.video and dataclasses.replace(record.video, face_crop="aligned")
            ways.setdefault((arch, video_spec, record.audio), f"{arch}.{tag}")
    return [pytest.param(*way, id=name) for way, name in ways.items()]


@pytest.mark.parametrize("arch, video_spec, audio_spec", records())
def test_the_readme_lines_match_the_recognizer_for_every_record_and_crop_rule(arch, video_spec, audio_spec, video):
    if video_spec is None:
        check_same_logits(with_record(arch, None, audio_spec), video)
        return
    for rule in RULES:
        own = dataclasses.replace(video_spec, face_crop=rule)
        check_same_logits(with_record(arch, own, audio_spec), video, rule)


def test_every_record_is_among_them_with_a_known_crop_rule():
    tested = {param.values[0] for param in records()}
    assert tested == {arch for arch, _ in dfer_zoo.list_pretrained()} & set(CLASSIFIERS)
    specs = [dfer_zoo.get_weights(arch, tag).video for arch, tag in dfer_zoo.list_pretrained()]
    assert {spec.face_crop for spec in specs if spec} <= set(RULES)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("segments", [1, 2, 3])
def test_the_readme_lines_match_the_recognizer_for_any_number_of_views(rule, segments, video):
    own = model_class("mae_dfer")(**TINY["mae_dfer"]).video_spec
    model = with_record("mae_dfer", dataclasses.replace(own, face_crop=rule, segments=segments))
    assert check_same_logits(model, video, rule).logits.shape[2] == segments


def test_the_views_of_each_clip_of_a_batch_are_averaged(video):
    spec = dataclasses.replace(tiny("mae_dfer").video_spec, segments=2)
    model = with_record("mae_dfer", spec)
    frames = np.random.default_rng(0).integers(0, 256, (90, 40, 40, 3), dtype=np.uint8)
    batch = create_transform(model, faces="none").batch([video, frames])
    assert batch["views"].tolist() == [2, 2] and len(batch["video"]) == 4
    with torch.no_grad():
        together = model(**batch)
        alone = model(batch["video"]).softmax(-1).view(2, 2, -1).mean(1)
    assert torch.allclose(together.softmax(-1), alone, atol=1e-6)


def test_clips_with_different_numbers_of_views_share_a_batch():
    model = tiny("emo_affectnet_static")
    spec = dataclasses.replace(model.video_spec, num_frames=1, sampling="windows", rate=1)
    transform = dataclasses.replace(create_transform(model, faces="none"), video=spec)
    clips = [np.full((count, 40, 40, 3), 10 * count, np.uint8) for count in (3, 5)]
    batch = transform.batch(clips)
    assert batch["views"].tolist() == [3, 5]
    with torch.no_grad():
        answers = model(**batch)
    assert answers.shape == (2, model.num_classes)
    assert torch.allclose(answers.exp().sum(1), torch.ones(2), atol=1e-5)


def test_a_model_without_classes_gives_the_mean_embedding_of_the_views():
    model = model_class("mae_dfer")(**{**TINY["mae_dfer"], "num_classes": 0}).eval()
    batch = create_transform(model, faces="none", segments=2).batch([np.zeros((90, 40, 40, 3), np.uint8)])
    with torch.no_grad():
        assert torch.allclose(model(**batch)[0], model(batch["video"]).mean(0), atol=1e-6)


# -- reading and cropping ----------------------------------------------------------------------------------------------


def test_a_transform_takes_what_read_clip_takes(video):
    transform = create_transform(tiny("mae_dfer"), faces=moving_faces)
    assert torch.equal(transform(str(video))["video"], transform(read_clip(video))["video"])
    assert torch.equal(transform(transform.read(video))["video"], transform(video)["video"])  # cropped once
    for one in (video, str(video), read_clip(video), np.zeros((9, 40, 40, 3), np.uint8)):
        with pytest.raises(InputError, match="list of clips"):
            transform.batch(one)


def test_a_clip_that_was_cropped_by_another_rule_is_refused(video):
    model = tiny("mae_dfer")
    transform = create_transform(model, faces="none", face_crop="union_square")
    with pytest.raises(InputError, match=r"'aligned'.*'union_square'"):
        transform(find(read_clip(video), moving_faces))
    given = find(read_clip(video), (10, 10, 50, 50))  # boxes from the user follow no rule
    assert transform(given)["video"].shape[1] == 3


def test_a_clip_without_a_face_is_refused_or_used_whole(video):
    model = tiny("mae_dfer")
    with pytest.raises(MediaError, match="no face was found"):
        create_transform(model, faces=lambda frame: []).batch([video])
    whole = create_transform(model, faces=lambda frame: [], no_face="frame")(video)
    assert torch.equal(whole["video"], create_transform(model, faces="none")(video)["video"])
    with pytest.raises(InputError, match="no_face is 'cry'"):
        create_transform(model, no_face="cry")


# -- plans -------------------------------------------------------------------------------------------------------------


def test_a_plan_names_frames_and_what_is_missing():
    transform = create_transform(tiny("mae_dfer"), faces="none", segments=2)
    plan = transform.plan(Clip.from_arrays(np.zeros((100, 40, 40, 3), np.uint8)))
    assert len(plan.views) == 2 and plan.views[0][0] == 0 and not plan.missing and plan.refusal is None
    assert plan.frames == {index for view in plan.views for index in view}
    deaf = create_transform(tiny("audio_mae")).plan(Clip.from_arrays(np.zeros((9, 40, 40, 3), np.uint8)))
    assert isinstance(deaf, Plan) and deaf.missing == {"audio": "this clip has no sound"}
    assert "no sound" in deaf.refusal and deaf.views == ((),)


def test_a_window_is_planned_once(video, monkeypatch):
    from dfer_zoo.transforms import sampling

    calls, views = [], sampling.views
    monkeypatch.setattr(sampling, "views", lambda *args: calls.append(args) or views(*args))
    prediction = Recognizer(tiny("mae_dfer"), faces="none", window=2.0, stride=1.0)(video)
    assert len(calls) == len(prediction.windows) == 3


# -- by name, and for training -----------------------------------------------------------------------------------------


def test_a_transform_is_created_from_a_name_a_record_or_a_model():
    record = dfer_zoo.get_weights("mma_dfer", "mafw_fold1")
    for subject in ("mma_dfer.mafw_fold1", record):
        transform = create_transform(subject)
        assert transform.video == record.video and transform.audio == record.audio
        assert transform.face_crop == "union_square" and transform.inputs == ("video", "audio")
    with pytest.raises(UnknownTag):
        create_transform("mma_dfer.mafw_fold9")


@pytest.mark.parametrize("arch", sorted({*PUBLISHED, "dfer_clip"}))
def test_the_published_training_transform_has_the_shapes_of_the_model(arch, video):
    model = tiny(arch) if arch in TINY else dfer_zoo.create_model(arch)
    transform = create_transform(model, faces=moving_faces, is_training=True)
    assert isinstance(transform, TrainingTransform)
    batch = transform.batch([video, video])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.example_inputs(2).items()
    }


def test_the_training_transform_follows_the_data_set_of_the_weights():
    assert published_augmentation(dfer_zoo.get_weights("dfer_clip", "mafw_fold1")) == "dfer_clip_mafw"
    assert published_augmentation(tiny("dfer_clip")) == "dfer_clip_dfew"
    assert set(PUBLISHED.values()) <= AUGMENTATIONS.keys()
    with pytest.raises(InputError, match=r"mini_xception .*av_fusion"):
        create_transform("mini_xception.fer2013", is_training=True)
