"""Write a video with face boxes, labels and probability bars; the sound is kept.

>>> answer = Recognizer("mma_dfer", "dfew_fold1")("interview.mp4")                       # doctest: +SKIP
>>> write_overlay("interview.mp4", answer, "interview.overlay.mp4")                     # doctest: +SKIP
"""

from __future__ import annotations

import collections
import functools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..atomic import atomic_path
from ..errors import InputError, MediaError
from ..media.clip import Clip, Span, in_order
from ..media.container import open_container
from ..media.faces.people import second_of
from ..media.faces.track import smooth_track
from ..media.files import SoundFile, read_clip
from ..media.images import IMAGE_SUFFIXES
from ..media.video import VideoFile, video_stream
from ..media.write import Soundtrack, write_video
from .inputs import Item
from .plots import COLORS, label_colors, readable_on
from .prediction import Prediction, Window
from .sources import local

SMALLEST = 360  # pixels of the shorter side; smaller videos are enlarged, so that text is readable
REACH = 1.0  # seconds; a box is drawn in frames up to this far from its detection
COVERED = 0.05  # of the face area; if the bars would cover more, they are drawn next to the picture
FEWEST_ROWS = 3  # minimum number of bars per person if space is limited
BESIDE = "beside"
PICTURES = (".png", ".jpg", ".jpeg")
PANEL, TEXT, FAINT, TROUGH = (16, 18, 22, 190), "#FFFFFF", "#B8BEC6", "#3A3F47"


def write_overlay(source: Any, prediction: Prediction, target: str | Path, **reading: Any) -> Path:
    """Write a video with the prediction drawn into it.

    Each frame shows the face box with its label, and one bar per label with the probability of the nearest window.
    Several people have numbers and colors. Frame times and sound are kept. Videos with a shorter side below 360 pixels
    are enlarged.

    Args:
        source: The clip: a file, a folder of frames, an array, a `Clip`, bytes or an open file.
        prediction: Its prediction. If it has several `people`, all are drawn.
        target: An `.mp4` file; for a single image `.png` or `.jpg`. An existing file is replaced.
        **reading: Options of `read_clip`, such as fps for a folder of frames.

    Returns:
        The path of the file. It is written atomically.

    Raises:
        InputError: The suffix is not supported, or the frame rate is unknown.
        MediaError: There are no frames, or the video cannot be written.

    >>> import tempfile
    >>> clip = Clip.from_arrays(np.zeros((10, 90, 120, 3), np.uint8), fps=10)
    >>> window = Window(0.0, 1.0, (0.9, 0.1))
    >>> answer = Prediction("clip", ("happy", "sad"), (0.9, 0.1), (window,), (), track=((0.0, (20, 20, 60, 60)),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read_clip(write_overlay(clip, answer, f"{folder}/a.mp4")).take([0])[0].shape
    (360, 480, 3)
    """
    target = Path(target)
    with local(source) as (here, _):
        clip = here if isinstance(here, Clip) else read_clip(here, stream=True, **reading)
        if clip.frames is None:
            raise MediaError(f"{clip.source}: there are no frames in this clip, so nothing can be drawn.")
        if len(clip.frames) == 1 and target.suffix.lower() in PICTURES:
            return _write_picture(clip, prediction, target)
        if target.suffix.lower() != ".mp4":
            raise InputError(f"{target}: expected a file name with .mp4, or .png for a single image.")
        if clip.fps is None and clip.times is None:
            raise InputError(
                f"{clip.source}: a video has a frame rate, and that of these frames is not known. Give fps."
            )
        if target.exists() and os.path.exists(clip.source) and target.samefile(clip.source):
            raise InputError(f"{target} is the clip itself; name another file.")
        times = [second_of(clip, number) for number in range(len(clip.frames))]
        return write_video(
            target,
            drawn_frames(clip, prediction),
            times,
            fps=clip.fps or len(times) / max(times[-1], 1e-3),
            sound=_soundtrack(clip),
            pixel_aspect=_pixel_aspect(clip),
        )


