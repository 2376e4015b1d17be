"""The stage of one measurement: a few processes that start together, do their part and end.

A role is a function that runs in a process of its own and gets a :class:`Stage`. It makes its
connections, calls ``stage.ready()``, which returns once all roles are ready, and returns what it
measured. A supporting role (a dispatcher, a server) works until it is stopped: by SIGTERM, which
is raised in it as ``SystemExit``, so that its context managers close what they opened.

All measurements use two cores, whatever the machine has.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import psutil

CORES = sorted(os.sched_getaffinity(0))[:2]
FIRST, SECOND = CORES[0], CORES[-1]

# The parent has no threads and attaches to nothing, so that plain forks are safe, and fast.
_processes = multiprocessing.get_context("fork")


class RunFailed(Exception):
    """A role raised, died or did not finish in time."""


@dataclass(frozen=True)
class Placement:
    """Which core each part may run on; ``None``: either of the two."""

    name: str
    client: int | None = None
    middle: int | None = None
    server: int | None = None


FREE = Placement("free")
ENDS_SHARE = Placement("the ends share a core", FIRST, SECOND, FIRST)
END_AND_MIDDLE_SHARE = Placement("an end and the middle share", FIRST, FIRST, SECOND)
PLACEMENTS = (FREE, ENDS_SHARE, END_AND_MIDDLE_SHARE)


@dataclass(frozen=True)
class Role:
    """``play(stage, *args)`` in a process of its own, on one core or on both."""

    play: Callable[..., Any]
    args: tuple[Any, ...] = ()
    core: int | None = None
    supporting: bool = False
    parent: bool = False  # of processes that it starts by multiprocessing, and ends


@dataclass
class Stage:
    """How a role meets the others."""

    connection: Connection
    reported: bool = False

    def ready(self, meanwhile: Callable[[], object] | None = None) -> None:
        """Return once every role of this run has called it; calls `meanwhile` until then."""
        self.connection.send(("ready", None))
        while meanwhile is not None and not self.connection.poll():
            meanwhile()
        self.connection.recv()

    def ready_before_others(self) -> None:
        """Like `ready`, but does not wait for the others."""
        self.connection.send(("ready", None))

    def report(self, result: object) -> None:
        """Give the result before the role ends, which may then wait for the others."""
        self.connection.send(("result", result))
        self.reported = True

    def wait_until_stopped(self) -> None:
        while True:  # not signal.pause(): what came just before it would not end it
            time.sleep(1.0)


def _exit(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def _play(role: Role, connection: Connection) -> None:
    os.sched_setaffinity(0, CORES if role.core is None else {role.core})
    signal.signal(signal.SIGTERM, _exit)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stage = Stage(connection)
    try:
        result = role.play(stage, *role.args)
        if not stage.reported:
            stage.report(result)
    except SystemExit:
        pass
    except BaseException:
        with contextlib.suppress(OSError):
            connection.send(("error", traceback.format_exc()))
    finally:
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@dataclass
class _Actor:
    role: Role
    process: multiprocessing.process.BaseProcess
    connection: Connection

    def name(self) -> str:
        return getattr(self.role.play, "__name__", str(self.role.play))


def perform(
    roles: Sequence[Role],
    *,
    timeout: float = 60.0,
    meanwhile: Callable[[list[int]], Any] | None = None,
) -> list[Any]:
    """Play ``roles`` together and return what the roles that are not supporting returned, in order.

    ``meanwhile`` is called with the process ids once all are ready; what it returns comes last.
    Raises :class:`RunFailed` when a role raises, or they take more than ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    actors: list[_Actor] = []
    results: dict[int, Any] = {}
    try:
        for role in roles:
            ours, theirs = _processes.Pipe()
            process = _processes.Process(target=_play, args=(role, theirs), daemon=not role.parent)
            process.start()
            theirs.close()
            actors.append(_Actor(role, process, ours))
        for _ in actors:
            _next(actors, set(range(len(actors))) - set(results), "ready", results, deadline)
        results.clear()
        for actor in actors:
            actor.connection.send("go")
        extra = [meanwhile([actor.process.pid or 0 for actor in actors])] if meanwhile else []
        awaited = {i for i, actor in enumerate(actors) if not actor.role.supporting}
        while awaited - set(results):
            _next(actors, set(range(len(actors))) - set(results), "result", results, deadline)
        return [results[i] for i in sorted(awaited)] + extra
    finally:
        _end(actors)


def _next(
    actors: list[_Actor], open_: set[int], expected: str, results: dict[int, Any], deadline: float
) -> None:
    """Take one message of the kind ``expected`` from any of the actors ``open_``."""
    by_connection = {actors[i].connection: i for i in open_}
    while True:
        readable = wait(list(by_connection), timeout=max(0.0, deadline - time.monotonic()))
        if not readable:
            silent = ", ".join(
                actors[i].name()
                for i in sorted(open_)
                if expected == "ready" or not actors[i].role.supporting
            )
            raise RunFailed(f"not {expected} in time: {silent}")
        connection = readable[0]
        assert isinstance(connection, Connection)
        index = by_connection[connection]
        try:
            kind, value = connection.recv()
        except EOFError:
            raise RunFailed(f"{actors[index].name()} died and sent nothing") from None
        if kind == "error":
            raise RunFailed(f"{actors[index].name()} failed:\n{value}")
        if kind == expected:
            results[index] = value
            return
        raise RunFailed(f"{actors[index].name()} sent {kind!r} instead of {expected!r}")


def _end(actors: list[_Actor]) -> None:
    # The ends before the middle, so that they can detach.
    for actor in sorted(actors, key=lambda actor: actor.role.supporting):
        if actor.process.is_alive():
            actor.process.terminate()
    deadline = time.monotonic() + 60.0  # a dispatcher that is killed leaves its bus
    for actor in actors:
        actor.process.join(max(0.0, deadline - time.monotonic()))
        if actor.process.is_alive():
            actor.process.kill()
            actor.process.join()
        actor.connection.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def stolen_seconds() -> float:
    """CPU time that the host of this virtual machine has taken from the cores (proc_stat(5))."""
    times = psutil.cpu_times(percpu=True)
    return float(sum(times[core].steal for core in CORES))


@contextlib.contextmanager
def busy_thread() -> Iterator[None]:
    """A thread of this process that computes in pure Python and keeps the GIL while it may."""
    stop = False

    def compute() -> None:
        total = 0
        while not stop:
            total += 1

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop = True
        thread.join()
