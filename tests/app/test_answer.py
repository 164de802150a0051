"""What the page does, without a browser."""

import csv

import pytest

pytest.importorskip("av")
pytest.importorskip("matplotlib")

from dfer_zoo.app import answer as page_answer
from dfer_zoo.demo import performance
from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.media.files import read_clip
from dfer_zoo.media.write import write_mp4
from dfer_zoo.weights.transfer import Meter, watch_downloads


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return write_mp4(performance(), tmp_path_factory.mktemp("clip") / "drawn.mp4")


def test_the_baseline_inside_the_package_is_the_first_choice():
    names = [name for _, name in page_answer.choices()]
    assert names[:2] == ["mini_xception.fer2013", "av_fusion.puppets"] and len(names) == len(set(names))
    assert "download" in dict(map(reversed, page_answer.choices()))["emo_affectnet.aff_wild2"]


def test_the_licence_is_shown_and_has_to_be_accepted(drawn, tmp_path):
    assert "Licence of the weights: **mit**" in page_answer.about("emo_affectnet.aff_wild2")
    with pytest.raises(InputError, match=r"has to be downloaded\. Its licence is mit .*tick the box"):
        page_answer.answer(drawn, "emo_affectnet.aff_wild2", tmp_path)


def test_a_clip_becomes_a_picture_a_table_and_tiers(drawn, tmp_path):
    steps = []
    done = page_answer.answer(
        drawn, "av_fusion.puppets", tmp_path, faces="none", progress=lambda share, what: steps.append(share)
    )
    (person,) = done.people
    assert person.headline.startswith(done.prediction.label) and steps == sorted(steps)
    assert set(person.pictures) == {(t, s) for t in ("light", "dark") for s in ("wide", "narrow")}
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in person.pictures.values())
    with done.table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(person.rows) == len(done.prediction.windows) and rows[0]["file"] == "drawn.mp4"
    assert done.tiers is not None and "ANNOTATION_DOCUMENT" in done.tiers.read_text()


def test_the_answer_is_drawn_into_the_video(drawn, tmp_path):
    done = page_answer.answer(drawn, "mini_xception.fer2013", tmp_path)
    video = read_clip(page_answer.overlay(drawn, done, tmp_path))
    assert video.num_frames == read_clip(drawn).num_frames and video.waveform is not None


def test_faults_are_sentences(tmp_path):
    with pytest.raises(InputError, match="There is no clip yet"):
        page_answer.answer(None, "mini_xception.fer2013", tmp_path)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    with pytest.raises(MediaError, match=r"broken\.mp4"):
        page_answer.answer(broken, "mini_xception.fer2013", tmp_path)


def test_faults_give_no_advice_for_programmers():
    from dfer_zoo.app.page import _sentence

    faceless = MediaError("/tmp/1/a.mp4: no face was found in 12 frames. no_face='frame' uses whole frames.")
    assert _sentence(faceless, "/tmp/1/a.mp4") == "a.mp4: no face was found in 12 frames."
    crop = InputError("people='all' needs weights that were trained on face crops; these were trained on 'none'.")
    assert _sentence(crop, None).startswith("*Several people* needs weights that were trained on face crops; ")


def test_downloads_can_be_watched():
    seen = []
    with watch_downloads(lambda here, total: seen.append((here, total))):
        meter = Meter("file", 100, None)
        meter.start(0, 80)
        meter.check(20)
        meter.check(80)
    meter.check(80)
    assert seen == [(20, 80), (80, 80)]
