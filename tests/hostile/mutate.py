"""Damage files in ways that a seed decides."""

from __future__ import annotations

import random

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
DIGITS = (b"0", b"-1", b"9" * 5000, b"1e999", b"nan", b"4294967296", b"9223372036854775808", b"0.1", b"{}", b"[[[[")


def mutated(content: bytes, seed: int) -> bytes:
    """One damaged version of a file: one to four of the ways below, one after the other."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        content = draw.choice(WAYS)(content, draw)
    return content


def _flipped(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    reach = len(damaged) if draw.random() < 0.5 else min(len(damaged), 512)  # half of the time only the headers
    for _ in range(draw.choice((1, 2, 8, 64))):
        if reach:
            damaged[draw.randrange(reach)] = draw.randrange(256)
    return bytes(damaged)


def _integer(content: bytes, draw: random.Random) -> bytes:
    """An integer of the header becomes an extreme one."""
    size, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
    place = draw.randrange(max(1, min(len(content), 2048)))
    value = draw.choice(INTERESTING) % (1 << 8 * size)
    return content[:place] + value.to_bytes(size, order) + content[place + size :]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _repeated(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start : start + draw.choice((1, 16, 512))] * draw.choice((2, 50)) + content[start:]


def _removed(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.choice((1, 4, 100)) :]


def _swapped(content: bytes, draw: random.Random) -> bytes:
    a, b, c = sorted(draw.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _number(content: bytes, draw: random.Random) -> bytes:
    """A digit, as in the JSON of a header, becomes another number or something else."""
    digits = [place for place, byte in enumerate(content[:4096]) if 48 <= byte < 58]
    if not digits:
        return content
    place = draw.choice(digits)
    return content[:place] + draw.choice(DIGITS) + content[place + 1 :]


WAYS = (_flipped, _flipped, _integer, _integer, _cut, _repeated, _removed, _swapped, _number)
