"""The MFCC front end: resampling, cropping to 3.6 seconds, coefficients."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dfer_zoo.errors import InputError
from dfer_zoo.transforms import audio
from dfer_zoo.weights.record import AudioSpec
from tests.reference_torchaudio import reference_torchaudio

SPEC = AudioSpec("mfcc", shape=(10, 156), sample_rate=22050, seconds=3.6)


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mfccs_never_import_torchaudio_unless_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    assert audio.mfcc(noise(30000), 22050).shape == (10, 59)
    with pytest.raises(ImportError):
        audio.mfcc(noise(30000), 22050, backend="torchaudio")
    with pytest.raises(InputError, match="backend is 'librosa'"):
        audio.mfcc(noise(30000), 22050, backend="librosa")


@pytest.mark.parametrize("loudness", [1.0, 1e-3, 0.0])
def test_mfccs_equal_those_of_torchaudio(loudness, monkeypatch):
    signals = loudness * torch.stack([noise(79380), noise(79380).cumsum(0).sin()])
    monkeypatch.setitem(sys.modules, "torchaudio", reference_torchaudio())
    ours = audio.mfcc(signals, 22050)
    theirs = audio.mfcc(signals, 22050, backend="torchaudio")
    assert (ours - theirs).norm() <= 2e-6 * theirs.norm()


def test_a_loud_clip_does_not_change_a_quiet_one_in_the_same_batch():
    loud, quiet = noise(40000), 1e-4 * noise(40000, seed=1).cumsum(0).sin()
    together = audio.mfcc(torch.stack([loud, quiet]), 22050)
    # values are in the hundreds, and threads change the order of sums; a shared floor would differ by a quarter
    torch.testing.assert_close(together[1], audio.mfcc(quiet, 22050), rtol=1e-5, atol=1e-3)


def test_digital_silence_has_the_floor_in_its_first_coefficient():
    coefficients = audio.mfcc(torch.zeros(79380), 22050)
    assert coefficients.shape == (10, 156)
    torch.testing.assert_close(coefficients[0], torch.full((156,), -100 * math.sqrt(128)))
    assert coefficients[1:].abs().max() < 1e-3


def test_too_few_samples_for_a_window_are_refused():
    with pytest.raises(InputError, match="more than 1024 samples, got 1024"):
        audio.mfcc(torch.zeros(1024), 22050)


def resample_one(x: np.ndarray, j: int, old: int, new: int) -> float:
    """One output sample by the definition."""
    crossings, points, roll_off = 64, 512, 0.9475937167399596
    m = np.arange(crossings * points + 1)
    kaiser = np.kaiser(2 * crossings * points + 1, 14.769656459379492)[crossings * points :]
    table = roll_off * np.sinc(roll_off * m / points) * kaiser * min(1, new / old)
    scale, total = min(1, new / old), 0.0
    stride = math.floor(points * scale)
    n, fraction = j * old // new, (j * old % new) / new
    for start, step, distance in ((n, -1, fraction), (n + 1, 1, 1 - fraction)):
        position = points * scale * distance
        first = math.floor(position)
        for i in range((len(table) - first) // stride):
            index, source = first + i * stride, start + step * i
            if 0 <= source < len(x):
                after = table[index + 1] if index + 1 < len(table) else table[index]
                total += x[source] * (table[index] + (position - first) * (after - table[index]))
    return total


@pytest.mark.parametrize(
    ("old", "new"), [(48000, 22050), (44100, 22050), (16000, 22050), (8000, 22050), (22051, 22050)]
)
def test_resampling_matches_the_formula_sample_by_sample(old, new):
    x = noise(900)
    y = audio.kaiser_resample(x, old, new)
    whole = 900 * new // old
    for j in [0, 1, whole // 3, whole // 2, whole - 2, whole - 1]:
        assert y[j].item() == pytest.approx(resample_one(x.double().numpy(), j, old, new), abs=1e-7)
    assert y.shape[0] == math.ceil(900 * new / old)
    assert (y[whole:] == 0).all()


def test_both_resampling_implementations_agree(monkeypatch):
    x = noise(2, 5000)
    convolved = audio.kaiser_resample(x, 48000, 22050)
    monkeypatch.setattr(audio, "_LARGEST_KERNEL", 0)
    torch.testing.assert_close(audio.kaiser_resample(x, 48000, 22050), convolved, rtol=0, atol=1e-7)


def test_resampling_to_the_same_rate_returns_the_input():
    x = noise(100)
    assert audio.kaiser_resample(x, 22050, 22050) is x


@pytest.mark.parametrize(("samples", "kept"), [(7, [0, 6]), (8, [0, 7]), (9, [0, 7]), (11, [1, 8]), (12, [2, 9])])
def test_signals_are_cropped_at_both_ends_or_zero_padded(samples, kept):
    result = audio.centre_crop_or_pad(torch.arange(1, samples + 1), 8)
    assert result.shape == (8,)
    assert [result[result > 0][0] - 1, result[result > 0][-1] - 1] == kept


def test_16_bit_values_are_rounded_down_and_clipped():
    values = torch.tensor([-1.5, -1.0, -0.00001, 0.0, 0.00004, 0.99999, 1.5])
    assert audio.sixteen_bits(values).mul(32768).tolist() == [-32768, -32768, -1, 0, 1, 32767, 32767]


def test_stereo_sound_at_any_rate_gets_the_shape_of_the_record():
    for rate, samples in [(48000, 200000), (44100, 30000), (16000, 57600)]:
        features = audio.prepare_audio(noise(2, samples).numpy(), rate, SPEC)
        assert features.shape == SPEC.shape and features.dtype == torch.float32


class LargestTensor(TorchDispatchMode):
    """Records the size in bytes of the largest tensor; a view counts as its base."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("rate", [44100, 48000, 44099, 383_987])
def test_resampling_needs_no_memory_beyond_the_signal(rate):
    signal = torch.zeros(min(20 * rate, 500_000))
    with LargestTensor() as seen:
        audio.kaiser_resample(signal, rate, 22050)
    assert seen.bytes < 8 * 2 * len(signal) + 24_000_000


@pytest.mark.parametrize("rates", [(44100, 22050), (48000, 22050), (44099, 22050), (8000, 22050)])
def test_resampling_in_blocks_gives_the_same_bits(monkeypatch, rates):
    signal = torch.randn(2, 2 * rates[0] + 11, generator=torch.Generator().manual_seed(1))
    in_blocks = audio.kaiser_resample(signal, *rates)
    monkeypatch.setattr(audio, "_BLOCK", 1 << 30)
    assert torch.equal(audio.kaiser_resample(signal, *rates), in_blocks)
