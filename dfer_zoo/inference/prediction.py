"""The answer for a clip: probabilities, windows over time, and which weights gave them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..transforms.face_windows import majority

MOST_OF_CLIP = 0.75  # a prediction that saw less of its clip says so


@dataclass(frozen=True)
class Window:
    """What the models say about a part of a clip."""

    start: float  # seconds
    stop: float | None  # None where no rate is known
    probabilities: tuple[float, ...]
    missing: tuple[str, ...] = ()  # modalities that the models did without


@dataclass(frozen=True)
class Prediction:
    """The answer for one clip. Probabilities are means: over views, folds and windows."""

    source: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    windows: tuple[Window, ...]  # those without anything that the models need are left out
    models: tuple[dict[str, Any], ...]  # the identity of the weights; more than one is averaged
    missing: tuple[str, ...] = ()  # modalities that some window lacked
    faces: Mapping[str, Any] | None = None  # the detector, the crop rule, in how many frames a face was found
    sample_rate: int | None = None  # of the sound, where it is heard at its own rate and that is a part of the input
    seen: tuple[float, float] | None = None  # first and last second of the frames that were looked at
    duration: float | None = None  # seconds of the clip
    logits: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)  # (windows, models, views, classes)

    @property
    def label(self) -> str:
        return self.labels[int(np.argmax(self.probabilities))]

    @property
    def majority(self) -> str:
        """The label that is most often the best one of a window, the first one among equals: EMO-AffectNet's rule for a
        clip. `label` is the best one of the mean."""
        return self.labels[majority([window.probabilities for window in self.windows])]

    @property
    def cautions(self) -> tuple[str, ...]:
        """What the weights are not for."""
        return tuple(dict.fromkeys(model["caution"] for model in self.models if model.get("caution")))

    @property
    def overlooked(self) -> str | None:
        """A sentence where much of the clip was not looked at."""
        if self.seen is None or self.duration is None or self.seen[1] - self.seen[0] > MOST_OF_CLIP * self.duration:
            return None
        return f"frames from {self.seen[0]:.1f} s to {self.seen[1]:.1f} s of {self.duration:.1f} s were looked at"

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """The most probable labels, the best first."""
        return sorted(zip(self.labels, self.probabilities), key=lambda pair: -pair[1])[:count]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""

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
        }

    def plot(self, path: str | Path | None = None) -> Any:
        """The probabilities over time, or bars where there is one window. Returns the figure, and writes it to a path."""
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise InputError('Plots need matplotlib: pip install "dfer-zoo[plot]".') from error
        figure = Figure(figsize=(9, 4), layout="constrained")
        axes = figure.add_subplot(ylim=(0, 1))
        axes.set_title(f"{Path(self.source).name}: {self.label}", parse_math=False)  # a $ in a name is a $
        if remarks := [*self.cautions, *([self.overlooked] if self.overlooked else [])]:
            wrapped = "\n".join(line for remark in remarks for line in textwrap.wrap(remark, 120))
            figure.supxlabel(wrapped, fontsize="small", color="dimgray", parse_math=False)
        if len(self.windows) > 1:
            times = [w.start if w.stop is None else (w.start + w.stop) / 2 for w in self.windows]
            for label, line in zip(self.labels, np.array([w.probabilities for w in self.windows]).T):
                axes.plot(times, line, label=label, marker=".")
            axes.set(xlabel="seconds", ylabel="probability")
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        else:
            axes.bar(self.labels, self.probabilities)
            axes.set(ylabel="probability")
            axes.tick_params(axis="x", rotation=45)
        if path is not None:
            try:
                figure.savefig(path)
            except (OSError, ValueError) as error:
                raise InputError(f"The plot cannot be written to {path} ({error}).") from error
        return figure
