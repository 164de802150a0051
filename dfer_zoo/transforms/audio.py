"""Audio front ends: from a waveform to the audio input that a record describes.

Everything is plain torch. torchaudio is the reference in the tests, and computes the MFCCs only if you ask for it
(`mfcc(..., backend="torchaudio")`): its last release imports with some torch versions only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, MediaError
from ..weights.record import AudioSpec

WHOLE = (0.0, 1.0)


def prepare_audio(
    waveform: Any, sample_rate: int | None, spec: AudioSpec, span: tuple[float, float] = WHOLE, *, gain: float = 1.0
) -> Tensor:
    """Compute the audio input of one clip, without a batch axis.

    Args:
        waveform: (channels, samples), or (samples,), in [-1, 1].
        sample_rate: Samples per second.
        spec: The audio record of the weights.
        span: The part of the clip that the frames of the view cover, as shares of its length.
        gain: Factor on the waveform. Only the front ends of `WINDOW_FRONT_ENDS` use `span` and `gain`.

    Returns:
        A tensor of the record's shape.

    Raises:
        InputError: The record names an unknown front end.
        MediaError: The sound is too short, or is at a rate that the front end does not take.
    """
    if spec.front_end not in FRONT_ENDS.keys() | WINDOW_FRONT_ENDS.keys():
        known = sorted(FRONT_ENDS.keys() | WINDOW_FRONT_ENDS.keys())
        raise InputError(f"There is no audio front end '{spec.front_end}'; there are {known}.")
    if not sample_rate or sample_rate <= 0:
        raise MediaError(f"The sample rate is {sample_rate}; a waveform needs the rate it was recorded at.")
    signal = torch.as_tensor(np.asarray(waveform), dtype=torch.float32)
    signal = signal[None] if signal.ndim == 1 else signal
    if spec.front_end in WINDOW_FRONT_ENDS:
        return WINDOW_FRONT_ENDS[spec.front_end](signal, int(sample_rate), spec, span, gain)
    return FRONT_ENDS[spec.front_end](signal, int(sample_rate), spec)


def silence(spec: AudioSpec) -> Tensor:
    """Return the input that replaces a missing sound track."""
    return torch.full(spec.shape, spec.silence_value)


# -- mel-frequency cepstral coefficients -------------------------------------------------------------------------------

WINDOW = 2048
HOP = 512
MELS = 128


def mfcc_front_end(waveform: Tensor, sample_rate: int, spec: AudioSpec) -> Tensor:
    """Mix to mono, resample, crop or pad to one length, round to 16 bits as in the published files, compute MFCCs."""
    assert spec.sample_rate is not None and spec.seconds is not None
    signal = kaiser_resample(waveform.mean(0), sample_rate, spec.sample_rate)
    signal = centre_crop_or_pad(signal, round(spec.seconds * spec.sample_rate))
    return mfcc(sixteen_bits(signal), spec.sample_rate, coefficients=spec.shape[0])


def centre_crop_or_pad(signal: Tensor, samples: int) -> Tensor:
    """Crop a long signal to its center, pad a short one with zeros at the end; along the last axis.

    An odd surplus loses one more sample at the end. A signal of exactly this length is kept (the published script writes
    an empty file then).
    """
    surplus = signal.shape[-1] - samples
    if surplus <= 0:
        return F.pad(signal, (0, -surplus))
    return signal[..., surplus // 2 : surplus // 2 + samples]


def sixteen_bits(signal: Tensor) -> Tensor:
    """Round a signal in [-1, 1] as writing and reading 16-bit PCM does; rounded down."""
    return signal.mul(32768).floor().clamp(-32768, 32767).div(32768)


def mfcc(signal: Tensor, sample_rate: int, coefficients: int = 10, *, backend: str = "torch") -> Tensor:
    """Compute MFCCs as librosa 0.8 does by default.

    Every signal has its own floor, 80 dB below its loudest point, whatever else is in the batch.

    Args:
        signal: (..., samples).
        sample_rate: Samples per second.
        coefficients: The number of coefficients.
        backend: "torch", or "torchaudio" for the same values computed by torchaudio.

    Returns:
        (..., coefficients, frames).

    Raises:
        InputError: The signal is too short, or the backend is unknown.
    """
    if signal.shape[-1] <= WINDOW // 2:
        raise InputError(f"MFCCs need more than {WINDOW // 2} samples, got {signal.shape[-1]}.")
    if backend not in ("torch", "torchaudio"):
        raise InputError(f"backend is '{backend}'; expected 'torch' or 'torchaudio'.")
    flat = signal.reshape(-1, signal.shape[-1])
    compute = _mfcc_torch if backend == "torch" else _mfcc_torchaudio
    result = compute(flat, sample_rate, coefficients)
    return result.reshape(*signal.shape[:-1], *result.shape[-2:])


def _mfcc_torchaudio(signals: Tensor, sample_rate: int, coefficients: int) -> Tensor:
    import torchaudio

    # torchaudio takes the maximum over all axes but the first: a channel axis keeps the clips apart
    transform = torchaudio.transforms.MFCC(
        sample_rate=sample_rate,
        n_mfcc=coefficients,
        dct_type=2,
        norm="ortho",
        log_mels=False,
        melkwargs={
            "n_fft": WINDOW,
            "win_length": WINDOW,
            "hop_length": HOP,
            "f_min": 0.0,
            "f_max": sample_rate / 2,
            "n_mels": MELS,
            "power": 2.0,
            "center": True,
            "pad_mode": "reflect",
            "norm": "slaney",
            "mel_scale": "slaney",
        },
    ).to(signals)
    return transform(signals[:, None])[:, 0]


def _mfcc_torch(signals: Tensor, sample_rate: int, coefficients: int) -> Tensor:
    """(B, samples) -> (B, coefficients, frames)"""
    window = torch.hann_window(WINDOW, device=signals.device, dtype=signals.dtype)
    spectrum = torch.stft(signals, WINDOW, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
    power = spectrum.real**2 + spectrum.imag**2  # (B, WINDOW // 2 + 1, frames)
    mel = _slaney_filters(sample_rate).to(signals) @ power
    decibels = 10 * mel.clamp(min=1e-10).log10()
    decibels = torch.maximum(decibels, decibels.amax((1, 2), keepdim=True) - 80)
    return _cosines(coefficients).to(signals) @ decibels


@functools.cache
def _slaney_filters(sample_rate: int) -> Tensor:
    """(MELS, WINDOW // 2 + 1): triangles on Slaney's mel scale from 0 Hz to half the sample rate, each of area 1."""
    mels = torch.linspace(0, _slaney_mel(sample_rate / 2), MELS + 2, dtype=torch.float64)
    corners = _slaney_hertz(mels)
    bins = torch.arange(WINDOW // 2 + 1, dtype=torch.float64) * sample_rate / WINDOW
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return triangles * (2 / (corners[2:] - corners[:-2]))[:, None]


# linear below 1000 Hz, logarithmic above
_HERTZ_PER_MEL = 200 / 3
_FIRST_LOG_HERTZ = 1000.0
_FIRST_LOG_MEL = _FIRST_LOG_HERTZ / _HERTZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27


def _slaney_mel(hertz: float) -> float:
    if hertz < _FIRST_LOG_HERTZ:
        return hertz / _HERTZ_PER_MEL
    return _FIRST_LOG_MEL + math.log(hertz / _FIRST_LOG_HERTZ) / _LOG_STEP


def _slaney_hertz(mels: Tensor) -> Tensor:
    logarithmic = _FIRST_LOG_HERTZ * ((mels - _FIRST_LOG_MEL) * _LOG_STEP).exp()
    return torch.where(mels < _FIRST_LOG_MEL, mels * _HERTZ_PER_MEL, logarithmic)


@functools.cache
def _cosines(coefficients: int) -> Tensor:
    """(coefficients, MELS): the first rows of the orthonormal DCT-II."""
    k, n = torch.arange(coefficients, dtype=torch.float64)[:, None], torch.arange(MELS, dtype=torch.float64)
    rows = torch.cos(math.pi / MELS * (n + 0.5) * k) * math.sqrt(2 / MELS)
    rows[0] /= math.sqrt(2)
    return rows


# -- resampling --------------------------------------------------------------------------------------------------------

# the windowed sinc that resampy 0.2 calls "kaiser_best": half of it, tabulated
_ZERO_CROSSINGS = 64
_POINTS_PER_CROSSING = 512
_BETA = 14.769656459379492
_ROLL_OFF = 0.9475937167399596
_LARGEST_KERNEL = 1 << 24  # elements; rates without a common divisor would need billions
_BLOCK = 512  # windows, or filters, in memory at a time


def kaiser_resample(signal: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """Resample (..., samples) from one rate to another with the published filter.

    As published, the filter is read from a table in whole steps (`stride` in `_kaiser_filters`). This changes the gain
    by 0.05 %, and the weights were trained with it. Only the signal and the result are in memory.

    Args:
        signal: The samples.
        old_rate: Their rate.
        new_rate: The rate of the result.

    Returns:
        The resampled signal, of the same dtype.

    >>> kaiser_resample(torch.zeros(44100), 44100, 22050).shape
    torch.Size([22050])
    """
    if old_rate == new_rate:
        return signal
    divisor = math.gcd(old_rate, new_rate)
    old, new = old_rate // divisor, new_rate // divisor
    samples = signal.shape[-1]
    whole, wanted = samples * new // old, -(-samples * new // old)  # if they differ, the last sample is a zero
    cycles = -(-whole // new)  # every `old` inputs give `new` outputs, always with the same filters
    reach = _kaiser_reach(old, new)
    flat = signal.reshape(math.prod(signal.shape[:-1]), samples).double()
    padded = F.pad(flat, (reach - 1, max(reach + old, (cycles + 1) * old + reach + 1 - samples)))
    if not whole:
        result = padded[:, :0]
    elif new * (old + 2 * reach) <= _LARGEST_KERNEL:
        windows = padded.unfold(-1, old + 2 * reach, old)[:, :cycles]
        kernel = _kaiser_kernel(old, new).to(signal.device).T
        # a product copies its overlapping windows, so they are multiplied in blocks
        parts = [block @ kernel for block in windows.tensor_split(max(1, cycles // _BLOCK), 1)]
        result = torch.cat(parts, 1).flatten(1)
    else:
        windows = padded.unfold(-1, 2 * reach, 1)
        outputs = padded.new_zeros(len(padded), cycles, new)
        for phases in torch.arange(min(new, whole)).split(_BLOCK):
            filters, starts = (tensor.to(signal.device) for tensor in _kaiser_filters(old, new, phases))
            for cycle in range(cycles):
                heard = windows[:, cycle * old + starts]
                outputs[:, cycle, phases[0] : phases[-1] + 1] = (heard * filters).sum(-1)
        result = outputs.flatten(1)
    return F.pad(result[:, :whole], (0, wanted - whole)).to(signal.dtype).reshape(*signal.shape[:-1], wanted)


@functools.lru_cache(maxsize=2)
def _kaiser_kernel(old: int, new: int) -> Tensor:
    """(new, old + 2 * reach): the filters of all phases as one convolution of stride `old`."""
    reach = _kaiser_reach(old, new)
    filters, starts = _kaiser_filters(old, new, torch.arange(new))
    kernel = torch.zeros(new, old + 2 * reach, dtype=torch.float64)
    return kernel.scatter_(1, starts[:, None] + torch.arange(2 * reach), filters)


@functools.cache
def _kaiser_table() -> Tensor:
    """Half of the windowed sinc, from its middle to its end."""
    half = _ZERO_CROSSINGS * _POINTS_PER_CROSSING
    u = torch.arange(half + 1, dtype=torch.float64) / _POINTS_PER_CROSSING
    window = torch.kaiser_window(2 * half + 1, periodic=False, beta=_BETA, dtype=torch.float64)[half:]
    return _ROLL_OFF * torch.sinc(_ROLL_OFF * u) * window


def _kaiser_stride(old: int, new: int) -> int:
    """Steps in the table from one input sample to the next."""
    return max(1, int(min(1.0, new / old) * _POINTS_PER_CROSSING))


def _kaiser_reach(old: int, new: int) -> int:
    """How many input samples on each side an output sample depends on."""
    return len(_kaiser_table()) // _kaiser_stride(old, new)


def _kaiser_filters(old: int, new: int, phases: Tensor) -> tuple[Tensor, Tensor]:
    """The filters of some phases, (phases, 2 * reach), and where they start.

    Output number ``new * q + p`` lies between the inputs ``old * q + starts[p]`` and the one after it. The filter of
    phase p weights the `reach` inputs up to the former and the `reach` inputs from the latter.
    """
    scale = min(1.0, new / old)
    table = _kaiser_table() * scale
    slope = torch.diff(table, append=table[-1:])
    stride, reach = _kaiser_stride(old, new), _kaiser_reach(old, new)
    starts = phases * old // new
    fraction = (phases * old % new).double() / new

    def weights(distance: Tensor) -> Tensor:  # (phases,) in input samples -> (phases, reach), from near to far
        position = scale * distance * _POINTS_PER_CROSSING
        first = position.floor()
        index = first.long()[:, None] + stride * torch.arange(reach)
        inside = torch.arange(reach) < ((len(table) - first.long()) // stride)[:, None]
        index = torch.where(inside, index, 0)
        return torch.where(inside, table[index] + (position - first)[:, None] * slope[index], 0.0)

    return torch.cat([weights(fraction).flip(1), weights(1 - fraction)], 1), starts


# -- Kaldi log-mel spectrograms ----------------------------------------------------------------------------------------

AUDIOSET_MEAN, AUDIOSET_STD = -4.2677393, 4.5689974
LOWEST_HERTZ = 20.0
SMALLEST_ENERGY = torch.finfo(torch.float32).eps


def kaldi_front_end(waveform: Tensor, sample_rate: int, spec: AudioSpec, gain: float = 1.0) -> Tensor:
    """Compute (1, frames, mel) from (channels, samples), scaled by AudioSet's statistics, zero-padded.

    As published: only the first channel is used, minus the mean over all channels, and nothing is resampled, so the mel
    axis ends at half of the file's own rate.
    """
    _check_rate(sample_rate, spec)
    signal = (waveform[:1, : _kaldi_heard(sample_rate, spec)] - waveform.double().mean().to(waveform)) * gain
    spectrum = kaldi_log_mel(signal, sample_rate, spec.shape[2])[0]
    return _audioset_scaled(_cut_or_padded(spectrum, spec.shape[1]))[None]


SHORTEST_WINDOW = 1024  # samples: a window must have more


def kaldi_window_front_end(
    waveform: Tensor, sample_rate: int, spec: AudioSpec, span: tuple[float, float], gain: float
) -> Tensor:
    """HiCMAE's front end: mono, resampled to the record's rate like the training files, cropped to the span."""
    assert spec.sample_rate is not None
    mono = kaiser_resample(waveform.mean(0, keepdim=True), sample_rate, spec.sample_rate)
    first, last = sound_window(mono.shape[-1], span, _kaldi_sizes(spec.sample_rate)[0] * spec.shape[1])
    return kaldi_front_end(mono[:, first:last], spec.sample_rate, spec, gain)


def sound_window(samples: int, span: tuple[float, float], wanted: int) -> tuple[int, int]:
    """Return (first, last + 1) of the samples in a span. If the span is too short for a window, return the whole sound,
    provided that it is shorter than ``wanted`` samples.

    >>> sound_window(100_000, (0.25, 0.75), 40960)
    (25000, 75000)
    """
    if samples <= SHORTEST_WINDOW:
        raise MediaError(f"The sound has {samples} samples; the model needs more than {SHORTEST_WINDOW}.")
    first, last = (int(share * samples) for share in span)
    if last - first > SHORTEST_WINDOW:
        return first, last
    if samples < wanted:
        return 0, samples
    raise MediaError(
        f"The frames cover {last - first} of the sound's {samples} samples; the model needs more than "
        f"{SHORTEST_WINDOW}. The sound is too long for the few frames of this clip."
    )


def draw_gain(channels: int = 1, rng: Any = np.random) -> float:
    """Draw the gain of one clip in HiCMAE's training: 0.5 + Beta(10, 10)."""
    rng.randint(channels)  # the published code first draws a shift along the channel axis, which does nothing to mono
    return 0.5 + float(rng.beta(10, 10))


def kaldi_front_end_batch(waveforms: Sequence[Tensor], sample_rate: int, spec: AudioSpec) -> Tensor:
    """Run `kaldi_front_end` on many clips of one rate and any length at once: (B, 1, frames, mel)."""
    _check_rate(sample_rate, spec)
    if not waveforms:
        raise InputError("This batch has no sound; it needs at least one.")
    heard = _kaldi_heard(sample_rate, spec)
    waveforms = [torch.atleast_2d(waveform) for waveform in waveforms]
    counts = torch.tensor([_count_kaldi_frames(w.shape[-1], sample_rate) for w in waveforms])
    signals = [w[0, :heard] - w.double().mean().to(w) for w in waveforms]
    longest = max(len(signal) for signal in signals)
    spectra = _kaldi_log_mel_plain(
        torch.stack([F.pad(signal, (0, longest - len(signal))) for signal in signals]), sample_rate, spec.shape[2]
    )
    # frames are independent: those inside a clip are correct, the others are padding
    outside = torch.arange(spectra.shape[1])[None, :, None] >= counts[:, None, None]
    spectra = spectra.masked_fill(outside.to(spectra.device), 0.0)
    return _audioset_scaled(_cut_or_padded(spectra, spec.shape[1]))[:, None]


def kaldi_log_mel(signals: Tensor, sample_rate: int, bands: int = 128) -> Tensor:
    """Compute log-mel spectrograms (B, frames, bands) of (B, samples): 25 ms windows every 10 ms, no padding."""
    _count_kaldi_frames(signals.shape[-1], sample_rate)
    return _kaldi_log_mel_plain(signals, sample_rate, bands)


def _kaldi_log_mel_plain(signals: Tensor, sample_rate: int, bands: int) -> Tensor:
    shift, window = _kaldi_sizes(sample_rate)
    length = 1 << (window - 1).bit_length()  # of the Fourier transform: the next power of two
    frames = signals.unfold(-1, window, shift)  # (B, frames, window)
    frames = frames - frames.mean(-1, keepdim=True)
    before = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
    hann = torch.hann_window(window, periodic=False, dtype=signals.dtype, device=signals.device)
    # in float32 the rounding of the FFT, which differs between libraries, is visible in quiet bands
    windows = ((frames - 0.97 * before) * hann).double()
    spectrum = (torch.fft.rfft(windows, n=length).abs() ** 2).to(signals)
    energy = spectrum[..., :-1] @ _kaldi_filters(sample_rate, length, bands).to(signals)
    return energy.clamp(min=SMALLEST_ENERGY).log()


def _kaldi_sizes(sample_rate: int) -> tuple[int, int]:
    """(shift, window) in samples"""
    return int(sample_rate * 10.0 * 0.001), int(sample_rate * 25.0 * 0.001)


def _kaldi_heard(sample_rate: int, spec: AudioSpec) -> int:
    """Return how many samples the frames of the record cover; later samples are not used."""
    shift, window = _kaldi_sizes(sample_rate)
    return window + shift * (spec.shape[1] - 1)


def _count_kaldi_frames(samples: int, sample_rate: int) -> int:
    shift, window = _kaldi_sizes(sample_rate)
    if shift < 1 or samples < window:
        raise MediaError(
            f"The sound has {samples} samples at {sample_rate} Hz, less than one window of 25 ms ({window} samples)."
        )
    return 1 + (samples - window) // shift


@functools.lru_cache(maxsize=8)
def _kaldi_filters(sample_rate: int, length: int, bands: int) -> Tensor:
    """(length / 2, bands): triangles with equal steps and straight sides on the mel axis, from 20 Hz to half the rate."""

    lowest, highest = (1127 * math.log(1 + hertz / 700) for hertz in (LOWEST_HERTZ, sample_rate / 2))
    step = (highest - lowest) / (bands + 1)
    # float32 in this order of operations, like the filters of the published spectra
    band = torch.arange(bands)
    left, centre, right = (lowest + (band + corner) * step for corner in (0.0, 1.0, 2.0))
    place = (1127.0 * (1.0 + (sample_rate / length) * torch.arange(length // 2) / 700.0).log())[:, None]
    return torch.minimum((place - left) / (centre - left), (right - place) / (right - centre)).clamp(min=0)


def _check_rate(sample_rate: int, spec: AudioSpec) -> None:
    if spec.sample_rate is not None and sample_rate != spec.sample_rate:
        raise MediaError(
            f"The sound has {sample_rate} Hz and these weights were trained with {spec.sample_rate} Hz. Their mel axis "
            "ends at half the rate, so the sound is not resampled silently. Resample it first."
        )


def _cut_or_padded(spectra: Tensor, frames: int) -> Tensor:
    """Crop or zero-pad (..., any, mel) to (..., frames, mel); the padding is scaled afterwards, as published."""
    return F.pad(spectra, (0, 0, 0, max(0, frames - spectra.shape[-2])))[..., :frames, :]


def _audioset_scaled(spectra: Tensor) -> Tensor:
    return (spectra - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)


# name -> (waveform (channels, samples) float32, sample rate, record) -> tensor of the record's shape
FRONT_ENDS: dict[str, Callable[[Tensor, int, AudioSpec], Tensor]] = {
    "kaldi_fbank": kaldi_front_end,
    "mfcc": mfcc_front_end,
}

# front ends of the part of the sound that belongs to the frames of a view:
# name -> (waveform, sample rate, record, (from, to) as shares of the clip's length, gain) -> tensor
WINDOW_FRONT_ENDS: dict[str, Callable[[Tensor, int, AudioSpec, tuple[float, float], float], Tensor]] = {
    "kaldi_fbank_window": kaldi_window_front_end,
}
