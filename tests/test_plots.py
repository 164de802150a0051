"""The plot of a prediction: emotions keep their color, no text is cut off, and there is a dark theme."""

import dataclasses

import numpy as np
import pytest

from dfer_zoo.errors import InputError
from dfer_zoo.inference.prediction import Prediction, Window
from dfer_zoo.registry import get_weights, list_pretrained

plots = pytest.importorskip("dfer_zoo.inference.plots")
Text = pytest.importorskip("matplotlib.text").Text

LABELS = ("happy", "sad", "mine")
TIMES = Prediction(
    source="clip.mp4",
    labels=LABELS,
    probabilities=(0.5, 0.4, 0.1),
    windows=(
        Window(0.0, 4.0, (0.9, 0.05, 0.05)),
        Window(2.0, 6.0, (0.1, 0.85, 0.05)),
        Window(4.0, 8.0, (0.1, 0.88, 0.02)),
    ),
    models=(),
)


def test_an_emotion_has_the_same_color_under_every_name():
    assert plots.label_colors(["sad", "happiness"])["sad"] == plots.label_colors(["neutral", "sadness"])["sadness"]


def test_the_labels_of_every_record_get_different_colors():
    tables = {get_weights(*pair).labels for pair in list_pretrained()}
    few = [labels for labels in tables if len(labels) <= len(plots.COLORS)]
    assert len(few) > 5
    for labels in few:
        colors = plots.label_colors(labels)
        assert len(set(colors.values())) == len(labels), colors


def test_the_band_names_the_most_probable_label_of_every_moment():
    (axes,) = plots.timeline_figure(TIMES).axes
    bands = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]
    assert bands == [(0.0, 3.0), (3.0, 8.0)]
    assert [text.get_text() for text in axes.texts] == ["happy", "sad"]


def test_a_label_that_stays_low_is_drawn_thin():
    lines = {line.get_label(): line.get_linewidth() for line in plots.timeline_figure(TIMES).axes[0].lines}
    assert lines["mine"] < lines["happy"] == lines["sad"]


@pytest.mark.parametrize("theme", plots.THEMES)
@pytest.mark.parametrize("title", [None, "a $name$ " * 40, "x" * 300])
def test_all_texts_are_inside_the_figure(theme, title):
    windows = TIMES.windows if title else TIMES.windows[:1]
    faces = tuple((second, np.zeros((96, 96, 3), np.uint8)) for second in (1.0, 2.0, 3.0))
    figure = plots.timeline_figure(dataclasses.replace(TIMES, windows=windows, thumbnails=faces), title, theme=theme)
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert len(texts) > 5
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, text.get_text()


def test_an_unknown_theme_is_a_one_line_error():
    with pytest.raises(InputError, match=r"theme is 'pink';.*light or dark"):
        plots.timeline_figure(TIMES, theme="pink")
