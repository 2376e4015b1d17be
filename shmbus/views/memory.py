"""Shared memory as an observer reads it: without a lock, and never written. Nothing in the bus
acts upon what is read here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringbuf import Segment, SegmentMismatch
from ringbuf._kernel import Mapping
from ringbuf.segment import check_file
from shmbus.shared import layout, names


def open_segment(name: str, kind: layout.SegmentKind, least: int) -> Mapping:
    """A segment, read-only; it stays mapped while the mapping or a view of it is alive. Raises
    ``RingbufError``."""
    mapping = Segment.attach(name, kind=kind, layout=layout.LAYOUT).memory
    if mapping.size < least:
        raise SegmentMismatch(name, "size", least, mapping.size)
    return mapping


_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


@contextmanager
def open_file(name: str) -> Iterator[int]:
    """The file of a segment that is read, not mapped: it may be of any size, and be cut off at any
    time. Raises ``OSError``, ``RingbufError``."""
    file = os.open(names.SHM / name, _READING)
    try:
        check_file(name, file)
        yield file
    finally:
        os.close(file)


def copy_of(memory: Mapping, structure: layout.Dtype) -> Any:
    """The structure at the start of a segment as it is now. Bytes are copied far more
    quickly than structures."""
    return np.frombuffer(memoryview(memory)[: structure.itemsize].tobytes(), structure)[0]


class Numbers:
    """Some numbers of a structure, read together: one by one takes ten times as long."""

    def __init__(self, structure: layout.Dtype, *paths: str) -> None:
        """``paths``: fields, also of structures and arrays in it, as in ``incoming.0.head``."""
        found = [_find(structure, path) for path in paths]
        self._paths = paths
        self._picked = np.dtype(
            {
                "names": list(paths),
                "formats": [dtype for dtype, _ in found],
                "offsets": [offset for _, offset in found],
                "itemsize": structure.itemsize,
            }
        )

    def of(self, copy: np.void) -> dict[str, int]:
        """These numbers of a copy, by their paths."""
        picked: Any = copy.view(self._picked)
        return dict(zip(self._paths, picked.item(), strict=True))


def _find(structure: Any, path: str) -> tuple[Any, int]:
    """The type and place of a field."""
    dtype, at = structure, 0
    for step in path.split("."):
        if step.isdigit():
            dtype = dtype.base
            at += int(step) * dtype.itemsize
        else:
            dtype, offset = dtype.fields[step][:2]
            at += offset
    return dtype, at


def steady(head: NDArray[np.void], sequence: str, tries: int = 100) -> tuple[Any, NDArray[Any]]:
    """A copy of structures that change under a sequence number (odd while they do), and which of
    the copies are whole. One whose writer was killed during a change never is."""
    # Three calls in this order. On machines that reorder loads, the calls between them make a
    # torn read improbable, not impossible.
    memory = head.view(np.uint8)  # bytes are copied far more quickly than structures
    result = memory.copy().view(head.dtype)
    done = np.zeros(head.shape, bool)
    for turn in range(tries):
        if turn >= 10:
            time.sleep(0.001)  # its writer has lost the CPU, or waits for our GIL
        before = head[sequence].copy()
        copy = memory.copy().view(head.dtype)
        still = (before == head[sequence]) & (before % 2 == 0)
        result[still & ~done] = copy[still & ~done]
        done |= still
        if done.all():
            break
    return result, done


def table(memory: Mapping | None, count: Any, at: Any, structure: layout.Dtype) -> NDArray[np.void]:
    """A table of structures in a segment, live; empty where it would not lie within it."""
    count, at = int(count), int(at)
    size = count * structure.itemsize
    if memory is None or count > 65536 or at % 8 or at + size > memory.size:
        return np.zeros(0, structure)
    return layout.view(memory, structure, count, at)
