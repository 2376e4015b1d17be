"""SIGINT and SIGTERM while something must be done as a whole."""

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
def awaited() -> Iterator[int]:
    """A descriptor that is readable once SIGINT or SIGTERM came. They do nothing else in the block,
    so they interrupt neither the making of a bus nor its end. Raises OSError where there is no
    descriptor to be had."""
    # Not by blocking them: a thread that a library started earlier would get them.
    signalled, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        wakeup_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        before: dict[signal.Signals, Any] = {}
        try:
            before = _replace(lambda *_: None)
            yield signalled
        finally:
            signal.set_wakeup_fd(wakeup_before)
            _restore(before)
    finally:
        os.close(signalled)
        os.close(wakeup)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block in which SIGINT and SIGTERM are put off until its end. So a process that is started
    in it is always stored where it can be ended. Does nothing outside the main thread, since
    signals interrupt no other."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    # An ignored one interrupts nothing, and a process that is started must ignore it, too.
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
    """Install the handler, and return those before it. ``but`` stays, and so does a handler that
    was not installed from Python, because it could not be restored."""
    return {
        number: signal.signal(number, handler)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) not in (None, but)
    }


def _restore(before: dict[signal.Signals, Any]) -> None:
    for number, handler in reversed(before.items()):  # SIGINT last: its handler raises
        signal.signal(number, handler)