def overlay_paths(items: Sequence[Item], where: str | Path) -> list[Path]:
    """Return the overlay path of each clip. Equal lists give equal paths, so a run can be resumed.

    Args:
        items: All clips of a run.
        where: "beside" for NAME.overlay.mp4 next to each clip; a folder, which keeps the folder structure of the clips;
            or, for one clip, an `.mp4` or `.png` file.

    Returns:
        One path per clip. Clips with the same name are numbered.

    >>> items = [Item("x/a/1.mp4", "a/1.mp4"), Item("x/b/1.mp4", "b/1.mp4")]
    >>> [path.as_posix() for path in overlay_paths(items, "out")]
    ['out/a/1.overlay.mp4', 'out/b/1.overlay.mp4']
    """
    if Path(where).suffix.lower() in (".mp4", *PICTURES):
        if len(items) > 1:
            raise InputError(f"{where}: one file cannot hold the overlays of {len(items)} clips; name a folder.")
        return [Path(where)] * len(items)
    where = Path(where)
    files = [Path(item.source).absolute() if isinstance(item.source, str | os.PathLike) else None for item in items]
    root = os.path.commonpath([file.parent for file in files if file is not None] or [Path()])
    seen: collections.Counter[Path] = collections.Counter()
    paths = []
    for item, file in zip(items, files):
        if where == Path(BESIDE) and file is None:
            raise InputError(f"{item.name}: there is no place beside a clip that is not a file; name a folder.")
        name = Path(item.name).name if file is None else file.name
        suffix = ".png" if Path(name).suffix.lower() in IMAGE_SUFFIXES else ".mp4"
        stem = name if file is not None and file.is_dir() else Path(name).stem
        if file is None:
            folder = where
        else:
            folder = file.parent if where == Path(BESIDE) else where / file.parent.relative_to(root)
        path = folder / f"{stem}{item.part}.overlay{suffix}"
        seen[path] += 1
        paths.append(path if seen[path] == 1 else path.with_name(f"{stem}{item.part}.{seen[path]}.overlay{suffix}"))
    return paths


def _write_picture(clip: Clip, prediction: Prediction, target: Path) -> Path:
    (frame,) = drawn_frames(clip, prediction)
    kind = "png" if target.suffix.lower() == ".png" else "jpeg"
    try:
        with atomic_path(target) as temporary:
            Image.fromarray(frame).save(temporary, format=kind)
    except OSError as error:
        raise MediaError(f"{target}: this picture cannot be written ({error.strerror or error}).") from error
    return target


def _soundtrack(clip: Clip) -> Soundtrack | None:
    if clip.waveform is None or not clip.sample_rate:
        return None
    if not isinstance(clip.waveform, SoundFile):
        return Soundtrack(np.asarray(clip.waveform), int(clip.sample_rate), clip.sound_start)
    zero = None if clip.waveform.start is None else clip.waveform.start - clip.sound_start
    return Soundtrack(clip.waveform, int(clip.sample_rate), clip.sound_start, zero)


def _pixel_aspect(clip: Clip) -> Fraction | None:
    """Return the pixel aspect ratio, width / height; None for square pixels."""
    frames = clip.frames
    while isinstance(frames, Span):
        frames = frames.frames
    if not isinstance(frames, VideoFile):
        return None
    with open_container(frames.path) as container:
        stream = video_stream(container)
        aspect, width, height = stream.sample_aspect_ratio, stream.width, stream.height
    if not aspect or aspect == 1:
        return None
    on_its_side = frames.take([0])[0].shape[:2] == (width, height) and width != height
    return 1 / aspect if on_its_side else aspect


# -- drawing -----------------------------------------------------------------------------------------------------------


def drawn_frames(clip: Clip, prediction: Prediction) -> Iterator[np.ndarray]:
    """Yield the frames of a clip with the prediction drawn into them.

    Args:
        clip: A clip of whole frames.
        prediction: Its prediction.

    Yields:
        RGB frames (H, W, 3) uint8 of equal size.
    """
    assert clip.frames is not None
    count = len(clip.frames)
    times = np.array([second_of(clip, number) for number in range(count)])
    drawing: _Drawing | None = None
    for number, frame in enumerate(in_order(clip.frames, range(count))):
        drawing = drawing or _Drawing(prediction, times, frame.shape[1], frame.shape[0])
        yield drawing.draw(frame, number)


