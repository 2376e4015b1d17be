"""The event loop of a link, whose place other threads take while it sleeps: `SharedLoop`.

What belongs to a link belongs to its loop, and needs no lock but one: that of the turn. The loop
has the turn but while it sleeps, and then another thread may have it: the one that waits for the
bus, and the one in which zenoh calls. Each does at once what has come to it, as if it were the
loop, so that no thread is woken only to hand over to the next.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from asyncio.events import _set_running_loop
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import TypeVarTuple, Unpack

_Ts = TypeVarTuple("_Ts")


class _Turn:
    """Who may do what belongs to the loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.release = self._lock.release
        self._loop_waits = self._other_waits = False  # each is written by one thread

    def wait_in_loop(self) -> None:
        """The loop's thread has it from then on."""
        self._loop_waits = True
        self._lock.acquire()
        self._loop_waits = False

    def wait(self) -> None:
        """Another thread has it from then on; one may wait at a time."""
        self._other_waits = True
        self._lock.acquire()
        self._other_waits = False

    def take(self) -> bool:
        """Have it if nobody has, nor waits for it: whether that is so."""
        if self._loop_waits or self._other_waits:
            return False
        return self._lock.acquire(blocking=False)


class _Selector(selectors.DefaultSelector):
    """Sleeps without the turn."""

    def __init__(self, turn: _Turn) -> None:
        super().__init__()
        self._turn = turn

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self._turn.release()
        try:
            return super().select(timeout)
        finally:
            self._turn.wait_in_loop()


class SharedLoop(asyncio.SelectorEventLoop):
    """One loop. It has no debug mode, since more than one thread calls it."""

    def __init__(self) -> None:
        self._turn = _Turn()
        self._lent = False
        """Another thread has it."""
        self._stirred = False
        """That has scheduled something."""
        super().__init__(_Selector(self._turn))
        self.set_debug(False)

    def run_forever(self) -> None:
        """As any loop does, with the turn."""
        self._turn.wait_in_loop()
        try:
            super().run_forever()
        finally:
            self._turn.release()

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """In its own thread, after what is scheduled."""
        self._stirred = self._lent
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """In its own thread, then."""
        self._stirred = self._lent
        return super().call_at(when, callback, *args, context=context)

    def in_its_place(self, function: Callable[[], object], *, wait: bool = False) -> bool:
        """By another thread: call it, which finds this loop running; what it raises is logged, as
        it is of the loop's callbacks. Whether it was called: not where another thread has the turn,
        or waits for it, unless this one is to `wait`, too; nor where the loop runs no more."""
        if wait:
            self._turn.wait()
        elif not self._turn.take():
            return False
        if not self.is_running():
            self._turn.release()
            return False
        self._lent, self._stirred = True, False
        _set_running_loop(self)
        try:
            function()
        except Exception as why:
            message = f"{function!r} has failed in the loop's place"
            self.call_exception_handler({"message": message, "exception": why})
        finally:
            _set_running_loop(None)
            stirred, self._lent = self._stirred, False
            self._turn.release()
            if stirred:
                with suppress(RuntimeError):  # it has been closed since
                    self.call_soon_threadsafe(_nothing)
        return True


def _nothing() -> None:
    """Wakes the loop."""
