"""Calls that a signal interrupts: at a place at which CPython runs the handlers of signals, that is
where a function begins, where a loop goes back, and after a call; or at some moment, also in C."""

from __future__ import annotations

import _weakrefset
import opcode
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

SIGNAL = signal.SIGALRM

Place = tuple[tuple[CodeType, int], ...]
"""Where in a function, and where that was called, and where its caller was."""

_AFTER = frozenset(
    code
    for name, code in opcode.opmap.items()
    if name in ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD")
)
"""Instructions after which it runs them. What a call may be specialised to is shown as these."""


_PASSED = (os.path.dirname(__file__), _weakrefset.__file__)
"""Ourselves, and what is called in a finalizer, whose exceptions Python only prints."""


class Interruption(BaseException):
    """What the signal's handler raises."""


@contextmanager
def handled() -> Iterator[list[int]]:
    """A block in which the signal's handler raises; the list has the signals for which it did."""
    came: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise Interruption

    before = signal.signal(SIGNAL, handler)
    try:
        yield came
    finally:
        signal.signal(SIGNAL, before)


class Alarm:
    """The signal comes so many seconds after a call has begun, if it has not ended by then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def through(self, call: Callable[[], object]) -> None:
        """Call it."""
        try:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Journey:
    """The places that a call comes to. At `until` the signal comes."""

    def __init__(self, until: Place | None = None) -> None:
        self._until = until
        self._over = False
        self.places: dict[Place, None] = {}

    def through(self, call: Callable[[], object]) -> None:
        """Call it."""
        before = sys.gettrace()
        sys.settrace(self._begin)
        try:
            call()
        finally:
            sys.settrace(before)

    def _begin(self, frame: FrameType, event: str, argument: object) -> Any:
        if self._over or frame.f_code.co_filename.startswith(_PASSED):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        code = frame.f_code.co_code
        last = -1

        def step(frame: FrameType, event: str, argument: object) -> Any:
            nonlocal last
            if event == "opcode":
                if last >= 0 and code[last] in _AFTER:
                    self._pass(frame)
                last = frame.f_lasti
            return step

        if opcode.opname[code[max(0, frame.f_lasti)]] == "RESUME":  # not where a generator is ended
            self._pass(frame)
        return step

    def _pass(self, frame: FrameType) -> None:
        if self._over:
            return
        place = _place(frame)
        self.places[place] = None
        if place == self._until:
            self._over = True
            signal.raise_signal(SIGNAL)


def _place(frame: FrameType | None) -> Place:
    found: list[tuple[CodeType, int]] = []
    while frame is not None and len(found) < 3:
        found.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def shown(place: Place) -> str:
    """Where that is."""
    code, at = place[0]
    lines = [line for start, end, line in code.co_lines() if start <= at < end]
    return f"{code.co_filename}:{lines and lines[0]}, {code.co_qualname}"
