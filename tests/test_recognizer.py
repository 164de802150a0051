"""The Recognizer matches the manual steps for every window, and reports what it used."""

import copy
import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dfer_zoo
from dfer_zoo import Clip, Recognizer, read_clip
from dfer_zoo.errors import DferZooError, InputError, MediaError
from dfer_zoo.inference.prediction import Prediction
from dfer_zoo.inference.samples import FrameBuffer
from dfer_zoo.inference.windows import window_times
from dfer_zoo.media.faces import find
from dfer_zoo.registry import MODELS, model_class
from dfer_zoo.transforms import collate, create_transform
from tests import small
from tests.media_files import ffmpeg, test_pattern
from tests.tiny import TINY

pytest.importorskip("av")
CLASSIFIERS = sorted(name for name in MODELS if model_class(name).has_classifier)
FRAME_BY_FRAME = [arch for arch in CLASSIFIERS if model_class(arch).frame_independent]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def video(folder):
    return test_pattern(folder / "talk.mp4", "-c:v", "libx264", "-bf", 3, "-c:a", "aac", seconds=6, size="96x64")


@pytest.fixture(scope="module")
def silent(folder, video):
    ffmpeg("-i", video, "-an", "-c", "copy", folder / "silent.mp4")
    return folder / "silent.mp4"


@torch.no_grad()
def by_hand(model, clip):
    """(views, classes)"""
    return torch.cat([model(**collate([view])) for view in create_transform(model, faces="none").views(clip)])


# -- the same numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", CLASSIFIERS)
def test_logits_match_model_transform_and_read_clip(arch, video):
    torch.manual_seed(0)
    model = dfer_zoo.create_model(arch, **TINY[arch])
    rate = model.audio_spec and model.audio_spec.sample_rate  # one of the front ends wants 16000 Hz and no other
    expected = by_hand(model, read_clip(video, sample_rate=rate))
    prediction = Recognizer(model, faces="none")(video, sample_rate=rate)
    scale = expected.abs().max().item()  # image models answer frame by frame, in other batches than by_hand
    np.testing.assert_allclose(prediction.logits[0, 0], expected.numpy(), rtol=1e-5, atol=1e-6 * max(1.0, scale))
    assert prediction.labels == model.labels
    np.testing.assert_allclose(prediction.probabilities, expected.softmax(-1).mean(0), rtol=1e-4, atol=1e-6)
    assert prediction.missing == ()


