"""The executor's own thread: it sees to the calls for whose results nobody waits, tells who wants
to be told, and ends what the executor was made of.

While others come by (`Line.come`), it only looks now and then whether they still do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from shmbus import errors

from .line import NEVER

if TYPE_CHECKING:
    from .line import Line
    from .recalling import Recalling

log = logging.getLogger("shmbus")

PAUSE = 4_000_000
"""Nanoseconds for which nobody has come, after which this thread is told of each reply."""


class Attending:
    """The thread. It has no reference to the executor, which may be dropped."""

    def __init__(
        self, line: Line, recalling: Recalling, pool: str, finish: Callable[[], None]
    ) -> None:
        self.line = line
        self._recalling = recalling
        self.owner: object = None
        """Tells this thread to leave, when the executor is dropped."""
        self._finish = finish
        self._leaving = False
        self.thread = threading.Thread(target=self._run, name=f"shmbus:{pool}:tasks", daemon=True)

    def leave(self) -> None:
        """End all, once every call has ended. Does not wait."""
        self._leaving = True
        try:
            self.line.requests.nudge()
        except errors.BusError:
            pass

    def _run(self) -> None:
        line = self.line
        try:
            while not (self._leaving and not line.busy and not line.to_call):
                self._look()
        except errors.BusError as why:
            line.fail(why.with_traceback(None))
        except BaseException as why:
            log.exception("the thread %r ended", self.thread.name)
            line.fail(why.with_traceback(None))
        finally:
            self._call()
            self._finish()

    def _look(self) -> None:
        line = self.line
        self._call()
        comings = line.comings
        line.resting = not line.busy and not self._leaving and not line.to_call
        if line.resting:
            line.eager = False
        try:
            line.requests.stand_by(NEVER, NEVER if line.resting else PAUSE)
        finally:
            line.resting = False
        if line.eager or not (line.present or line.comings != comings):
            if line.busy:
                line.want()
                line.look_for_workers()
            line.come()
            line.comings = comings  # it does not count itself
        if len(line.under_way) > 1:
            self._recalling.look()
        self._call()

    def _call(self) -> None:
        """Call who is to be told that a call has ended."""
        while self.line.to_call:
            self.line.to_call.popleft()._invoke_callbacks()
