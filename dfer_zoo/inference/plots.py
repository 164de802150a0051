"""Pictures of results, drawn with Pillow: what a plain install can show."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..atomic import write_atomically

INK, PAPER, GRID = (40, 40, 46), (255, 255, 255), (215, 215, 222)
COLOURS = (
    (120, 120, 128), (64, 160, 150), (236, 166, 28), (58, 110, 190), (205, 60, 50),
    (130, 80, 170), (95, 140, 40), (226, 108, 170), (140, 100, 60), (30, 160, 210), (90, 90, 200),
)  # fmt: skip


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def confusion_picture(table: np.ndarray, labels: Sequence[str], title: str = "") -> Image.Image:
    """Rows are the true classes; a cell is as dark as its share of the row, and says how many clips."""
    cell, margin, top = 56, 24 + 8 * max(map(len, labels)), 64
    picture = Image.new("RGB", (margin + cell * len(labels) + 24, top + cell * len(labels) + 72), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((margin, 18), title, fill=INK, font=_font(16))
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    for i, name in enumerate(labels):
        draw.text((margin - 10, top + (i + 0.5) * cell), name, fill=INK, font=_font(13), anchor="rm")
        draw.text(
            (margin + (i + 0.5) * cell, top + cell * len(labels) + 14 + 18 * (i % 2)),
            name, fill=INK, font=_font(13), anchor="mm",
        )  # fmt: skip
        for j in range(len(labels)):
            shade = float(shares[i, j])
            colour = tuple(round(255 + shade * (dark - 255)) for dark in (34, 84, 150))
            box = (margin + j * cell, top + i * cell, margin + (j + 1) * cell, top + (i + 1) * cell)
            draw.rectangle(box, fill=colour, outline=GRID)
            draw.text(
                ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), str(int(table[i, j])),
                fill=PAPER if shade > 0.5 else INK, font=_font(14), anchor="mm",
            )  # fmt: skip
    draw.text((margin, top + cell * len(labels) + 48), "columns: predicted, rows: true", fill=INK, font=_font(12))
    return picture


def timeline_picture(
    times: Sequence[tuple[float, float]],
    answers: np.ndarray,
    labels: Sequence[str],
    frames: Sequence[np.ndarray] = (),
    title: str = "",
) -> Image.Image:
    """Probabilities over time. ``times`` are the windows' (start, end) in seconds, ``answers`` (windows, classes);
    ``frames`` are shown above, evenly spread."""
    width, height, left, legend, top = 720, 220, 52, 150, 44
    strip = 96 if len(frames) else 0
    picture = Image.new("RGB", (left + width + legend, top + strip + height + 48), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((left, 14), title, fill=INK, font=_font(16))
    for k, frame in enumerate(frames):
        small = Image.fromarray(np.asarray(frame)).resize((84, 84), Image.Resampling.BILINEAR)
        picture.paste(small, (left + round((k + 0.5) * width / len(frames)) - 42, top))
    base = top + strip + height
    end = max(stop for _, stop in times)

    def place(t: float, p: float) -> tuple[float, float]:
        return left + width * t / end, base - height * p

    for share in (0, 0.25, 0.5, 0.75, 1):
        draw.line([place(0, share), place(end, share)], fill=GRID)
        draw.text((left - 8, place(0, share)[1]), f"{100 * share:.0f} %", fill=INK, font=_font(12), anchor="rm")
    step = max(0.5, round(end / 8 * 2) / 2)
    for t in np.arange(0, end + 1e-6, step):
        draw.text((place(float(t), 0)[0], base + 14), f"{t:g} s", fill=INK, font=_font(12), anchor="mm")
    order = np.argsort(-np.asarray(answers).max(0), kind="stable")
    for rank, k in enumerate(order):
        colour = COLOURS[k % len(COLOURS)]
        # a window's answer stands at its middle, and reaches over its whole length where there is one only
        points = [place((a + b) / 2, float(p)) for (a, b), p in zip(times, answers[:, k])]
        if len(points) == 1:
            points = [place(times[0][0], float(answers[0, k])), place(times[0][1], float(answers[0, k]))]
        draw.line(points, fill=colour, width=3 if rank == 0 else 2)
        y = top + strip + 10 + 18 * rank
        draw.rectangle((left + width + 14, y - 5, left + width + 24, y + 5), fill=colour)
        draw.text((left + width + 32, y), labels[k], fill=INK, font=_font(13), anchor="lm")
    return picture


def write_png(path: Path, picture: Image.Image) -> Path:
    content = io.BytesIO()
    picture.save(content, "png")
    write_atomically(path, content.getvalue())
    return path