def test_every_window_matches_a_cut_clip(video):
    model = small.build()
    prediction = Recognizer(model, faces="none", window=2.0, stride=0.7)(video)
    clip = read_clip(video)
    assert [round(w.start, 3) for w in prediction.windows] == [0, 0.7, 1.4, 2.1, 2.8, 3.5, 4.0]
    for window, logits in zip(prediction.windows, prediction.logits[:, 0, 0]):
        np.testing.assert_allclose(logits, by_hand(model, clip.cut(window.start, window.stop))[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(prediction.probabilities, np.mean([w.probabilities for w in prediction.windows], axis=0))
    assert sum(prediction.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sharing_frames_between_windows_changes_no_bit(video, dtype):
    sharing, plain = small.build().to(dtype), small.build().to(dtype)
    plain.frame_independent = False
    encoded = {sharing: 0, plain: 0}
    for model in encoded:
        model.body.register_forward_hook(lambda *_, model=model: encoded.update({model: encoded[model] + 1}))
    options = {"faces": "none", "window": 2.0, "stride": 0.5, "batch_size": 1}
    shared, separate = (Recognizer(m, dtype=dtype, **options)(video) for m in (sharing, plain))
    assert len(shared.windows) == 9
    assert np.array_equal(shared.logits, separate.logits)
    assert encoded[sharing] < 0.8 * encoded[plain] == 0.8 * 9 * 4


def test_some_systems_encode_frames_one_by_one():
    assert {"av_fusion", "dfer_clip"} <= set(FRAME_BY_FRAME)


@pytest.mark.parametrize("arch", FRAME_BY_FRAME)
def test_sharing_frames_does_not_change_any_architecture(arch, video):
    torch.manual_seed(0)
    sharing = dfer_zoo.create_model(arch, **TINY[arch])
    plain = copy.deepcopy(sharing)
    plain.frame_independent = False
    options = {"faces": "none", "window": 1.5, "stride": 0.5, "batch_size": 1}
    clip = read_clip(video)
    shared, separate = (Recognizer(m, **options)(clip) for m in (sharing, plain))
    assert len(shared.windows) == 10
    np.testing.assert_allclose(shared.logits, separate.logits, rtol=1e-6, atol=1e-6)
    inputs = sharing.example_inputs(2)
    others = {name: tensor for name, tensor in inputs.items() if name not in ("video", "image")}
    frames = inputs["video"] if "video" in inputs else inputs["image"][:, None]
    with torch.no_grad():
        again = sharing.forward_frames(sharing.encode_frames(frames), **others)
        assert torch.equal(again, sharing(**inputs))


def test_probabilities_are_averaged_over_views(video, monkeypatch):
    from dfer_zoo.transforms import sampling

    def halves(num_frames, fps, spec, segment):
        part = num_frames // 2
        chosen = sampling.segment_centres(part, spec.num_frames)
        return [(segment or 0) * part + index for index in chosen]

    monkeypatch.setitem(sampling.SAMPLING_RULES, "segment_centres", halves)
    model = small.build(segments=2)
    for options in ({}, {"window": 2.0}):
        prediction = Recognizer(model, faces="none", **options)(video)
        first = prediction.windows[0]
        clip = read_clip(video) if not options else read_clip(video).cut(first.start, first.stop)
        views = create_transform(model, faces="none").views(clip)
        with torch.no_grad():
            expected = model(**collate(views))
        assert prediction.logits.shape[2:] == (2, 3)
        np.testing.assert_allclose(prediction.logits[0, 0], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(first.probabilities, expected.softmax(-1).mean(0), rtol=1e-5)


def test_probabilities_are_averaged_over_folds(video):
    folds = [small.build(seed=seed) for seed in range(3)]
    together = Recognizer(folds, faces="none", window=3.0)(video)
    alone = [Recognizer(fold, faces="none", window=3.0)(video) for fold in folds]
    np.testing.assert_allclose(together.probabilities, np.mean([a.probabilities for a in alone], axis=0), rtol=1e-6)
    assert together.logits.shape == (3, 3, 1, 3) and len(together.models) == 3


def test_batched_files_match_single_files(video, silent, folder):
    model = small.build()
    short = folder / "short.mp4"
    ffmpeg("-i", video, "-t", 1, short)
    sources = [video, silent, short, np.zeros((9, 20, 20, 3), np.uint8), video]
    for options in ({}, {"window": 1.0, "stride": 0.25}):
        sources = sources[:3] if options else sources
        recognizer = Recognizer(model, faces="none", batch_size=3, **options)
        together = list(recognizer.many(sources, progress=False))
        for source, prediction in zip(sources, together, strict=True):
            alone = recognizer(source)
            assert alone.windows[0].stop == prediction.windows[0].stop and alone.missing == prediction.missing
            np.testing.assert_allclose(alone.logits, prediction.logits, rtol=1e-5, atol=1e-6)
    assert together[1].missing == ("audio",) and together[0].missing == ()


def test_one_bad_file_does_not_stop_the_others(video, folder):
    bad = folder / "bad.mp4"
    bad.write_bytes(b"")
    recognizer = Recognizer(small.build(), faces="none", window=1.0)
    first, error, last = recognizer.many([video, bad, video], on_error="return")
    assert isinstance(error, MediaError) and "the file is empty" in str(error)
    assert first.probabilities == last.probabilities
    with pytest.raises(MediaError, match="the file is empty"):
        list(recognizer.many([video, bad, video]))


def test_a_file_that_fails_midway_does_not_affect_the_next_one(video):
    class Breaking:
        def __len__(self):
            return 60

        def take(self, indices):
            if max(indices) > 40:
                raise MediaError("it broke")
            return [np.full((16, 16, 3), i, np.uint8) for i in indices]

    recognizer = Recognizer(small.build(), faces="none", window=0.5)
    error, after = recognizer.many([Clip(Breaking(), fps=30), video], on_error="return")
    assert str(error) == "it broke"
    np.testing.assert_allclose(after.logits, recognizer(video).logits, rtol=1e-5, atol=1e-6)


# -- windows -----------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 50), st.floats(0.05, 20), st.one_of(st.none(), st.floats(0.05, 20)))
def test_windows_cover_a_clip_from_start_to_end(duration, window, stride):
    times = list(window_times(duration, window, stride))
    starts = [start for start, _ in times]
    assert starts[0] == 0 and starts == sorted(set(starts))
    assert all(0 <= start < stop <= duration + 1e-5 for start, stop in times)
    assert times[-1][1] == pytest.approx(duration, abs=2e-3)
    if len(times) > 1:
        assert all(stop - start == pytest.approx(window) for start, stop in times)
        step = window / 2 if stride is None else stride
        assert all(b - a <= step + 1e-5 for a, b in itertools.pairwise(starts))


def test_a_clip_without_a_rate_has_no_windows():
    with pytest.raises(MediaError, match="give fps"):
        Recognizer(small.build(), faces="none", window=1.0)(np.zeros((9, 20, 20, 3), np.uint8))
    whole = Recognizer(small.build(), faces="none")(np.zeros((9, 20, 20, 3), np.uint8))
    assert whole.windows[0].stop is None and json.dumps(whole.to_dict())


def test_a_frame_buffer_keeps_only_what_is_still_needed():
    frames = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    buffer = FrameBuffer(Clip.from_arrays(frames).frames, [1, 3, 5, 8])
    assert [f[0, 0, 0] for f in buffer.take([3, 1])] == [3, 1]
    buffer.release(3)
    assert [f[0, 0, 0] for f in buffer.take([5, 3])] == [5, 3]
    assert sorted(buffer._kept) == [3, 5]


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_matches_the_windows_of_the_file(video):
    model = small.build()
    clip = read_clip(video)
    recognizer = Recognizer(model, faces="none", window=2.0, stride=1.0)
    live = recognizer.stream(fps=30, sample_rate=clip.sample_rate)
    answers = []
    for number, frame in enumerate(clip.take(range(clip.num_frames))):
        sound = clip.waveform[:, number * 1470 : (number + 1) * 1470]
        if answer := live.push(frame, sound):
            answers.append(answer)
    expected = recognizer(Clip.from_arrays(clip.take(range(180)), clip.waveform[:, :264600], fps=30, sample_rate=44100))
    assert [(a.windows[0].start, a.windows[0].stop) for a in answers] == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6)]
    np.testing.assert_allclose(np.concatenate([a.logits for a in answers]), expected.logits, rtol=1e-4, atol=1e-5)
    assert len(live._memory.ring.frames) == 60 and sum(part.shape[1] for _, part in live._sound) < 88200 + 1470


def test_wrong_stream_arguments_are_errors():
    frame = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(InputError, match="window"):
        Recognizer(small.build(), faces="none", window=None).stream(fps=30)
    recognizer = Recognizer(small.build(), faces="none", window=0.1)
    with pytest.raises(InputError, match="fps is 0"):
        recognizer.stream(fps=0)
    with pytest.raises(InputError, match="sample_rate="):
        recognizer.stream(fps=30).push(frame, np.zeros((1, 100), np.float32))
    with pytest.raises(MediaError, match="uint8"):
        recognizer.stream(fps=30).push(frame.astype(float))
    with pytest.raises(MediaError, match="waveform is int16"):
        recognizer.stream(fps=30, sample_rate=16000).push(frame, np.zeros((1, 100), np.int16))
    for rate in (0, -1):
        with pytest.raises(MediaError, match=f"sample rate is {rate}"):
            recognizer.stream(fps=30, sample_rate=rate)
    live = recognizer.stream(fps=30, sample_rate=16000)
    live.push(frame, np.zeros((1, 100), np.float32))
    for other in (np.zeros((2, 100), np.float32), np.zeros((0, 100), np.float32), np.zeros((1, 1, 9), np.float32)):
        with pytest.raises(InputError, match="channels"):
            live.push(frame, other)
    assert recognizer.stream(fps=2).push(frame).label in small.LABELS


def test_a_stream_reports_windows_without_sound():
    recognizer = Recognizer(small.build(), faces="none", window=1.0, stride=1.0)
    live, frame = recognizer.stream(fps=10, sample_rate=16000), np.zeros((20, 20, 3), np.uint8)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 1600)).astype(np.float32)
    answers = [live.push(frame, noise if number < 15 else None) for number in range(30)]
    assert [answer.missing for answer in answers if answer] == [(), (), ("audio",)]


