"""Calls that a signal interrupts: at a place at which CPython runs the handlers of signals, that is
where a function begins, where a loop goes back, and after a call; or at some moment, also in C."""

from __future__ import annotations

import _weakrefset
import opcode
import os
import signal
import sys
from collections.abc import Callable
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


_OURSELVES = os.path.dirname(__file__)

_FORGET = next(
    code
    for code in _weakrefset.WeakSet.__init__.__code__.co_consts
    if isinstance(code, CodeType) and code.co_name == "_remove"
)
"""What a weak set calls when one of its members is collected: what is raised in there, Python only
prints, whoever's set it is."""


class Interruption(BaseException):
    """What the signal's handler raises, if nothing else is said."""


class TimeIsUp(Exception):
    """What it raises where it puts an end to what takes too long."""


KINDS = (Interruption, KeyboardInterrupt, TimeIsUp)


class Interrupter:
    """Has a signal come while a call is made, whose handler raises."""

    def __init__(self, raised: type[BaseException]) -> None:
        self._raised = raised

    def comes_out_of(self, call: Callable[[], object]) -> bool:
        """Whether the signal came; then what its handler raised came out of the call."""
        came = False
        why: BaseException | None = None

        def handler(number: int, frame: FrameType | None) -> None:
            nonlocal came
            came = True
            raise self._raised

        before = signal.signal(SIGNAL, handler)
        try:
            self._through(call)
        except BaseException as raised:
            why = raised
        finally:
            signal.signal(SIGNAL, before)
        # A `threading.Condition` that is interrupted may complain about its lock instead.
        while type(why) is RuntimeError:
            why = why.__context__
        if why is not None and not isinstance(why, self._raised):
            raise why
        assert (why is not None) == came, "it was swallowed"
        return came

    def _through(self, call: Callable[[], object]) -> None:
        """Make the call."""
        raise NotImplementedError


class Alarm(Interrupter):
    """The signal comes so many seconds after a call has begun, if it has not ended by then."""

    def __init__(self, seconds: float, raised: type[BaseException] = Interruption) -> None:
        super().__init__(raised)
        self._seconds = seconds

    def _through(self, call: Callable[[], object]) -> None:
        try:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
            call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


class Journey(Interrupter):
    """The places that a call comes to. At `until` the signal comes."""

    def __init__(
        self, until: Place | None = None, raised: type[BaseException] = Interruption
    ) -> None:
        super().__init__(raised)
        self._until = until
        self._over = False
        self.places: dict[Place, None] = {}

    def _through(self, call: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self._begin)
        try:
            call()
        finally:
            sys.settrace(before)

    def _begin(self, frame: FrameType, event: str, argument: object) -> Any:
        if self._over or frame.f_code.co_filename.startswith(_OURSELVES) or frame.f_code is _FORGET:
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
