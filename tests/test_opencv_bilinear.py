"""OpenCV's bilinear resize without OpenCV."""

import math

import numpy as np
import pytest

from dfer_zoo.media.resize import opencv_bilinear

SIZES = [((5, 7), (11, 3)), ((16, 9), (16, 20)), ((40, 30), (17, 13)), ((1, 1), (4, 4)), ((3, 50), (9, 50))]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixel_by_pixel(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same formula pixel by pixel, in Python integers."""

    def taps(position: int, length: int, target: int, flat_ends: bool) -> list[tuple[int, int]]:
        place = np.float32((position + 0.5) * (1.0 / (target / length)) - 0.5)
        first = math.floor(place)
        part = np.float32(place - np.float32(first))
        if flat_ends and (first < 0 or first >= length - 1):
            part = np.float32(0)
        weights = round(float(np.float32(2048) * (np.float32(1) - part))), round(float(np.float32(2048) * part))
        return [(min(max(first + step, 0), length - 1), weights[step]) for step in (0, 1)]

    out = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        rows = taps(y, frame.shape[0], height, False)
        for x in range(width):
            columns = taps(x, frame.shape[1], width, True)
            for c in range(3):
                across = [sum(w * int(frame[row, column, c]) for column, w in columns) for row, _ in rows]
                out[y, x, c] = (sum((v * (r >> 4)) >> 16 for (_, v), r in zip(rows, across)) + 2) >> 2
    return out


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resizing_matches_the_integer_formula(source, target):
    frame = noise(*source)
    assert np.array_equal(opencv_bilinear(frame, *target), pixel_by_pixel(frame, *target))


def test_an_image_of_the_right_size_is_unchanged():
    frame = noise(6, 8)
    assert np.array_equal(opencv_bilinear(frame, 6, 8), frame)
    assert np.array_equal(pixel_by_pixel(frame, 6, 8), frame)


def test_resizing_matches_opencv():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width, new_height, new_width = (int(n) for n in rng.integers(1, 300, 4))
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(opencv_bilinear(frame, new_height, new_width), theirs)