# -- faces, answers and arguments --------------------------------------------------------------------------------------


def test_a_prediction_reports_its_face_box():
    frames = np.random.default_rng(0).integers(0, 256, (20, 60, 80, 3), dtype=np.uint8)
    recognizer = Recognizer(small.build(), faces=lambda frame: [(10, 10, 40, 40)])
    prediction = recognizer(frames)
    assert prediction.faces["median_box"] == [10, 10, 40, 40] and prediction.faces["found"] == 20
    assert prediction.faces["crop"] == "aligned"
    prepared = find(read_clip(frames), (7, 7, 43, 43))
    np.testing.assert_allclose(recognizer(prepared).logits, prediction.logits, rtol=1e-5)
    with pytest.raises(MediaError, match="no face was found"):
        Recognizer(small.build(), faces=lambda frame: [])(frames)
    whole = Recognizer(small.build(), faces=lambda frame: [], no_face="frame")(frames)
    assert whole.faces["whole_frame"] is True


def test_the_crop_rule_is_that_of_the_weights():
    model = small.build()
    model.video_spec = dataclasses.replace(model.video_spec, face_crop="union_square")
    frames = np.zeros((20, 60, 80, 3), np.uint8)
    assert Recognizer(model, faces=lambda frame: [(10, 10, 40, 40)])(frames).faces["crop"] == "union_square"
    with pytest.raises(InputError, match="face crop"):
        Recognizer([model, small.build()])