@dataclass(frozen=True)
class _Person:
    """The drawn elements of one person in every frame.

    Attributes:
        answer: The prediction.
        name: The number in the picture; empty for a single person.
        color: The color of the box; None for the color of the label.
        boxes: (frames, 4); NaN where there is no face.
        windows: The index of the nearest window of every frame; -1 if there is none.
    """

    answer: Prediction
    name: str
    color: str | None
    boxes: np.ndarray
    windows: np.ndarray

    @classmethod
    def all_of(cls, prediction: Prediction, times: np.ndarray) -> list[_Person]:
        several = len(prediction.people) > 1
        return [
            cls(
                answer,
                str(number + 1) if several else "",
                COLORS[number % len(COLORS)] if several else None,
                _boxes(answer, times),
                _speaking(answer.windows, times),
            )
            for number, answer in enumerate(prediction.people or (prediction,))
        ]


def _boxes(answer: Prediction, times: np.ndarray) -> np.ndarray:
    """Return the face box of every frame; NaN far from every detected box."""
    if not answer.track:
        return np.full((len(times), 4), np.nan)
    seconds = np.array([second for second, _ in answer.track])
    path = [(second, np.array(box, float)) for second, box in answer.track]
    boxes = smooth_track(path, times, longest_gap=2 * REACH)
    after = np.searchsorted(seconds, times)
    before = np.abs(times - seconds[np.clip(after - 1, 0, None)])
    distance = np.minimum(before, np.abs(times - seconds[np.clip(after, None, len(seconds) - 1)]))
    boxes[distance > REACH] = np.nan
    return boxes


def _speaking(windows: Sequence[Window], times: np.ndarray) -> np.ndarray:
    """Return the index of the window that contains each time and has the nearest center; -1 without such a window."""
    starts = np.array([window.start for window in windows])
    stops = np.array([np.inf if window.stop is None else window.stop for window in windows])
    middles = np.where(np.isinf(stops), starts, (starts + stops) / 2)
    chosen = np.searchsorted((middles[:-1] + middles[1:]) / 2, times, side="right")
    inside = (times >= starts[chosen] - 0.05) & (times <= stops[chosen] + 0.05)
    return np.where(inside, chosen, -1)


