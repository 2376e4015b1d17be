"""What a process did, written to a file that survives its SIGKILL.

A ledger is a file of fixed rows of numbers. A row is complete before the count that covers it is
stored, so what a killed process had written down can be read, whenever it was killed.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Ledger:
    """Append-only rows of `columns` unsigned numbers; `most`: of how many rows."""

    def __init__(self, path: Path, columns: int, most: int = 1 << 24) -> None:
        self._row = struct.Struct(f"={columns}Q")
        self._head = struct.Struct("=2Q")  # rows, columns
        self._count = 0
        with path.open("xb+") as file:
            file.truncate(self._head.size + most * self._row.size)  # sparse
            self._memory = mmap.mmap(file.fileno(), 0)
        self._head.pack_into(self._memory, 0, 0, columns)

    def write(self, *row: int) -> None:
        at = self._head.size + self._count * self._row.size
        self._row.pack_into(self._memory, at, *row)
        self._count += 1
        self._memory[0:8] = self._count.to_bytes(8, "little")


def read(path: Path) -> NDArray[np.uint64]:
    """The rows of a ledger, that of a dead process too."""
    if not path.stat().st_size:  # killed before it had begun
        return np.zeros((0, 8), np.uint64)
    words = np.memmap(path, dtype=np.uint64, mode="r")
    rows, columns = int(words[0]), int(words[1])
    if not columns:
        return np.zeros((0, 8), np.uint64)
    return np.array(words[2 : 2 + rows * columns]).reshape(rows, columns)
