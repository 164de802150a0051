"""`dfer-zoo demo`: draw a person, write a video, and recognize it with bundled weights. Needs no network and no data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .data.puppets import FPS, SAMPLE_RATE, SECONDS, Puppet, emotion_of
from .errors import InputError
from .inference.plots import timeline_figure, write_figure
from .inference.prediction import Prediction
from .inference.recognizer import Recognizer
from .media.clip import Clip
from .media.write import write_mp4

IDENTITY = 1_000_003  # from the test split, so the weights were not trained on this person
EMOTIONS = ("happy", "angry", "surprised")


def performance(
    emotions: Sequence[str] = EMOTIONS, *, identity: int = IDENTITY, seed: int = 8, size: int = 224
) -> Clip:
    """Draw one person with one emotion after the other, 3.6 seconds each."""
    puppets = [Puppet(emotion_of(name), identity=identity, seed=seed, size=size) for name in emotions]
    clips = [puppet.clip() for puppet in puppets]
    frames = np.concatenate([np.stack(clip.take(range(clip.num_frames))) for clip in clips])
    sound = np.concatenate([np.asarray(clip.waveform) for clip in clips], axis=1)
    return Clip.from_arrays(frames, sound, fps=FPS, sample_rate=SAMPLE_RATE, source=", ".join(map(str, puppets)))


def demonstrate(folder: str | Path, emotions: Sequence[str] = EMOTIONS, seed: int = 8) -> tuple[Prediction, Path, Path]:
    """Write a video and a timeline plot, and return (prediction, video, plot)."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be created ({error.strerror}).") from error
    clip = performance(emotions, seed=seed)
    video = write_mp4(clip, folder / "puppet.mp4")
    recognizer = Recognizer("av_fusion", "puppets", faces="none", window=SECONDS, stride=SECONDS / 2, thumbnails=8)
    answer = recognizer(video)
    title = f"{video.name}: {', then '.join(emotions)} (a drawn test object)"
    return answer, video, write_figure(folder / "timeline.png", timeline_figure(answer, title))
