"""Predictions: probabilities, windows over time, and the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..transforms.face_windows import majority

MOST_OF_CLIP = 0.75  # a prediction that used a smaller part of its clip gets a remark


@dataclass(frozen=True)
class Window:
    """The prediction for a part of a clip.

    Attributes:
        start: Seconds.
        stop: Seconds; None if the frame rate is unknown.
        probabilities: One for each label.
        missing: Inputs that the clip lacks in this window.
    """

    start: float
    stop: float | None
    probabilities: tuple[float, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Prediction:
    """The prediction for one clip. Probabilities are averaged over views, models and windows.

    Attributes:
        source: The file, or another source of the clip.
        labels: The labels, in the order of the probabilities.
        probabilities: One for each label.
        windows: The predictions over time. Windows that lack a required input are left out.
        models: The weights that were used.
        missing: Inputs that the clip lacks in at least one window.
        faces: The detector, the crop rule, the number of frames with a face, and with ``people="all"`` the number of the
            person, from 1.
        sample_rate: Sample rate of the sound, for front ends that work at the file's own rate.
        seen: First and last second of the frames that the models saw.
        duration: Seconds of the clip.
        thumbnails: (second, face crop) of some frames, see `Recognizer`.
        logits: Outputs of the models, (windows, models, views, classes); NaN where a model has fewer views.
        track: The boxes of the face over time: (second, (left, top, right, bottom)).
        people: With ``people="all"``, one prediction per person, the most prominent first; this is the first of them.
    """

    source: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    windows: tuple[Window, ...]
    models: tuple[dict[str, Any], ...]
    missing: tuple[str, ...] = ()
    faces: Mapping[str, Any] | None = None
    sample_rate: int | None = None
    seen: tuple[float, float] | None = None
    duration: float | None = None
    thumbnails: tuple[tuple[float, np.ndarray], ...] = field(default=(), compare=False)
    logits: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)
    track: tuple[tuple[float, tuple[float, ...]], ...] = field(default=(), compare=False)
    people: tuple[Prediction, ...] = ()

    def __repr__(self) -> str:
        best = ", ".join(f"{label} {chance:.3f}" for label, chance in self.top(2))
        return f"Prediction({self.source!r}: {best}; {len(self.windows)} window{'s' * (len(self.windows) != 1)})"

    @property
    def label(self) -> str:
        """Return the most probable label."""
        return self.labels[int(np.argmax(self.probabilities))]

    @property
    def scores(self) -> dict[str, float]:
        """Return the probabilities by label."""
        return dict(zip(self.labels, self.probabilities))

    @property
    def majority(self) -> str:
        """Return the label with the most windows (EMO-AffectNet's rule); `label` has the highest mean probability."""
        return self.labels[majority([window.probabilities for window in self.windows])]

    @property
    def cautions(self) -> tuple[str, ...]:
        """Return known limitations of the weights."""
        return tuple(dict.fromkeys(model["caution"] for model in self.models if model.get("caution")))

    @property
    def overlooked(self) -> str | None:
        """Return a sentence if the models used only a part of the clip."""
        if self.seen is None or self.duration is None or self.seen[1] - self.seen[0] > MOST_OF_CLIP * self.duration:
            return None
        return f"frames from {self.seen[0]:.1f} s to {self.seen[1]:.1f} s of {self.duration:.1f} s were used"

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """Return the most probable labels with their probabilities, in descending order."""
        if not isinstance(count, int) or count < 0:
            raise InputError(f"count is {count!r}; expected a number of labels.")
        return sorted(zip(self.labels, self.probabilities), key=lambda pair: -pair[1])[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""

        def named(probabilities: Sequence[float]) -> dict[str, float]:
            return dict(zip(self.labels, probabilities))

        return {
            "source": self.source,
            "label": self.label,
            "probabilities": named(self.probabilities),
            "windows": [
                {"start": w.start, "stop": w.stop, "probabilities": named(w.probabilities), "missing": list(w.missing)}
                for w in self.windows
            ],
            "models": [dict(model) for model in self.models],
            "missing": list(self.missing),
            "faces": None if self.faces is None else dict(self.faces),
            "sample_rate": self.sample_rate,
            "seen": None if self.seen is None else list(self.seen),
            "duration": self.duration,
            **({"people": [person.to_dict() for person in self.people]} if self.people else {}),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per person and window, as in the tables of `dfer-zoo predict --out`.

        Returns:
            Dictionaries with the columns file, person, window, start, stop, label, a probability per class, ...
        """
        from .tables import prediction_rows

        return [row for person in self.people or (self,) for row in prediction_rows(person)]

    def to_frame(self) -> Any:
        """Return `rows` as a pandas DataFrame.

        Returns:
            A DataFrame with one row per person and window.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError("to_frame() needs pandas: pip install pandas; rows() does not.") from error
        return pandas.DataFrame(self.rows())

    def plot(self, path: str | Path | None = None) -> Any:
        """Plot the probabilities over time, or bars if there is one window.

        Args:
            path: The output file; the suffix sets the format.

        Returns:
            A matplotlib figure.

        Raises:
            InputError: matplotlib is not installed, or the file cannot be written.
        """
        from .plots import timeline_figure, write_figure

        figure = timeline_figure(self)
        if path is not None:
            write_figure(path, figure)
        return figure


def together(appearances: Sequence[Prediction]) -> Prediction:
    """Combine the predictions for the people in a clip.

    Args:
        appearances: One prediction per appearance, sorted by person and time.

    Returns:
        The prediction of the first person; its `people` has one per person.
    """
    numbers = dict.fromkeys((one.faces or {}).get("person", 1) for one in appearances)
    people = [
        _of_one_person([one for one in appearances if (one.faces or {}).get("person", 1) == number])
        for number in numbers
    ]
    return replace(people[0], people=tuple(people))


def _of_one_person(parts: Sequence[Prediction]) -> Prediction:
    """Combine the appearances of one person. The probabilities are the mean of all windows."""
    if len(parts) == 1:
        return parts[0]
    windows = tuple(window for part in parts for window in part.windows)
    probabilities = np.mean([window.probabilities for window in windows], axis=0)
    faces = dict(parts[0].faces or {})
    for name in ("searched", "found"):
        faces[name] = sum((part.faces or {}).get(name, 0) for part in parts)
    return replace(
        parts[0],
        probabilities=tuple(probabilities.tolist()),
        windows=windows,
        missing=tuple(sorted({name for part in parts for name in part.missing})),
        faces=faces,
        thumbnails=tuple(picture for part in parts for picture in part.thumbnails),
        track=tuple(seen for part in parts for seen in part.track),
        logits=np.concatenate([part.logits for part in parts]),
    )
