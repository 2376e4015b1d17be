"""SIGINT and SIGTERM at moments where they would tear something apart."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard() -> Iterator[int]:
    """A descriptor that can be read once SIGINT or SIGTERM came; meanwhile they do nothing else,
    so that they come neither between the making of the bus and its end, nor into that."""
    # Not by blocking them: a thread that a library started earlier would get them.
    signalled, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    told = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield signalled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(told)
        os.close(signalled)
        os.close(tell)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that SIGINT and SIGTERM do not tear apart: they come at its end. So a process that
    is started in it is known to whoever has to end it. Nothing changes outside the main thread,
    which no signal interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not None  # not Python's own: its host's, and left alone
    }
    try:
        yield
    finally:
        for number, handler in reversed(before.items()):  # SIGINT last: its handler raises
            signal.signal(number, handler)
        for interruption in dict.fromkeys(came):
            waits = before[signal.Signals(interruption)]
            if callable(waits):  # raised anew, it would reach an event loop's descriptor twice
                waits(interruption, None)
            else:
                signal.raise_signal(interruption)
