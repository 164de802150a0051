"""Read the arrays of HDF5 files written by Keras 1 and 2, so that one small file does not need an HDF5 library.

Supported are a version 0 superblock, groups with symbol tables, version 1 object headers, and contiguous little-endian
floats. Other files raise an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import WeightsError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
DATASPACE, DATATYPE, LAYOUT, CONTINUATION, SYMBOL_TABLE = 1, 3, 8, 16, 17
FLOATING = 1  # class of a datatype
CONTIGUOUS = 1  # class of a layout
DEEPEST = 64  # nested groups


def is_hdf5(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(SIGNATURE)) == SIGNATURE


def read_hdf5(path: str | Path, group: str = "") -> dict[str, np.ndarray]:
    """Read the arrays below a group by their path inside it; by default all arrays of the file.

    Raises:
        WeightsError: The file is damaged, or uses parts of HDF5 that Keras does not.
    """
    path = Path(path)
    file = _File(path.read_bytes())
    try:
        arrays = dict(file.arrays(file.root, ""))
    except (struct.error, IndexError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not an HDF5 file that can be read here ({error}). Download it again.") from error
    prefix = f"{group}/" if group else ""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class _File:
    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def root(self) -> int:
        """Return the address of the root group's object header."""
        if self.data[:8] != SIGNATURE:
            raise ValueError("its signature is missing")
        version, size_of_offsets, size_of_lengths = self.data[8], self.data[13], self.data[14]
        if (version, size_of_offsets, size_of_lengths) != (0, 8, 8):
            raise ValueError(f"its superblock has version {version}; only version 0 is known")
        return self.integer(24 + 4 * 8 + 8)  # after four addresses: an entry, whose second field is this address

    def integer(self, place: int) -> int:
        return struct.unpack_from("<Q", self.data, place)[0]

    def arrays(self, header: int, path: str, depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (path, array) of everything below an object."""
        if depth > DEEPEST:
            raise ValueError("its groups are nested without end")
        messages = dict(self.messages(header))
        if SYMBOL_TABLE in messages:
            tree, heap = struct.unpack_from("<QQ", self.data, messages[SYMBOL_TABLE])
            for name, child in self.links(tree, self.integer(heap + 24)):
                yield from self.arrays(child, f"{path}/{name}" if path else name, depth + 1)
        elif LAYOUT in messages:
            yield path, self.array(messages)

    def messages(self, header: int) -> Iterator[tuple[int, int]]:
        """Yield (type, address of the data) of an object header's messages."""
        if self.data[header] != 1:
            raise ValueError(f"an object header has version {self.data[header]}; only version 1 is known")
        count = struct.unpack_from("<H", self.data, header + 2)[0]
        blocks = [(header + 16, struct.unpack_from("<I", self.data, header + 8)[0])]
        while blocks:
            place, size = blocks.pop(0)
            end = place + size
            while place + 8 <= end and count:
                kind, length = struct.unpack_from("<HH", self.data, place)
                if kind == CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", self.data, place + 8))
                yield kind, place + 8
                place, count = place + 8 + length, count - 1

    def links(self, node: int, names: int) -> Iterator[tuple[str, int]]:
        """Yield (name, header) of a group's members, from its B-tree; ``names`` is the address of the names."""
        if self.data[node : node + 4] == b"SNOD":
            for entry in range(struct.unpack_from("<H", self.data, node + 6)[0]):
                name, header = struct.unpack_from("<QQ", self.data, node + 8 + 40 * entry)
                start = names + name
                yield self.data[start : self.data.index(b"\0", start)].decode(), header
            return
        if self.data[node : node + 4] != b"TREE":
            raise ValueError("a group has no B-tree")
        for child in range(struct.unpack_from("<H", self.data, node + 6)[0]):
            yield from self.links(self.integer(node + 24 + 16 * child + 8), names)

    def array(self, messages: dict[int, int]) -> np.ndarray:
        space, kind, layout = messages[DATASPACE], messages[DATATYPE], messages[LAYOUT]
        rank = self.data[space + 1]
        shape = struct.unpack_from(f"<{rank}Q", self.data, space + 8)
        number_class, big_endian = self.data[kind] & 15, self.data[kind + 1] & 1
        width = struct.unpack_from("<I", self.data, kind + 4)[0]
        if (number_class, big_endian) != (FLOATING, 0) or width not in (2, 4, 8):
            # texts and counters, such as the optimizer's step
            return np.zeros(0, np.float32)
        if self.data[layout] != 3 or self.data[layout + 1] != CONTIGUOUS:
            raise ValueError("an array is compressed or in chunks")
        address = self.integer(layout + 2)
        return np.frombuffer(self.data, f"<f{width}", int(np.prod(shape, dtype=np.int64)), address).reshape(shape)
