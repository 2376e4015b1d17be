"""SIGTERM, by which supervisors, systemd and containers end a process: inside `run` the endpoint
finishes what it has, and `run` returns."""

from __future__ import annotations

import _thread
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shmbus import errors

log = logging.getLogger("shmbus")


@contextmanager
def drained(name: str, drain: Callable[[], object]) -> Iterator[None]:
    """A block in which SIGTERM has `drain` called in a thread of its own, so that handlers at work
    are not interrupted; a second one ends the process. Only in the main thread, and where the
    program does nothing else about SIGTERM."""
    if not untouched():
        yield
        return

    def finish() -> None:
        try:
            drain()
        except errors.BusError as why:
            log.warning("endpoint %r: %s", name, why)

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _thread.start_new_thread(finish, ())  # takes no lock that this thread may hold

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def untouched() -> bool:
    """Whether SIGTERM would end this process, and the calling thread can change that."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
