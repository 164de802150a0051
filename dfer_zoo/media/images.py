"""Frames from image files, through Pillow."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, MediaError
from .clip import check_size
from .container import open_file
from .limits import check_limit

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
# Pillow goes by the content, not by the name, and some of its other formats start programs (EPS starts Ghostscript)
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF")


def numeric_order(name: str) -> tuple:
    """Sorting key: compare the numbers in a name by value, and the rest as text.

    Args:
        name: A file name.

    Returns:
        A key for `sorted`.

    >>> sorted(["10.jpg", "2.jpg", "1.jpg"], key=numeric_order)
    ['1.jpg', '2.jpg', '10.jpg']
    """
    parts = re.split(r"([0-9]+)", name)
    return tuple((-1, part) if number % 2 == 0 else (int(part), part) for number, part in enumerate(parts))


ORDERS: dict[str, Callable[[str], Any]] = {"numeric": numeric_order, "string": str}


@dataclass(frozen=True)
class ImageFiles:
    """One image file per frame."""

    paths: tuple[Path, ...]
    upright: bool = True  # rotate as the EXIF orientation says; False: the pixels as they are stored

    @classmethod
    def of_folder(cls, folder: Path, order: str = "numeric") -> ImageFiles:
        if order not in ORDERS:
            raise InputError(f"order is {order!r}; expected one of {sorted(ORDERS)}.")
        try:
            names = [
                name
                for name in os.listdir(folder)
                if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")  # ._1.jpg, as macOS writes
            ]
        except OSError as error:
            raise MediaError(f"{folder}: this folder cannot be read ({error.strerror}).") from error
        if not names:
            raise MediaError(f"{folder}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        check_limit("frames", len(names), f"{folder}: the number of images")
        return cls(tuple(folder / name for name in sorted(names, key=ORDERS[order])))

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [_read_image(self.paths[index], self.upright) for index in indices]


def _read_image(path: Path, upright: bool = True) -> np.ndarray:
    from PIL import Image, ImageOps

    # everything that Pillow's parsers raise on damaged files
    damage = (OSError, ValueError, TypeError, SyntaxError, LookupError, ArithmeticError, EOFError, MemoryError)
    try:
        with open_file(path) as stream, Image.open(stream, formats=IMAGE_FORMATS) as image:
            check_size(image.width, image.height, str(path))
            if image.mode[0] in "IF":
                raise MediaError(f"{path}: the image has more than 8 bits per channel. Convert it to 8 bits first.")
            return np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))
    except (*damage, AttributeError, Image.DecompressionBombError) as error:
        raise MediaError(f"{path}: the image cannot be read ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return "not one of the formats that are read" if text.startswith("cannot identify image file") else text