class _Drawing:
    """Draws a prediction into frames, with the same layout in all of them."""

    def __init__(self, prediction: Prediction, times: np.ndarray, width: int, height: int) -> None:
        self.scale = max(1, math.ceil(SMALLEST / min(width, height)))
        self.width, self.height = width * self.scale, height * self.scale
        self.people = _Person.all_of(prediction, times)
        self.colors = label_colors(prediction.labels)
        self.size = max(11, round(min(self.width, self.height) / 32))  # font size
        self.font = ImageFont.load_default(self.size)
        self.row, self.pad = round(1.45 * self.size), max(4, self.size // 2)
        self.rows, self.shown = self._rows()
        self.panel_width = round(2 * self.pad + self._name_width() + 6 * self.size + self._text("100%") + self.size)
        self.left, self.canvas_width = self._place()
        self._panel = functools.lru_cache(maxsize=64)(self._drawn_panel)
        self._tag = functools.lru_cache(maxsize=256)(self._drawn_tag)

    def draw(self, frame: np.ndarray, number: int) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(frame))
        if picture.size != (self.width, self.height):
            picture = picture.resize((self.width, self.height), Image.Resampling.BICUBIC)
        canvas = Image.new("RGB", (self.canvas_width, self.height))
        canvas.paste(picture)
        for person in reversed(self.people):  # the most prominent one last, on top
            self._draw_person(canvas, person, number)
        for place in range(self.shown):
            if (window := int(self.people[place].windows[number])) >= 0:
                panel = self._panel(place, window)
                canvas.paste(panel, (self.left, self.pad + place * (panel.height + self.pad)), panel)
        return np.asarray(canvas)

    def _draw_person(self, canvas: Image.Image, person: _Person, number: int) -> None:
        window = int(person.windows[number])
        label, chance = _best(person.answer, window) if window >= 0 else ("", 0.0)
        color = person.color or (self.colors[label] if label else FAINT)
        box = person.boxes[number] * self.scale
        tag = self._tag(f"{person.name} {label} {chance:.0%}".strip() if label else person.name, color)
        if np.isnan(box).any():
            if not person.name and label:
                canvas.paste(tag, (0, 0))
            return
        left, top, right, bottom = (round(float(v)) for v in box)
        thick = max(2, self.size // 6)
        ImageDraw.Draw(canvas).rectangle((left, top, max(left, right), max(top, bottom)), outline=color, width=thick)
        x = max(0, min(left, self.width - tag.width))
        above = top - tag.height
        canvas.paste(tag, (x, above if above >= 0 else max(0, min(top, self.height - tag.height))))

    # -- sizes and places ----------------------------------------------------------------------------------------------

    def _text(self, text: str) -> int:
        return math.ceil(self.font.getlength(text))

    def _name_width(self) -> int:
        return max(self._text(label) for label in self.colors)

    def _rows(self) -> tuple[int, int]:
        """Return (number of bars per person, number of people with bars)."""
        room = self.height - self.pad
        for people in range(len(self.people), 0, -1):
            rows = (room // people - 3 * self.pad) // self.row - bool(self.people[0].name)
            if rows >= min(FEWEST_ROWS, len(self.colors)):
                return min(rows, len(self.colors)), people
        return 0, 0

    def _place(self) -> tuple[int, int]:
        """Return (left edge of the bars, canvas width). The bars are next to the picture if they would cover a face."""
        sides = (self.pad, self.width - self.panel_width - self.pad)
        boxes = np.concatenate([person.boxes for person in self.people]) * self.scale
        boxes = boxes[~np.isnan(boxes).any(1)]
        if len(boxes) and self.shown and sides[1] > 0:
            heights = self.shown * (self._panel_height() + self.pad)
            covered = [_covered(boxes, (left, 0, left + self.panel_width, heights)) for left in sides]
            best = int(np.argmin(covered))
            if covered[best] <= COVERED:
                return sides[best], self.width
        wide = self.panel_width + 2 * self.pad if self.shown else 0
        return self.width + self.pad, (self.width + wide) // 2 * 2

    def _panel_height(self) -> int:
        return 2 * self.pad + self.row * (self.rows + bool(self.people[0].name))

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _drawn_tag(self, text: str, color: str) -> Image.Image:
        tag = Image.new("RGB", (max(1, self._text(text)) + self.pad, self.row), color)
        ImageDraw.Draw(tag).text((self.pad // 2, self.row / 2), text, readable_on(color), self.font, anchor="lm")
        return tag

    def _drawn_panel(self, place: int, window: int) -> Image.Image:
        """Draw the probabilities of a person in a window as bars."""
        person = self.people[place]
        panel = Image.new("RGBA", (self.panel_width, self._panel_height()), PANEL)
        draw = ImageDraw.Draw(panel)
        y = self.pad
        if person.name:
            draw.rectangle((0, 0, self.pad // 2, panel.height), fill=person.color)
            draw.text((self.pad, y + self.row / 2), f"person {person.name}", TEXT, self.font, anchor="lm")
            y += self.row
        best, _ = _best(person.answer, window)
        chances = dict(zip(person.answer.labels, person.answer.windows[window].probabilities))
        for label in self._labels(person.answer):
            self._draw_bar(draw, y, label, chances[label], TEXT if label == best else FAINT)
            y += self.row
        return panel

    def _draw_bar(self, draw: ImageDraw.ImageDraw, y: int, label: str, chance: float, color: str) -> None:
        middle, left = y + self.row / 2, self.pad + self._name_width() + self.size // 2
        half, length = self.size * 0.36, 6 * self.size
        draw.text((left - self.size // 2, middle), label, color, self.font, anchor="rm")
        draw.rectangle((left, middle - half, left + length, middle + half), fill=TROUGH)
        draw.rectangle((left, middle - half, left + max(1, chance * length), middle + half), fill=self.colors[label])
        draw.text((self.panel_width - self.pad, middle), f"{chance:.0%}", color, self.font, anchor="rm")

    def _labels(self, answer: Prediction) -> list[str]:
        """Return the labels with a bar, in the order of the model: all, or the most probable ones of the clip."""
        chosen = {label for label, _ in answer.top(self.rows)}
        return [label for label in answer.labels if label in chosen]


def _best(answer: Prediction, window: int) -> tuple[str, float]:
    chances = answer.windows[window].probabilities
    chance = max(chances)
    return answer.labels[chances.index(chance)], chance


def _covered(boxes: np.ndarray, area: tuple[float, float, float, float]) -> float:
    """Return the share of the area of the boxes that lies in ``area``."""
    inside = np.minimum(boxes[:, 2:], area[2:]) - np.maximum(boxes[:, :2], area[:2])
    return float(inside.clip(0).prod(1).sum() / max((boxes[:, 2:] - boxes[:, :2]).prod(1).sum(), 1e-9))
