"""Calls that are to be stopped: their worker is killed, if it still has them in hand while it is
halted. Else it has gone on to another call, and goes on with that."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shmbus import errors
from shmbus.shared import processes

if TYPE_CHECKING:
    from .line import Call, Line, Sent

HALT = 0.05
"""Seconds that a process may take to halt, before it is looked at again."""


def runs(call: Call) -> bool:
    """Whether a worker has begun it."""
    sent = call._sent
    return sent is not None and sent._begun and bool(sent._holder()[2])


class Stopping:
    """Stops the calls of one executor. `kill`: ends the worker of that pid."""

    def __init__(self, line: Line, kill: Callable[[int], None]) -> None:
        self._line, self._kill = line, kill

    def stop(self, sent: Sent) -> None:
        """Withdraw the request, and end the worker that has begun it."""
        _, pid, begun = sent._holder()
        if pid is None or not begun:
            sent.cancel()
            return
        with Halted(pid):
            if sent._holder()[1:] == (pid, True):
                self._kill(pid)
            sent.cancel()

    def overdue(self, sent: Sent, error: errors.HandlerTimeout) -> None:
        """The worker has had it for longer than it may: end it."""
        if error.pid is None:
            return
        with Halted(error.pid):
            if self._has_it(sent, error.endpoint, error.pid):
                self._kill(error.pid)

    def _has_it(self, sent: Sent, endpoint: str, pid: int) -> bool:
        identity = sent._identity
        try:
            bus = self._line.endpoint.bus
            for info in bus.endpoints():
                if info.name == endpoint and info.pid == pid and identity is not None:
                    return bus.has_begun(endpoint, info.generation, identity) == (pid, True)
        except errors.BusError:
            pass
        return False


class Halted:
    """A block in which a process does not get on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._process = -1

    def __enter__(self) -> None:
        try:
            self._process = os.pidfd_open(self._pid)
            signal.pidfd_send_signal(self._process, signal.SIGSTOP)
        except OSError:  # it has ended
            return
        end = time.monotonic() + HALT
        while not processes.stopped(self._pid) and time.monotonic() < end:
            time.sleep(0.0002)

    def __exit__(self, *_: object) -> None:
        if self._process < 0:
            return
        try:
            signal.pidfd_send_signal(self._process, signal.SIGCONT)
        except OSError:
            pass
        finally:
            os.close(self._process)
