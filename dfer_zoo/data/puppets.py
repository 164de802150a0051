"""Drawn faces that move by facial action units, with a synthetic voice: a test object.

Puppets test that a pipeline learns, is consistent and survives a file format. They say nothing about how well a model
recognizes emotions of people: weights trained on puppets work on puppets only.

>>> puppet = Puppet("surprise", identity=3, seed=7)
>>> clip = puppet.clip()  # 108 frames, drawn on demand, and a voice
>>> clip.num_frames, clip.fps, clip.sample_rate
(108, 30.0, 22050)
>>> Puppet.parse(str(puppet)) == puppet                    # a puppet is one line of an annotation file
True
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ..errors import InputError, MediaError, suggest
from ..media.clip import Clip
from ..media.limits import check_limit
from ..media.write import write_mp4

SECONDS, FPS, SAMPLE_RATE = 3.6, 30.0, 22050  # as av_fusion needs them, so that nothing is resampled
SPLIT = 1_000_000  # identities from here on are those of the test split
SUPERSAMPLING = 3  # antialiasing factor
DROOP, LEFT_SMIRK, LEFT_DIMPLE = 43, 112, 114  # eye closure, and the one-sided 12 and 14 of contempt

# facial action units of every emotion at its apex (Ekman and Friesen's classic sets)
ACTION_UNITS: dict[str, dict[int, float]] = {
    "neutral": {},
    "calm": {DROOP: 0.45, 12: 0.22},
    "happiness": {6: 1.0, 12: 1.0},
    "sadness": {1: 1.0, 4: 1.0, 15: 1.0},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.9, 26: 1.0},
    "fear": {1: 1.0, 2: 0.7, 4: 0.9, 5: 1.0, 20: 1.0, 26: 0.4},
    "anger": {4: 1.0, 5: 0.4, 7: 0.9, 23: 1.0},
    "disgust": {9: 1.0, 15: 0.8},
    "contempt": {LEFT_SMIRK: 1.0, LEFT_DIMPLE: 1.0},
}
# names in the label lists of the systems
SYNONYMS = {
    "happy": "happiness", "sad": "sadness", "angry": "anger", "fearful": "fear", "afraid": "fear",
    "surprised": "surprise", "disgusted": "disgust", "contemptuous": "contempt",
}  # fmt: skip


@dataclass(frozen=True)
class Voice:
    """How an emotion sounds. Pitch is relative to the pitch of the speaker."""

    pitch: float = 1.0
    range: float = 2.0  # semitones up and down along a syllable
    slope: float = -1.0  # semitones from the first syllable to the last
    rate: float = 4.0  # syllables per second
    loudness: float = -20.0  # dB
    brightness: float = 0.5  # 0: dull, the overtones fall off quickly; 1: sharp
    tremor: float = 0.0
    breath: float = 0.02


VOICES = {
    "neutral": Voice(),
    "calm": Voice(pitch=0.93, range=1.2, rate=3.0, loudness=-26, brightness=0.3, breath=0.07),
    "happiness": Voice(pitch=1.35, range=6, slope=1, rate=4.8, loudness=-15, brightness=0.7),
    "sadness": Voice(pitch=0.88, range=1.2, slope=-4, rate=2.3, loudness=-28, brightness=0.15, tremor=0.1, breath=0.1),
    "surprise": Voice(pitch=1.5, range=9, slope=9, rate=3.3, loudness=-13, brightness=0.65),
    "fear": Voice(pitch=1.6, range=2.5, slope=2, rate=6.2, loudness=-18, brightness=0.6, tremor=0.8, breath=0.05),
    "anger": Voice(pitch=1.15, range=5, slope=-2, rate=5.4, loudness=-8, brightness=1.0),
    "disgust": Voice(pitch=0.8, range=4, slope=-6, rate=3.2, loudness=-17, brightness=0.45, tremor=0.35),
    "contempt": Voice(pitch=0.95, range=2.5, slope=-3, rate=2.8, loudness=-20, brightness=0.4),
}


@dataclass(frozen=True)
class Puppet:
    """The parameters of one drawn clip. Equal puppets give equal pixels and samples."""

    emotion: str  # of the face
    identity: int = 0  # skin, hair, proportions, the pitch of the voice
    seed: int = 0  # light, background, head motion, timing, the words
    voice: str = ""  # emotion of the voice; empty: that of the face
    size: int = 112
    intensity: float = 1.0  # 0: everybody is neutral
    noise: float = 0.02  # of the camera, standard deviation of values in [0, 1]; the microphone hiss follows it
    blur: float = 0.4  # pixels at size 112

    def __post_init__(self) -> None:
        for emotion in (self.emotion, *([self.voice] if self.voice else [])):
            if emotion not in ACTION_UNITS:
                raise InputError(f"A puppet has no emotion '{emotion}'.{suggest(emotion, ACTION_UNITS)}")
        if isinstance(self.size, int):
            check_limit("puppet_size", self.size, "A puppet's size", InputError)
        if self.size < 16:
            raise InputError(f"A puppet of {self.size} x {self.size} pixels has no face; size starts at 16.")
        for name in ("identity", "seed", "intensity", "noise", "blur"):
            _check_range(name, getattr(self, name), 0)

    def clip(self) -> Clip:
        """Return the clip. Frames are drawn on demand: a rule that takes 15 of 108 frames draws only 15."""
        frames = _PuppetFrames(self)
        return Clip(frames, FPS, frames.performance.sound, SAMPLE_RATE, source=str(self))

    def write(self, path: str | Path) -> Path:
        """Write an mp4 file with sound (H.264 and AAC; needs the extra ``video``)."""
        return write_mp4(self.clip(), path)

    def __str__(self) -> str:
        fields = dataclasses.asdict(self)
        return "puppet:" + ",".join(f"{name}={value}" for name, value in fields.items() if value != "")

    @classmethod
    def parse(cls, text: str) -> Puppet:
        """Parse the output of `str`."""
        kinds = {"int": int, "float": float, "str": str}
        known = {f.name: kinds[str(f.type)] for f in dataclasses.fields(cls)}
        try:
            pairs = dict(pair.split("=") for pair in text.removeprefix("puppet:").split(","))
            return cls(**{name: known[name](value) for name, value in pairs.items()})
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"'{text}' is not a puppet; one looks like this: {cls('happiness')}.") from error


def puppets(
    labels: Sequence[str] = tuple(ACTION_UNITS),
    *,
    clips: int = 256,
    split: str = "train",
    seed: int = 0,
    identities: int = 40,
    size: int = 112,
    intensity: tuple[float, float] = (0.6, 1.0),
    noise: float = 0.02,
    blur: float = 0.4,
    disagree: float = 0.0,
) -> list[tuple[Puppet, int]]:
    """Return a balanced data set of (puppet, class index). No identity is in both splits.

    Args:
        labels: The labels of a model, in its order.
        clips: The number of puppets.
        split: "train" or "test".
        seed: The seed.
        identities: The number of faces to draw from.
        size: Width and height in pixels.
        intensity: Bounds of the intensity, which is drawn for every clip.
        noise: Camera noise.
        blur: Camera blur.
        disagree: The share of clips whose voice has another emotion than the face; the label is that of the face.

    >>> len(puppets(["happy", "sad"], clips=10))
    10
    """
    emotions = [emotion_of(label) for label in labels]
    if split not in ("train", "test"):
        raise InputError(f"Puppets have the splits 'train' and 'test', not '{split}'.")
    if len(set(emotions)) < len(emotions) or not emotions:
        raise InputError(f"The labels {list(labels)} must be different emotions, and at least one.")
    for name, value, low, high in (
        ("clips", clips, 1, np.inf),
        ("seed", seed, 0, np.inf),
        ("identities", identities, 1, SPLIT),
        ("disagree", disagree, 0, 1),
    ):
        _check_range(name, value, low, high)
    check_limit("puppets", clips, "The number of puppets", InputError)
    if np.shape(intensity) != (2,) or not 0 <= intensity[0] <= intensity[1] < np.inf:
        raise InputError(
            f"A puppet's intensity is {intensity}; expected two bounds, the lower one first and from 0 on."
        )
    first_identity = 0 if split == "train" else SPLIT
    rng = np.random.default_rng([seed, first_identity])
    disagreeing = set(rng.permutation(clips)[: round(disagree * clips)].tolist())  # the exact share
    data = []
    for i in range(clips):
        label = i % len(emotions)
        others = [e for e in emotions if e != emotions[label]]
        voice = others[rng.integers(len(others))] if i in disagreeing and others else ""
        puppet = Puppet(
            emotions[label],
            identity=first_identity + int(rng.integers(identities)),
            seed=int(rng.integers(2**31)),
            voice=voice,
            size=size,
            intensity=round(float(rng.uniform(*intensity)), 3),
            noise=noise,
            blur=blur,
        )
        data.append((puppet, label))
    return data


def _check_range(name: str, value: float, low: float, high: float = np.inf) -> None:
    if not low <= value <= high or value == np.inf:  # NaN is never within
        expected = f"{low} or more" if high == np.inf else f"{low} to {high}"
        raise InputError(f"A puppet's {name} is {value}; expected {expected}.")


def emotion_of(label: str) -> str:
    """Return the emotion of a system's label."""
    name = SYNONYMS.get(label.lower(), label.lower())
    if name not in ACTION_UNITS:
        raise InputError(f"There is no puppet for the label '{label}'.{suggest(label, [*ACTION_UNITS, *SYNONYMS])}")
    return name


