"""Many processes woken one after the other without any bus; each is a role (stage.py).

What is left between two of them is the system's: its wake-ups, and its scheduler, which lets them
take turns on the cores that there are.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from time import monotonic_ns

import numpy as np
import numpy.typing as npt

from benchmark.measure.paced import Pace
from benchmark.stage import Stage


@contextmanager
def bells(number: int) -> Iterator[Sequence[int]]:
    """So many descriptors that processes can sleep on, each for every single ring."""
    opened = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE) for _ in range(number)]
    try:
        yield opened
    finally:
        for bell in opened:
            os.close(bell)


def waker(stage: Stage, each: Sequence[int], memory: mmap.mmap, pace: Pace) -> None:
    """Wake all of them, at a pace, and note when."""
    sent = np.frombuffer(memory, dtype=np.int64)
    numbers = count()
    stage.ready()
    for _ in pace.ticks():
        sent[next(numbers)] = monotonic_ns()
        for bell in each:
            os.eventfd_write(bell, 1)


def waiter(stage: Stage, bell: int, memory: mmap.mmap, pace: Pace) -> npt.NDArray[np.int64]:
    """Nanoseconds until this one ran, each time."""
    sent = np.frombuffer(memory, dtype=np.int64)
    took = np.empty(pace.messages, dtype=np.int64)
    stage.ready()
    for number in range(pace.messages):
        os.eventfd_read(bell)
        took[number] = monotonic_ns() - sent[number]
    return took
