"""What workers of a pool do for a measurement. They import nothing that they do not need."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

MIB = 1 << 20
Array = npt.NDArray[np.uint64]

_array: Array | None = None


def increment(number: int) -> int:
    """A task that is over at once."""
    return number + 1


def first_of(array: Array) -> int:
    """Read a cache line of what came."""
    return array.item(0)


def array_of(number: int) -> Array:
    """1 MiB that the worker has."""
    global _array
    if _array is None:
        _array = np.zeros(MIB // 8, np.uint64)
    _array[0] = number
    return _array


def process(_: object) -> int:
    """Which process this is; slow enough that one alone does not take all such tasks."""
    time.sleep(0.01)
    return os.getpid()


def lie_down(path: str) -> None:
    """Write into a file which process this is, and never end."""
    written = Path(path + ".part")
    written.write_text(str(os.getpid()))
    written.rename(path)
    while True:
        time.sleep(60.0)