# -- who, and what happens ---------------------------------------------------------------------------------------------

SKINS = ((255, 224, 196), (241, 194, 160), (224, 172, 130), (198, 134, 92), (150, 96, 62), (110, 70, 48))
HAIRS = ((40, 28, 24), (84, 54, 34), (140, 94, 52), (206, 168, 100), (150, 150, 154), (128, 50, 30))
EYES = ((70, 44, 26), (56, 92, 140), (70, 112, 74), (110, 84, 50), (84, 96, 108))


@dataclass(frozen=True)
class _Identity:
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    hairstyle: int  # 0 bald, 1 short, 2 full, 3 long
    width: float
    jaw: float
    eye_distance: float
    eye_size: float
    brow: float  # thickness
    nose: float
    mouth: float
    pitch: float  # Hz

    @classmethod
    def of(cls, number: int) -> _Identity:
        rng = np.random.default_rng([20110395, number])

        def colour(table: Sequence[tuple[int, int, int]], spread: float) -> np.ndarray:
            return np.clip(np.array(table[int(rng.integers(len(table)))]) + rng.normal(0, spread, 3), 0, 255)

        return cls(
            skin=colour(SKINS, 5),
            hair=colour(HAIRS, 8),
            iris=colour(EYES, 6),
            hairstyle=int(rng.integers(4)),
            width=rng.uniform(0.70, 0.82),
            jaw=rng.uniform(0.0, 0.22),
            eye_distance=rng.uniform(0.30, 0.36),
            eye_size=rng.uniform(0.9, 1.12),
            brow=rng.uniform(0.045, 0.085),
            nose=rng.uniform(0.85, 1.15),
            mouth=rng.uniform(0.9, 1.1),
            pitch=float(rng.choice([115.0, 205.0])) * rng.uniform(0.88, 1.14),
        )


