"""Signals while something must be done as a whole."""

from __future__ import annotations

import os
import signal
import threading
from _signal import getsignal  # that of `signal` makes an enumeration's member of what it finds
from collections.abc import Callable, Iterable, Iterator
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
            _replace(_ENDS, lambda *_: None, before)
            yield signalled
        finally:
            signal.set_wakeup_fd(wakeup_before)
            _restore(before)
    finally:
        os.close(signalled)
        os.close(wakeup)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block in which SIGINT, SIGTERM and every signal with a handler in Python are put off until
    its end: no handler raises in its midst, and each is called then. So a process that is started
    in it is always stored where it can be ended. What is done in it must take a bounded time, since
    neither Ctrl-C nor an alarm ends it. Event loops hear of a signal by a descriptor, and so as
    ever. Python forgets what `signal.siginterrupt` said of a signal. Does nothing outside the main
    thread, since signals interrupt no other."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    try:
        # An ignored one interrupts nothing, and a process that is started must ignore it, too.
        _replace(_ALL, lambda number, _: came.append(number), before, but=signal.SIG_IGN)
        yield
    finally:
        try:
            _restore(before)
        finally:
            _make_up(list(dict.fromkeys(came)), before)


def _make_up(came: list[int], before: dict[signal.Signals, Any]) -> None:
    """Have each signal that came dealt with as it would have been, whatever the handlers raise."""
    try:
        while came:
            number = came[0]
            del came[0]  # and no call in between: what is not made up for is still there
            waits = before[signal.Signals(number)]
            if callable(waits):  # raised anew, it would reach an event loop's descriptor twice
                waits(number, None)
            else:
                signal.raise_signal(number)
    finally:
        if came:
            _make_up(came, before)


_ENDS = (signal.SIGINT, signal.SIGTERM)
"""That end a process, even where it has no handler for them."""

_ALL = (*sorted({*map(int, signal.valid_signals())} - {*_ENDS}), *_ENDS)


def _replace(
    numbers: Iterable[int],
    handler: Handler,
    before: dict[signal.Signals, Any],
    *,
    but: signal.Handlers | None = None,
) -> None:
    """Install the handler, and keep those before it in ``before``, also where one of them raises
    meanwhile. ``but`` stays, and so does a handler that was not installed from Python, because it
    could not be restored; of signals other than SIGINT and SIGTERM, all but Python's functions."""
    for number in numbers:
        found = getsignal(number)
        if callable(found) if number not in _ENDS else found not in (None, but):
            before[signal.Signals(number)] = found
            signal.signal(number, handler)


def _restore(before: dict[signal.Signals, Any]) -> None:
    """Install the handlers that were before: all of them, also where one of them raises."""
    raised = None
    for number, handler in before.items():
        while True:
            try:
                if getsignal(number) is handler:
                    break
                signal.signal(number, handler)
            except BaseException as why:  # of the handler of a signal that came just now
                raised = why
    if raised is not None:
        raise raised
