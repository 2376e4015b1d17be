"""Processes on a bus of their own, all of which are ended afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from benchmark.stage import CORES

from shmbus.testing import no_leavings

from .roles import TIMEOUT, dispatcher, hog, victim


class NotMeasured(Exception):
    """The machine does not allow it, or an event or error did not come."""


# Processes. The parent has no threads and attaches to nothing, so that plain forks are safe.


class Part:
    """``play(connection, *arguments)`` in a process of its own, which ends with this one."""

    def __init__(self, play: Callable[..., object], *arguments: object) -> None:
        self.play = play
        self.connection, theirs = Pipe()
        self.ended: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run(play, theirs, arguments)
        theirs.close()

    def receive(self) -> Any:
        if not self.connection.poll(TIMEOUT):
            raise NotMeasured(f"{self.play.__name__} sent nothing for {TIMEOUT:g} s")
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise NotMeasured(f"{self.play.__name__} ended and sent nothing") from None

    def send(self, word: object) -> None:
        self.connection.send(word)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, unless it has ended; return its wait status once it has."""
        if self.ended is None:
            os.kill(self.pid, how)
            return self.wait()
        return self.ended

    def wait(self) -> int:
        if self.ended is None:
            self.ended = os.waitpid(self.pid, 0)[1]
            self.connection.close()
        return self.ended


def _run(play: Callable[..., object], connection: Connection, arguments: Any) -> NoReturn:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.sched_setaffinity(0, CORES)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = 1
    try:
        play(connection, *arguments)
        code = 0
    except SystemExit:
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _leave(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


class Stage:
    """A bus of its own, and the processes on it."""

    def __init__(self) -> None:
        self.bus = f"deaths-{secrets.token_hex(4)}"
        self.parts: list[Part] = []

    def start(self, play: Callable[..., object], *arguments: object) -> Part:
        """Start it in a process of its own."""
        self.parts.append(Part(play, *arguments))
        return self.parts[-1]

    def ready(self, play: Callable[..., object], *arguments: object) -> Part:
        """Start it, and return when it has sent that it is ready."""
        part = self.start(play, *arguments)
        part.receive()
        return part

    def end(self) -> None:
        # Requesters before their servers, and the dispatcher last.
        first = [part for part in reversed(self.parts) if part.play is not dispatcher]
        for part in first + [part for part in self.parts if part.play is dispatcher]:
            part.end(signal.SIGKILL if part.play in (hog, victim) else signal.SIGTERM)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage, all of which is ended afterwards."""
    this = Stage()
    with no_leavings(this.bus):
        try:
            yield this
        finally:
            this.end()