class _Performance:
    """What happens in the clip of one puppet: timing of the emotion, head motion, speech, light and background."""

    def __init__(self, puppet: Puppet) -> None:
        self.identity = _Identity.of(puppet.identity)
        rng = np.random.default_rng([puppet.seed, puppet.identity])
        self.onset, self.rise = rng.uniform(0.1, 0.45), rng.uniform(0.25, 0.5)
        self.offset, self.fall = rng.uniform(2.7, 3.1), rng.uniform(0.4, 0.6)
        self.strength = puppet.intensity * (1 + 0.1 * rng.standard_normal(7))  # a unit is rarely alone at its mean
        self.sway = rng.uniform(0.15, 0.5, 5), rng.uniform(0, 2 * np.pi, 5)  # frequencies in Hz, phases
        self.amount = rng.normal(0, 1, 5) * (0.05, 0.02, 0.02, 0.02, 0.08)  # roll, x, y, scale, yaw
        self.pose = rng.normal(0, 1, 5) * (0.04, 0.03, 0.02, 0.03, 0.06)
        self.blinks = rng.uniform(0.2, SECONDS, 2)
        self.gaze = rng.normal(0, 0.015, 2)
        self.light = rng.uniform(0.8, 1.1), rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.3)  # level, direction, fall
        self.walls = rng.uniform(40, 220, 3), rng.uniform(40, 220, 3), rng.uniform(0, 2 * np.pi)
        self.shirt = rng.uniform(30, 225, 3)
        self.mirror = rng.random() < 0.5  # which side contempt takes
        self.sound, self.loudness = _speak(puppet, self.identity.pitch, rng)

    def strength_at(self, t: float) -> float:
        """Neutral, then the apex, then almost neutral again."""
        return _smooth((t - self.onset) / self.rise) * (1 - 0.85 * _smooth((t - self.offset) / self.fall))

    def units(self, emotion: str, t: float) -> dict[int, float]:
        apex = self.strength_at(t)
        chosen = ACTION_UNITS[emotion].items()
        return {unit: apex * value * float(max(s, 0)) for (unit, value), s in zip(chosen, self.strength)}

    def head(self, t: float) -> np.ndarray:
        """roll, x, y, scale, yaw"""
        frequency, phase = self.sway
        return self.pose + self.amount * np.sin(2 * np.pi * frequency * t + phase)


