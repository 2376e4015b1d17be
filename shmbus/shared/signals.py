"""SIGINT and SIGTERM at moments where they would tear something apart."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def heard() -> Iterator[int]:
    """A descriptor that can be read once SIGINT or SIGTERM came; meanwhile they do nothing else,
    so that they come neither between the making of the bus and its end, nor into that."""
    # Not by blocking them: a thread that a library started earlier would get them.
    signalled, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    told = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    before = _replace(lambda *_: None)
    try:
        yield signalled
    finally:
        signal.set_wakeup_fd(told)
        os.close(signalled)
        os.close(tell)
        _restore(before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that SIGINT and SIGTERM do not tear apart: they come at its end. So a process that
    is started in it is known to whoever has to end it. Nothing changes outside the main thread,
    which no signal interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # An ignored one tears nothing apart, and a process that is started shall ignore it, too.
    before = _replace(lambda number, _: came.append(number), but=signal.SIG_IGN)
    try:
        yield
    finally:
        _restore(before)
        for interruption in dict.fromkeys(came):
            waits = before[signal.Signals(interruption)]
            if callable(waits):  # raised anew, it would reach an event loop's descriptor twice
                waits(interruption, None)
            else:
                signal.raise_signal(interruption)


def _replace(handler: Handler, *, but: signal.Handlers | None = None) -> dict[signal.Signals, Any]:
    """Have the handler called instead of what is returned; ``but`` stays, and so does what is not
    Python's own: it is its host's, and could not be put back."""
    return {
        number: signal.signal(number, handler)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in (None, but)
    }


def _restore(before: dict[signal.Signals, Any]) -> None:
    for number, handler in reversed(before.items()):  # SIGINT last: its handler raises
        signal.signal(number, handler)
