"""Signals as a queue, for a main thread that waits for nothing else."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def queued() -> Iterator[queue.SimpleQueue[int]]:
    """The numbers of SIGINT, SIGTERM and SIGHUP as they come, which do nothing else in the block.
    Call it in the main thread."""
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    before = {number: signal.getsignal(number) for number in _TAKEN}
    try:
        for number in _TAKEN:
            signal.signal(number, lambda number, _: came.put(number))
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