def _smooth(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


class _PuppetFrames:
    """The frames of a puppet, drawn on demand."""

    def __init__(self, puppet: Puppet) -> None:
        self.puppet = puppet
        self.performance = _Performance(puppet)
        self._room: tuple[Image.Image, np.ndarray] | None = None

    def __len__(self) -> int:
        return round(SECONDS * FPS)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [self._frame(index) for index in indices]

    def _frame(self, index: int) -> np.ndarray:
        puppet, size = self.puppet, self.puppet.size
        if not 0 <= index < len(self):
            raise MediaError(f"{puppet} has {len(self)} frames; there is no frame {index}.")
        background, light = self._surroundings()
        canvas = background.copy()
        _draw_puppet(canvas, self.performance, puppet.emotion, index / FPS)
        picture = canvas.reduce(SUPERSAMPLING)
        if puppet.blur > 0:
            picture = picture.filter(ImageFilter.GaussianBlur(puppet.blur * size / 112))
        values = np.asarray(picture) * light
        if puppet.noise > 0:
            rng = np.random.default_rng([puppet.seed, puppet.identity, index])
            values += rng.standard_normal(values.shape, dtype=np.float32) * np.float32(255 * puppet.noise)
        return np.clip(values, 0, 255, out=values).astype(np.uint8)

    def _surroundings(self) -> tuple[Image.Image, np.ndarray]:
        """The wall at the drawing's size, and the light at the picture's."""
        if self._room is None:
            size, show = self.puppet.size, self.performance
            level, direction, fall = show.light
            side = np.linspace(-1, 1, size, dtype=np.float32)
            along = np.cos(direction) * side[None, :] + np.sin(direction) * side[:, None]
            light = (level * (1 + fall * along)).astype(np.float32)[..., None]
            first, second, angle = show.walls
            mix = 0.5 + 0.5 * (np.cos(angle) * side[None, :] + np.sin(angle) * side[:, None])[..., None]
            wall = np.clip(first * mix + second * (1 - mix), 0, 255).astype(np.uint8)
            large = Image.fromarray(wall).resize((size * SUPERSAMPLING,) * 2, Image.Resampling.NEAREST)
            self._room = large, light
        return self._room


# -- the drawing -------------------------------------------------------------------------------------------------------
# Face coordinates: x to the right, y down, the head is an ellipse of half height 1 around the origin.

_TURN = np.linspace(0, 2 * np.pi, 40, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)
_ARC = np.linspace(-1, 1, 13)  # along a lid or a lip
_BOW = 1 - _ARC**2


class _Pen:
    """Draws face coordinates on a canvas, moved as the head is. ``depth`` is how far a part comes out of the face:
    turning the head moves it sideways."""

    def __init__(self, canvas: Image.Image, head: np.ndarray) -> None:
        roll, x, y, scale, self.yaw = head
        self.draw = ImageDraw.Draw(canvas)
        self.unit = canvas.width * 0.40 * (1 + scale)
        self.matrix = self.unit * np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
        self.origin = canvas.width * np.array([0.5 + x, 0.51 + y])

    def place(self, points: np.ndarray, depth: float) -> list[float]:
        sideways = np.array([self.yaw * depth, 0.0])
        return ((points + sideways) @ self.matrix + self.origin).ravel().tolist()

    def area(self, points: np.ndarray, colour: tuple, depth: float = 0.3) -> None:
        self.draw.polygon(self.place(points, depth), fill=colour)

    def line(self, points: np.ndarray, colour: tuple, width: float, depth: float = 0.5) -> None:
        self.draw.line(self.place(points, depth), fill=colour, width=max(1, round(width * self.unit)), joint="curve")

    def disc(self, x: float, y: float, radius: float, colour: tuple, depth: float = 0.5) -> None:
        self.area(radius * _CIRCLE + (x, y), colour, depth)


def _colour(values: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (min(max(int(value), 0), 255) for value in values.tolist())
    return red, green, blue


def _curve(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    points = np.empty((max(np.size(x), np.size(y)), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def _draw_puppet(canvas: Image.Image, show: _Performance, emotion: str, t: float) -> None:
    who = show.identity
    units = show.units(emotion, t)
    pen = _Pen(canvas, show.head(t))
    talking = 0.05 * float(show.loudness[min(int(t * 100), len(show.loudness) - 1)])
    smile = units.get(12, 0.0)
    opening = talking + 0.34 * units.get(26, 0.0) + 0.13 * smile**2 + 0.07 * units.get(20, 0.0)
    _draw_head(pen, who, show.shirt, opening)
    _draw_wrinkles(pen, who, units, show.mirror)
    blink = max(0.0, 1 - float(np.abs(show.blinks - t).min()) / 0.1)
    for side in (-1, 1):
        _draw_eye(pen, who, units, side, blink, show.gaze)
        _draw_brow(pen, who, units, side)
    _draw_nose(pen, who, units)
    _draw_mouth(pen, who, units, opening, show.mirror)
    _draw_hair(pen, who)


def _outline(who: _Identity, drop: float) -> np.ndarray:
    """The head: an ellipse with a jaw, longer where the jaw drops."""
    x, y = np.cos(_TURN), np.sin(_TURN)
    lower = np.clip(y, 0, 1)
    return _curve(who.width * x * (1 + who.jaw * lower * (1 - lower)), y * (1 + 0.45 * drop * lower))


def _draw_head(pen: _Pen, who: _Identity, shirt: np.ndarray, opening: float) -> None:
    skin, shade = _colour(who.skin), _colour(who.skin * 0.82)
    if who.hairstyle == 3:  # behind the head
        pen.area(_outline(who, 0) * (1.25, 1.12) + (0, 0.02), _colour(who.hair * 0.8), depth=-0.3)
    pen.area(np.array([[-0.32, 0.6], [0.32, 0.6], [0.36, 1.5], [-0.36, 1.5]]), shade, depth=-0.2)
    pen.area(
        np.array([[-1.2, 1.7], [-1.0, 1.25], [-0.36, 1.12], [0.36, 1.12], [1.0, 1.25], [1.2, 1.7]]), _colour(shirt), 0
    )
    for side in (-1, 1):
        ear = _curve(side * who.width + 0.09 * np.cos(_TURN), 0.0 + 0.17 * np.sin(_TURN))
        pen.area(ear, shade, depth=-0.1)
    pen.area(_outline(who, opening), skin, depth=0.0)


def _draw_hair(pen: _Pen, who: _Identity) -> None:
    if who.hairstyle == 0:
        return
    top = _TURN[20:]  # the upper half of the turn
    low = {1: 0.62, 2: 0.52, 3: 0.56}[who.hairstyle]
    outer = _curve(who.width * 1.07 * np.cos(top), 1.08 * np.sin(top))
    x = np.linspace(1, -1, 12)
    inner = _curve(who.width * 1.0 * x, -low + (0.42 if who.hairstyle > 1 else 0.25) * np.abs(x) ** 3)
    pen.area(np.concatenate([outer, inner]), _colour(who.hair), depth=0.05)


def _draw_wrinkles(pen: _Pen, who: _Identity, units: dict[int, float], mirror: bool) -> None:
    """Folds of the skin that come with the units; each fades in."""

    def fold(strength: float, points: list[tuple[float, float]], width: float = 0.025) -> None:
        if strength > 0.15:
            s = np.linspace(0, 1, 7)[:, None]
            first, last = np.array(points[0]), np.array(points[-1])
            bend = (
                2 * np.array(points[len(points) // 2]) - (first + last) / 2 if len(points) > 2 else (first + last) / 2
            )
            curve = (1 - s) ** 2 * first + 2 * s * (1 - s) * bend + s**2 * last
            pen.line(curve, _colour(who.skin * (1 - 0.30 * min(strength, 1))), width)

    smirk = units.get(LEFT_SMIRK, 0)
    for side in (-1, 1):
        cheek = max(units.get(12, 0), units.get(9, 0), 0.5 * units.get(15, 0), smirk if (side < 0) != mirror else 0)
        fold(cheek, [(side * 0.17, 0.24), (side * 0.30, 0.36), (side * 0.37, 0.52)])
        for y in (-0.13, -0.06, 0.02):  # crow's feet
            fold(units.get(6, 0), [(side * 0.55, -0.07 + y * 0.2), (side * 0.66, y)], 0.02)
        fold(units.get(6, 0), [(side * 0.18, 0.04), (side * 0.34, 0.08), (side * 0.50, 0.03)])
        fold(0.8 * units.get(4, 0), [(side * 0.05, -0.42), (side * 0.04, -0.26)])
        for y in (-0.16, -0.08, 0.0):  # across the bridge of the nose
            fold(units.get(9, 0), [(0, y - 0.03), (side * 0.12, y + 0.04)])
    for y in (-0.60, -0.68):  # forehead
        lifted = units.get(1, 0) * (0.4 + 0.6 * units.get(2, 0))
        fold(0.7 * lifted, [(-0.34, y + 0.02), (0, y), (0.34, y + 0.02)], 0.02)


def _draw_eye(pen: _Pen, who: _Identity, units: dict[int, float], side: int, blink: float, gaze: np.ndarray) -> None:
    x, y = side * who.eye_distance, -0.12
    half_width, scale = 0.165 * who.eye_size, who.eye_size
    upper = 0.085 + 0.065 * units.get(5, 0) - 0.055 * units.get(DROOP, 0) - 0.03 * units.get(7, 0)
    upper -= 0.025 * units.get(9, 0) + 0.02 * units.get(6, 0)
    lower = 0.07 - 0.045 * units.get(6, 0) - 0.035 * units.get(7, 0) - 0.03 * units.get(9, 0)
    upper = scale * (upper * (1 - blink) - lower * blink)
    lower = scale * lower
    # raised inner brows pull the inner end of the lid up with them
    tilt = 0.025 * units.get(1, 0) * (units.get(4, 0) - 0.5 * units.get(2, 0)) * (-side) * _ARC
    along = x + half_width * _ARC
    top = y - upper * _BOW**0.7 - np.clip(tilt, 0, None)
    bottom = y + lower * _BOW**0.7
    pen.area(
        np.concatenate([_curve(along, y - 0.17 * scale * _BOW), _curve(along, y + 0.12 * scale * _BOW)[::-1]]),
        (248, 248, 246),
        0.5,
    )
    pen.disc(x + gaze[0], y - 0.01 + gaze[1], 0.088 * scale, _colour(who.iris), 0.55)
    pen.disc(x + gaze[0], y - 0.01 + gaze[1], 0.042 * scale, (12, 10, 10), 0.55)
    pen.disc(x + gaze[0] - 0.03, y - 0.04 + gaze[1], 0.018 * scale, (255, 255, 255), 0.55)
    skin, lid = _colour(who.skin), _colour(who.skin * 0.90)
    pen.area(np.concatenate([_curve(along, top), _curve(along, y - 0.20 * scale * _BOW**0.6 - 0.01)[::-1]]), lid, 0.5)
    pen.area(
        np.concatenate([_curve(along, bottom), _curve(along, y + 0.16 * scale * _BOW**0.6 + 0.01)[::-1]]), skin, 0.5
    )
    pen.line(_curve(along, top), _colour(who.skin * 0.25), 0.03)
    pen.line(_curve(along, bottom), _colour(who.skin * 0.7), 0.015)


def _draw_brow(pen: _Pen, who: _Identity, units: dict[int, float], side: int) -> None:
    inner_up, outer_up, lowered, nose = (units.get(u, 0.0) for u in (1, 2, 4, 9))
    frown = lowered * (1 - 0.95 * inner_up)  # with 1, unit 4 draws the brows together and no longer down
    inner = (0.15 - 0.05 * lowered, -0.335 - 0.14 * inner_up + 0.13 * frown + 0.07 * nose)
    middle = (0.34, -0.405 - 0.05 * inner_up - 0.11 * outer_up + 0.085 * frown + 0.02 * lowered + 0.05 * nose)
    outer = (0.55, -0.335 - 0.11 * outer_up - 0.02 * frown + 0.03 * inner_up * lowered * (1 - outer_up))
    s = np.linspace(0, 1, 9)[:, None]
    points = (
        (1 - s) ** 2 * inner + 2 * s * (1 - s) * (2 * np.array(middle) - 0.5 * (np.array(inner) + outer)) + s**2 * outer
    )
    thickness = who.brow * (1 - 0.55 * s[:, 0])
    x = side * (points[:, 0] + (who.eye_distance - 0.33))
    above, below = _curve(x, points[:, 1] - thickness * 0.6), _curve(x, points[:, 1] + thickness * 0.6)
    colour = who.hair * 0.75 if who.hairstyle else who.skin * 0.35
    pen.area(np.concatenate([above, below[::-1]]), _colour(np.minimum(colour, who.skin * 0.6)), 0.5)


def _draw_nose(pen: _Pen, who: _Identity, units: dict[int, float]) -> None:
    wrinkle = units.get(9, 0)
    tip = 0.25 * who.nose - 0.055 * wrinkle
    wide = 0.115 + 0.035 * wrinkle
    shade, dark = _colour(who.skin * 0.80), _colour(who.skin * 0.40)
    pen.line(np.array([(0.055, -0.12), (0.05, 0.05), (0.09, tip - 0.05)]), shade, 0.025, 0.9)
    pen.line(
        np.array(
            [
                (-wide, tip - 0.04),
                (-wide * 0.7, tip + 0.03),
                (0, tip + 0.05),
                (wide * 0.7, tip + 0.03),
                (wide, tip - 0.04),
            ]
        ),
        shade,
        0.03,
        0.9,
    )
    for side in (-1, 1):
        pen.disc(side * 0.055, tip + 0.015, 0.024 + 0.008 * wrinkle, dark, 0.9)


def _draw_mouth(pen: _Pen, who: _Identity, units: dict[int, float], opening: float, mirror: bool) -> None:
    smile, down, stretch, tight, nose, jaw = (units.get(u, 0.0) for u in (12, 15, 20, 23, 9, 26))
    smirk = max(units.get(LEFT_SMIRK, 0), units.get(LEFT_DIMPLE, 0))
    half_width = who.mouth * (0.25 + 0.12 * smile + 0.10 * stretch - 0.05 * tight - 0.08 * jaw * (1 - stretch))
    # the corners, left and right: how far out, and how far below the middle; a smirk moves one of them
    sly = 1 if mirror else 0
    out, below = np.full(2, half_width), np.full(2, -0.15 * smile + 0.14 * down + 0.07 * stretch)
    below[sly] -= 0.14 * smirk
    out[sly] += 0.08 * smirk
    middle = 0.54 + 0.04 * smile - 0.06 * down - 0.03 * nose - 0.02 * stretch
    x = np.where(_ARC < 0, out[0], out[1]) * _ARC
    y = middle + np.where(_ARC < 0, below[0], below[1]) * np.abs(_ARC) ** 1.8
    # a dropped jaw opens an oval, stretched corners a letter box, a smile a crescent
    shape = _BOW ** (1.0 - 0.45 * jaw - 0.45 * stretch)
    top = y - opening * (0.15 + 0.25 * jaw) * shape - 0.05 * nose * _BOW
    bottom = y + opening * (0.85 - 0.1 * jaw) * shape
    thick = (0.055 + 0.01 * jaw) * (1 - 0.75 * tight)
    bow = 1 - 0.35 * np.exp(-((_ARC / 0.16) ** 2))  # the dent in the upper lip
    lips = np.clip(who.skin * (0.80, 0.52, 0.52) + (18, 0, 4), 0, 255)
    outer_top, outer_bottom = top - thick * bow * np.sqrt(_BOW), bottom + 1.25 * thick * np.sqrt(_BOW)
    pen.area(np.concatenate([_curve(x, outer_top), _curve(x, outer_bottom)[::-1]]), _colour(lips), 0.6)
    if opening > 0.06:
        pen.area(np.concatenate([_curve(x, top), _curve(x, bottom)[::-1]]), (62, 18, 22), 0.6)
        teeth = np.minimum(top + 0.075 * np.sqrt(_BOW), bottom)
        pen.area(np.concatenate([_curve(x, top), _curve(x, teeth)[::-1]]), (246, 244, 238), 0.6)
    else:
        pen.line(_curve(x, (top + bottom) / 2), _colour(lips * 0.45), 0.022 + 0.014 * tight, 0.6)
    for side, end in ((0, 0), (1, -1)):  # the corners are in shade, and a dimple is one more
        radius = 0.018 + 0.012 * smirk * (side == sly)
        pen.disc(float(x[end]), float(y[end]), radius, _colour(lips * 0.6), 0.6)


# -- the voice ---------------------------------------------------------------------------------------------------------

_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))  # formants, Hz
_PERIOD = 512  # points of one period of a vowel


def _speak(puppet: Puppet, own_pitch: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(waveform (1, samples) float32, loudness in [0, 1] 100 times a second): syllables with a melody."""
    manner = _between(VOICES["neutral"], VOICES[puppet.voice or puppet.emotion], puppet.intensity)
    own = {f.name: getattr(manner, f.name) for f in dataclasses.fields(Voice)}
    own["pitch"] *= np.exp(0.05 * rng.standard_normal())
    own["rate"] *= np.exp(0.08 * rng.standard_normal())
    own["loudness"] += 1.5 * rng.standard_normal()
    manner = Voice(**own)

    samples = round(SECONDS * SAMPLE_RATE)
    count = max(2, round(manner.rate * (SECONDS - 0.6)))
    bounds = 0.25 + (SECONDS - 0.6) * np.sort(
        np.append((np.arange(1, count) + rng.uniform(-0.25, 0.25, count - 1)) / count, [0, 1])
    )
    t = np.arange(samples, dtype=np.float32) / SAMPLE_RATE
    syllable = np.clip(np.searchsorted(bounds, t, side="right") - 1, 0, count - 1)
    start, length = bounds[syllable].astype(np.float32), np.diff(bounds)[syllable].astype(np.float32)
    within = np.clip((t - start) / length, 0, 1)
    stress = rng.uniform(0.6, 1.0, count).astype(np.float32)[syllable]
    envelope = np.sqrt(np.clip(np.sin(np.pi * within), 0, 1)) * stress * ((t > bounds[0]) & (t < bounds[-1]))

    wave = np.sin(2 * np.pi * t * np.float32(6.5))
    melody = manner.slope * (t / SECONDS - 0.5) + manner.range * (0.5 - within) * (2 * (syllable % 2) - 1)
    pitch = own_pitch * manner.pitch * 2 ** ((melody + 0.8 * manner.tremor * wave) / 12)
    phase = np.cumsum(pitch / SAMPLE_RATE)
    tables = np.stack([_vowel(own_pitch * manner.pitch, formants, manner.brightness) for formants in _VOWELS])
    vowel = rng.integers(len(_VOWELS), size=count)[syllable]
    sound = tables[vowel, (phase * _PERIOD).astype(np.int64) % _PERIOD] * envelope * (1 + 0.4 * manner.tremor * wave)
    sound += manner.breath * envelope * rng.standard_normal(samples, dtype=np.float32)
    sound *= 10 ** (manner.loudness / 20) / max(float(np.sqrt(np.mean(sound**2))), 1e-6)
    sound += np.float32(0.002 + 0.1 * puppet.noise) * rng.standard_normal(samples, dtype=np.float32)
    return np.clip(sound, -1, 1).astype(np.float32)[None], envelope[:: SAMPLE_RATE // 100]


def _between(neutral: Voice, emotional: Voice, intensity: float) -> Voice:
    values = {
        f.name: (1 - intensity) * getattr(neutral, f.name) + intensity * getattr(emotional, f.name)
        for f in dataclasses.fields(Voice)
    }
    return Voice(**values)


def _vowel(pitch: float, formants: Sequence[float], brightness: float) -> np.ndarray:
    """One period: harmonics below half the sample rate, shaped by the formants and by how sharp the voice is."""
    harmonics = np.arange(1, max(2, int(0.45 * SAMPLE_RATE / pitch)))
    frequency = harmonics * pitch
    throat = sum(np.exp(-(((frequency - f) / (90 + 0.06 * f)) ** 2)) * 0.7**k for k, f in enumerate(formants)) + 0.03
    falling = harmonics.astype(float) ** -(2.2 - 1.6 * brightness)
    turn = np.arange(_PERIOD) * (2 * np.pi / _PERIOD)
    period = (throat * falling) @ np.sin(harmonics[:, None] * turn)
    return (period / np.sqrt(np.mean(period**2))).astype(np.float32)
