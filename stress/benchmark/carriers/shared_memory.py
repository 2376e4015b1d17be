"""``multiprocessing.shared_memory`` by hand, with a queue for its names.

The usual way makes a segment for each frame, which its consumer removes. The other one has a few
segments that both ends keep open, and a second queue for the names of those that are free again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Queue, resource_tracker
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from benchmark.roles.frames import Send, Take, Use

from . import DEPTH


class Names:
    """The queues of names: `full` towards the consumer, `free` back."""

    def __init__(self) -> None:
        resource_tracker.ensure_running()  # one for both ends: else that of each removes it
        self.full: Queue[str] = Queue(DEPTH)
        self.free: Queue[str] = Queue()


def _use(memory: SharedMemory, nbytes: int, use: Use) -> None:
    assert memory.buf is not None
    use(np.frombuffer(memory.buf[:nbytes], np.uint64))


@contextmanager
def sending(names: Names) -> Iterator[Send]:
    def send(nbytes: int, write: Use) -> None:
        memory = SharedMemory(create=True, size=nbytes)
        _use(memory, nbytes, write)
        names.full.put(memory.name)
        memory.close()

    yield send


@contextmanager
def taking(names: Names) -> Iterator[Take]:
    def take(read: Use) -> None:
        memory = SharedMemory(names.full.get())
        _use(memory, memory.size, read)
        memory.close()
        memory.unlink()

    yield take


@contextmanager
def sending_again(names: Names) -> Iterator[Send]:
    segments: dict[str, SharedMemory] = {}

    def send(nbytes: int, write: Use) -> None:
        while True:
            if len(segments) < DEPTH:
                memory = SharedMemory(create=True, size=nbytes)
                segments[memory.name] = memory
            else:
                memory = segments[names.free.get()]
            if memory.size == nbytes:
                break
            del segments[memory.name]  # of frames of another size
            memory.close()
            memory.unlink()
        _use(memory, nbytes, write)
        names.full.put(memory.name)

    try:
        yield send
    finally:
        for memory in segments.values():
            memory.close()
            memory.unlink()


@contextmanager
def taking_again(names: Names) -> Iterator[Take]:
    segments: dict[str, SharedMemory] = {}

    def take(read: Use) -> None:
        name = names.full.get()
        if name not in segments:
            segments[name] = SharedMemory(name)
        _use(segments[name], segments[name].size, read)
        names.free.put(name)

    try:
        yield take
    finally:
        for memory in segments.values():
            memory.close()
