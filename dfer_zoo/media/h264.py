"""Which frames of an H.264 file may be left undecoded, read from the headers of its packets.

>>> is_unreferenced(bytes([0, 0, 0, 1, 0x01])), is_unreferenced(bytes([0, 0, 0, 1, 0x61]))
(True, False)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

SLICE, IDR_SLICE = 1, 5  # types of NAL units
PICTURE = range(1, 6)


def has_lengths(container: Any, stream: Any) -> bool:
    """Return whether this is H.264 in an MP4 file, where the NAL units of a packet start with their lengths."""
    context = stream.codec_context
    record = context.extradata or b""
    return (
        "mp4" in container.format.name.split(",")
        and context.name == "h264"
        and len(record) > 4
        and record[0] == 1
        and record[4] & 3 == 3  # four bytes
    )


def is_restart(packet: Any) -> bool:
    """Return whether decoding may start here: no later picture refers to an earlier one.

    Key frames of other kinds exist, such as those of a periodic intra refresh.
    """
    kinds = {header & 31 for header in _headers(packet) if header & 31 in PICTURE}
    return kinds == {IDR_SLICE}


def is_unreferenced(packet: Any) -> bool:
    """Return whether no other picture refers to this one. False if the packet is damaged."""
    pictures = [header for header in _headers(packet) if header & 31 in PICTURE]
    return bool(pictures) and not any(header >> 5 & 3 for header in pictures)


def _headers(packet: Any) -> Iterator[int]:
    """Yield the first byte of every NAL unit; after a wrong length, that of a referenced picture."""
    data = memoryview(packet)
    place = 0
    while place + 4 < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if not 0 < length <= len(data) - place - 4:
            yield 3 << 5 | SLICE
            return
        yield data[place + 4]
        place += 4 + length
