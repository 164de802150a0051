import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dfer_zoo.errors import InputError, MediaError
from dfer_zoo.transforms import augment, sampling
from dfer_zoo.transforms.sampling import segment_random


def noise(height, width, count=2, seed=0):
    return list(np.random.RandomState(seed).randint(0, 256, (count, height, width, 3)).astype(np.uint8))


class Log(random.Random):
    """Python's generator, with a log of its calls."""

    def __init__(self, seed):
        super().__init__(seed)
        self.calls = []

    def uniform(self, a, b):
        self.calls.append(("uniform", a, b))
        return super().uniform(a, b)

    def randint(self, a, b):
        self.calls.append(("randint", a, b))
        return super().randint(a, b)


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.0, 1.234567, 1.5, 2.9])
def test_brightness_matches_pillow_exactly(factor):
    frame = noise(40, 50, 1)[0]
    theirs = np.asarray(ImageEnhance.Brightness(Image.fromarray(frame)).enhance(factor))
    assert np.array_equal(augment.scale_brightness([frame], factor)[0], theirs)


def test_all_frames_get_the_same_crop():
    frame = noise(60, 80, 1)[0]
    first, second = augment.random_resized_crop([frame, frame], 32, rng=random.Random(3))
    assert first.shape == (32, 32, 3) and np.array_equal(first, second)


def test_after_ten_failed_draws_a_square_of_the_resized_frame_is_cropped():
    frames = noise(8, 400)  # too flat for any part of this area
    rng = Log(0)
    per_frame = augment.random_resized_crop(frames, 16, rng=rng, area=(0.9, 1.0))
    assert [frame.shape for frame in per_frame] == [(16, 16, 3)] * 2
    assert rng.calls[-4:] == [("randint", 0, 784), ("randint", 0, 0)] * 2
    assert sum(call[0] == "uniform" for call in rng.calls) == 20
    rng = Log(0)
    per_clip = augment.random_resized_crop(frames, 16, rng=rng, area=(0.9, 1.0), fallback="per_clip")
    assert rng.calls[-2:] == [("randint", 0, 784), ("randint", 0, 0)] and len(rng.calls) == 22
    assert np.array_equal(per_clip[0], per_frame[0]) and not np.array_equal(per_clip[1], per_frame[1])
    with pytest.raises(InputError, match="fallback is 'centre'"):
        augment.random_resized_crop(frames, 16, fallback="centre")


def test_the_longer_side_is_rounded_down():
    assert augment.resize_shorter(noise(33, 50, 1)[0], 16).shape == (16, 24, 3)
    assert augment.resize_shorter(noise(50, 33, 1)[0], 16).shape == (24, 16, 3)
    assert augment.resize_shorter(noise(50, 50, 1)[0], 16).shape == (16, 16, 3)


def test_all_frames_are_flipped_together():
    frames = noise(4, 5)
    seen = set()
    for seed in range(8):
        flipped = augment.flip(frames, rng=random.Random(seed))
        kept = [np.array_equal(a, b) for a, b in zip(flipped, frames)]
        mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped, frames)]
        assert all(kept) or all(mirrored)
        seen.add(all(kept))
    assert seen == {True, False}


def test_training_samples_one_frame_per_segment():
    indices = segment_random(100, 16, rng=np.random.RandomState(0))
    assert all(6 * i <= index < 6 * i + 6 for i, index in enumerate(indices))
    np.random.seed(5)
    expected = np.random.RandomState(5).random_sample()
    assert segment_random(5, 16) == [0, 1, 2, 3, *[4] * 12]
    assert np.random.random_sample() == expected


@pytest.mark.parametrize(
    "rule",
    [
        lambda count: sampling.segment_centres(count, 16),
        lambda count: sampling.segment_centres(count, 16, "stretch"),
        lambda count: segment_random(count, 16),
        lambda count: sampling.window_centres(count, 15, 108),
        lambda count: sampling.strided(count, 16, 4),
        lambda count: sampling.strided_random(count, 16, 4),
        lambda count: sampling.random_windows(count, 16, 4),
    ],
)
def test_sampling_rules_reject_clips_without_frames(rule):
    assert rule(1)
    with pytest.raises(MediaError, match="no frames to choose from"):
        rule(0)
