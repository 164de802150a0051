"""Annotation files of the published systems -> one kind of row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One labelled clip of a data set."""

    path: str  # a video file, or a folder of frames
    label: int
    audio: str | None = None  # where the sound is, if not in the video file
    num_frames: int | None = None  # as the annotation says; the published rules trust it over the folder
    subset: str | None = None  # "training", "validation", "testing"
