"""Signals as a queue, for a main thread that waits for nothing else."""

from __future__ import annotations

import os
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


class HangUp:
    """Whether a SIGHUP says that the terminal has gone in which this process was started, and not
    that its file is to be read again. Under ``nohup`` it never does. Make it before `queued`."""

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._terminals = () if ignored else tuple(filter(os.isatty, (0, 1, 2)))

    def __bool__(self) -> bool:
        return not all(map(os.isatty, self._terminals))
