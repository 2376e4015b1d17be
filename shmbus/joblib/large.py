"""Large arrays of a call: each is copied once into memory that every worker maps, however many
tasks are given it.

The memory is a memfd, which has no name in /dev/shm and is gone with the last process that maps it.
Workers open it by way of /proc while the task that needs it is under way.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

KEPT = 32
"""Arrays that stay although no task under way has them: the next one may have the same."""

Array = np.ndarray[Any, Any]
_PLACE = "/proc/"


class Mapped:
    """One array, and the file with its copy, which is closed with the last reference to this."""

    def __init__(self, array: Array, mode: str) -> None:
        self.array = array
        self.order = "C" if array.flags.c_contiguous else "F"
        self.mode = mode
        self.file = os.memfd_create("shmbus-joblib")
        rest = array.ravel(order="K").view(np.uint8).data
        while rest:
            rest = rest[os.write(self.file, rest) :]

    def __del__(self) -> None:
        os.close(self.file)

    def reduced(self) -> tuple[Callable[..., Array], tuple[object, ...]]:
        """How pickle is told to make the array in the worker."""
        path = f"{_PLACE}{os.getpid()}/fd/{self.file}"
        return opened, (path, self.array.dtype, self.mode, self.array.shape, self.order)


def opened(path: str, dtype: np.dtype[Any], mode: Any, shape: tuple[int, ...], order: Any) -> Array:
    """The array in the worker, of the class that joblib's own backends give it."""
    return np.memmap(path, dtype=dtype, mode=mode, shape=shape, order=order)


def is_temporary(array: np.memmap[Any, Any]) -> bool:
    """Whether a map is of such memory, rather than of a file of the user's."""
    return str(array.filename).startswith(_PLACE)


class LargeArrays:
    """Those of one call.

    Arguments:
        least: bytes from which an array is large; None: none is.
        mode: how workers map them, as `numpy.memmap` calls it: "r" reading only, "c" with changes
            of their own, "r+" with changes that all workers see (and the caller does not).
    """

    def __init__(self, least: int | None, mode: str | None) -> None:
        self.least = least if mode else None
        self.mode = "r+" if mode == "w+" else mode or "r"
        self._kept: OrderedDict[int, Mapped] = OrderedDict()
        self._lock = threading.Lock()

    def mapped(self, array: Array) -> Mapped | None:
        """The array in memory that can be mapped. None: it is to be pickled as usual."""
        if self.least is None or array.nbytes <= self.least or array.dtype.hasobject:
            return None
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            return None
        with self._lock:
            known = self._kept.get(id(array))
            if known is None:
                known = self._kept[id(array)] = Mapped(array, self.mode)
            self._kept.move_to_end(id(array))
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return known

    def forget(self) -> None:
        """At the end of a call: what the caller changes from here on is seen by the next one."""
        with self._lock:
            self._kept.clear()