def test_a_prediction_becomes_json_and_a_plot(video, tmp_path):
    prediction = Recognizer(small.build(), faces="none", window=2.0)(video)
    dataclasses.replace(prediction, source=r"a $\foo$ b.mp4").plot(tmp_path / "dollars.png")
    data = json.loads(json.dumps(prediction.to_dict()))
    assert data["label"] == prediction.label == prediction.top(1)[0][0]
    assert list(data["probabilities"]) == list(small.LABELS) and len(data["windows"]) == 5
    assert data["models"] == [{"model": "Network", "weights": None}]
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match=r"plot\.nonsense"):
        prediction.plot(tmp_path / "plot.nonsense")
    for one in (prediction, Recognizer(small.build(), faces="none")(video)):
        one.plot(tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_prediction_names_the_saved_weights(tmp_path, video):
    model = dfer_zoo.create_model("av_fusion", **TINY["av_fusion"])
    dfer_zoo.save_pretrained(model, tmp_path / "mine", tag="mine", dataset="puppets", fold=2)
    prediction = Recognizer(f"local-dir:{tmp_path / 'mine'}", faces="none")(video)
    facts = prediction.models[0]
    assert (facts["model"], facts["weights"], facts["dataset"], facts["fold"]) == ("av_fusion", "mine", "puppets", 2)


def test_an_untrained_head_is_refused(tmp_path):
    dfer_zoo.save_pretrained(dfer_zoo.create_model("av_fusion", **TINY["av_fusion"]), tmp_path)
    for options in ({"labels": ["yes", "no"]}, {"num_classes": 3}):
        with pytest.raises(InputError, match="its head is random"):
            Recognizer(f"local-dir:{tmp_path}", **options)


def test_sound_that_ends_before_the_picture_is_missing_from_the_last_windows():
    model = dfer_zoo.create_model("mma_dfer", **TINY["mma_dfer"])
    noise = np.random.default_rng(0).normal(0, 0.1, 16000 + 100).astype(np.float32)
    clip = Clip.from_arrays(np.zeros((90, 32, 32, 3), np.uint8), noise, fps=30, sample_rate=16000)
    prediction = Recognizer(model, faces="none", window=1.0, stride=1.0)(clip)
    assert len(prediction.windows) == 3 and prediction.missing == ("audio",)
    assert clip.cut(1, 2).waveform is None and clip.cut(0.9, 2).waveform.shape == (1, 1700)


@pytest.mark.parametrize("arch, rate", [("mma_dfer", 8000), ("av_fusion", None)])
def test_a_prediction_reports_the_sample_rate_if_sound_is_not_resampled(arch, rate):
    recognizer = Recognizer(dfer_zoo.create_model(arch, **TINY[arch]), faces="none")
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    frames = np.zeros((30, 64, 64, 3), np.uint8)
    data = recognizer(Clip.from_arrays(frames, noise, fps=30, sample_rate=np.int64(8000))).to_dict()
    assert json.loads(json.dumps(data))["sample_rate"] == rate
    assert recognizer(Clip.from_arrays(frames, fps=30, sample_rate=8000)).sample_rate is None


def test_windows_report_missing_inputs_and_are_skipped_without_any():
    model = dfer_zoo.create_model("audio_mae", **TINY["audio_mae"])
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    clip = Clip.from_arrays(np.zeros((90, 32, 32, 3), np.uint8), noise, fps=30, sample_rate=16000)
    prediction = Recognizer(model, faces="none", window=1.0, stride=1.0)(clip)
    assert [(w.start, w.missing) for w in prediction.windows] == [(0.0, ())] and len(prediction.logits) == 1
    both = Recognizer(small.build(), faces="none", window=1.0, stride=1.0)(clip)
    assert [w.missing for w in both.windows] == [(), ("audio",), ("audio",)] and both.missing == ("audio",)
    assert [w["missing"] for w in both.to_dict()["windows"]] == [[], ["audio"], ["audio"]]


def test_a_clip_too_short_for_any_sampled_frame_is_an_error(video):
    model = dfer_zoo.create_model("av_fusion", **TINY["av_fusion"])
    needed = next(i for i in create_transform(model, faces="none").plan(read_clip(video)).views[0] if i >= 0) + 1
    frames = np.random.default_rng(0).integers(0, 256, (needed - 1, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(MediaError, match=f"{needed - 1} frames;.* {needed}"):
        Recognizer(model, faces="none")(Clip.from_arrays(frames, fps=30))
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    heard = Recognizer(model, faces="none")(Clip.from_arrays(frames, noise, fps=30, sample_rate=16000))
    assert heard.missing == ("video",)
    with pytest.raises(MediaError, match=f"{needed - 1} frames"):
        Recognizer(model, faces="none", window=(needed - 1) / 30)(read_clip(video, audio=False))


def test_a_window_between_two_frames_shows_the_one_before():
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    prediction = Recognizer(small.build(), faces="none", window=0.5, stride=0.5)(frames, fps=1)
    assert len(prediction.windows) == 8
    pairs = prediction.logits.reshape(4, 2, 3)
    assert np.array_equal(pairs[:, 0], pairs[:, 1]) and not np.array_equal(pairs[0], pairs[1])


def test_nonfinite_logits_are_an_error_of_their_file(video):
    model = small.build()
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    recognizer = Recognizer(model, faces="none")
    with pytest.raises(DferZooError, match="not finite"):
        recognizer(video)
    (error,) = recognizer.many([video], on_error="return")
    assert isinstance(error, DferZooError) and str(video) in str(error)


def test_too_many_windows_are_an_error():
    with pytest.raises(MediaError, match="100000 windows"):
        Recognizer(small.build(), faces="none", window=1.0)(np.zeros((12, 20, 20, 3), np.uint8), fps=1e-6)


def test_wrong_arguments_are_one_line_errors():
    model = small.build()
    for arguments, options, message in [
        (("mma_dfer",), {}, "mma_dfer.*weights"),
        (([],), {}, "empty"),
        (([model, small.build(num_classes=2)],), {}, "cannot be averaged"),
        ((small.build(num_classes=0),), {}, "no classes"),
        ((model,), {"window": 0}, "window is 0"),
        ((model,), {"window": float("nan")}, "window is nan"),
        ((model,), {"stride": 1.0, "window": None}, "stride"),
        ((model,), {"window": "long"}, "seconds.*auto.*None"),
        ((None, "fer2013"), {}, "needs a model"),
        ((model,), {"batch_size": 0}, "batch_size is 0"),
        ((model,), {"device": "toaster"}, "device 'toaster'"),
        ((model,), {"device": "meta"}, "device 'meta'"),
        ((model, "dfew_fold1"), {}, "pretrained"),
        ((model,), {"num_classes": 7, "typo": 1}, "num_classes, typo"),
        ((model,), {"no_face": "foo"}, "no_face is 'foo'"),
        ((model,), {"faces": [float("nan"), 0, 1, 1]}, "not finite"),
    ]:
        with pytest.raises(InputError, match=message):
            Recognizer(*arguments, **options)
    with pytest.raises(InputError, match="on_error is 'cry'"):
        list(Recognizer(model).many([], on_error="cry"))
    with pytest.raises(InputError, match="list of sources"):
        list(Recognizer(model).many("talk.mp4"))


def test_bfloat16_gives_finite_logits(video):
    prediction = Recognizer(small.build(), dtype=torch.bfloat16, faces="none")(video)
    assert isinstance(prediction, Prediction) and np.isfinite(prediction.logits).all()


def test_a_prediction_has_a_short_repr_and_scores_by_label():
    recognizer = Recognizer(small.build(), faces="none")
    prediction = recognizer(np.zeros((9, 20, 20, 3), np.uint8))
    assert prediction.scores == dict(zip(small.LABELS, prediction.probabilities))
    assert repr(prediction).startswith(f"Prediction('arrays': {prediction.label} 0.") and len(repr(prediction)) < 100
    assert repr(recognizer) == "Recognizer(Network; 3 labels, window=auto)"
    assert prediction == recognizer(np.zeros((9, 20, 20, 3), np.uint8))


def test_four_threads_can_share_a_recognizer(video):
    from concurrent.futures import ThreadPoolExecutor

    recognizer = Recognizer(small.build(), faces=lambda frame: [(4, 4, 40, 40)], window=1.0, batch_size=3)
    clips = [np.random.default_rng(seed).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8) for seed in range(8)]
    alone = [recognizer(clip, fps=20).logits for clip in clips]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda clip: recognizer(clip, fps=20).logits, clips * 4))
    finally:
        sys.setswitchinterval(interval)
    assert all(np.array_equal(one, other) for one, other in zip(alone * 4, together))


