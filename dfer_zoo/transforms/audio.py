"""Waveforms -> the audio input that a record asks for.

torchaudio is the reference for these numbers and is used where it imports; its last release imports beside some torch
versions only, so the same arithmetic stands here in plain torch. Nothing else in the zoo touches torchaudio.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, MediaError
from ..weights import AudioSpec

# name -> (waveform (channels, samples) float32, sample rate, record) -> tensor of the record's shape
FRONT_ENDS: dict[str, Callable[[Tensor, int, AudioSpec], Tensor]] = {}


def prepare(waveform: Any, sample_rate: int | None, spec: AudioSpec) -> Tensor:
    """One clip's sound, as the model takes it (without a batch axis)."""
    if spec.front_end not in FRONT_ENDS:
        raise InputError(f"There is no audio front end '{spec.front_end}'; there are {sorted(FRONT_ENDS)}.")
    if not sample_rate or sample_rate <= 0:
        raise MediaError(f"The sample rate is {sample_rate}; a waveform needs the rate it was recorded at.")
    signal = torch.as_tensor(np.asarray(waveform), dtype=torch.float32)
    return FRONT_ENDS[spec.front_end](signal[None] if signal.ndim == 1 else signal, int(sample_rate), spec)


def silence(spec: AudioSpec) -> Tensor:
    """What stands for a missing sound track."""
    return torch.full(spec.shape, spec.missing)