# -- embeddings and thumbnails -----------------------------------------------------------------------------------------


def test_an_embedding_is_the_mean_of_the_features_before_the_classifier(video):
    model = small.build(segments=1)
    recognizer = Recognizer(model, faces="none", window=2.0, stride=2.0)
    found = recognizer.embed([video, video])
    clip = read_clip(video)
    transform = create_transform(model, faces="none")
    with torch.no_grad():
        parts = [model.forward_features(**transform.batch([clip.cut(s, s + 2.0)])) for s in (0.0, 2.0, 4.0)]
    assert found.shape == (2, model.num_features) and np.array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], torch.cat(parts).mean(0), rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match=r"one model.* 2"):
        Recognizer([model, small.build(seed=1)], faces="none").embed([video])
    assert recognizer.embed([]).shape == (0, model.num_features)


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_embed_writes_a_file_and_continues_after_a_bad_clip(suffix, tmp_path, capsys):
    from dfer_zoo import cli
    from dfer_zoo.data.puppets import Puppet

    good, bad, out = Puppet("happiness", size=64).write(tmp_path / "a.mp4"), tmp_path / "b.mp4", tmp_path / f"e{suffix}"
    bad.write_bytes(b"")
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
    arguments = ["embed", str(good), str(bad), "--model", "av_fusion.puppets", "--faces", "none", "--out", str(out)]
    assert cli.main(arguments) == 1
    assert "the file is empty" in capsys.readouterr().err
    expected = Recognizer("av_fusion", "puppets", faces="none", window=None).embed([good])[0]
    if suffix == ".csv":
        header, row, failed = out.read_text().splitlines()
        assert header.startswith("file,id,start,stop,weights,error,e0,e1") and row.startswith(str(good))
        assert failed.startswith(str(bad)) and "the file is empty" in failed
        found = np.array(row.split(",")[6:], np.float32)
    elif suffix == ".npz":
        with np.load(out) as data:
            assert data["source"].tolist() == [str(good)]
            found = data["embedding"][0]
    else:
        table = parquet.read_table(out).to_pydict()
        assert table["file"] == [str(good), str(bad)] and table["embedding"][1] is None
        assert table["error"][0] is None and table["weights"][0].startswith("av_fusion.puppets@")
        found = np.array(table["embedding"][0], np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert cli.main([*arguments[:-1], str(tmp_path / "e.txt")]) == 2
    assert ".csv, .jsonl, .parquet, .npz" in capsys.readouterr().err


def test_thumbnails_are_the_cropped_faces(video, tmp_path):
    pytest.importorskip("matplotlib")
    recognizer = Recognizer(small.build(), faces=(8, 8, 40, 40), window=2.0, thumbnails=5)
    prediction = recognizer(video)
    seconds = [second for second, _ in prediction.thumbnails]
    assert 5 <= len(seconds) <= 6 and seconds == sorted(seconds) and seconds[0] >= 0 and seconds[-1] <= 6
    assert all(face.shape == (96, 96, 3) for _, face in prediction.thumbnails)
    faces, lines = prediction.plot(tmp_path / "plot.png").axes
    assert faces.images and [line.get_label() for line in lines.lines]
    assert Recognizer(small.build(), faces="none")(video).thumbnails == ()


# -- long files --------------------------------------------------------------------------------------------------------

MEMORY = """
import resource, sys
import torch
torch.set_num_threads(1)
from tests import small
from dfer_zoo import Recognizer
answer = Recognizer(small.build(), faces=lambda frame: [(4, 4, 40, 40)], window=2.0)(sys.argv[1])
print(len(answer.windows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_long_file_needs_no_more_memory_than_a_short_one(folder):
    used = {}
    for minutes in (1, 20):
        path = folder / f"{minutes}_minutes.mp4"
        fast = ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", "-ac", 2)
        test_pattern(path, *fast, seconds=60 * minutes, rate=10, size="64x48")
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(path)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=Path(__file__).parent.parent,
        )
        assert done.returncode == 0, done.stderr
        windows, used[minutes] = map(int, done.stdout.split())
        assert windows == 60 * minutes - 1
    assert used[20] < 1.1 * used[1]


@pytest.mark.parametrize("method", ["__call__", "many", "embed"])
def test_unknown_reading_options_are_named(method, video):
    recognizer = Recognizer("av_fusion.puppets", faces="none")
    with pytest.raises(InputError, match="no option 'frame_rate' for reading a clip"):
        list(getattr(recognizer, method)([video] if method != "__call__" else video, frame_rate=25))


def test_many_files_on_a_cpu_take_the_same_forward_passes_as_one_by_one(video, silent):
    """By default: larger batches are slower on a CPU."""
    model = small.build()
    recognizer = Recognizer(model, faces="none", window=None)
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    together = [answer.probabilities for answer in recognizer.many([video, silent], progress=False)]
    in_many = len(passes)
    assert recognizer.batch_size == 1 and together == [recognizer(file).probabilities for file in (video, silent)]
    assert in_many == len(passes) - in_many == 2
