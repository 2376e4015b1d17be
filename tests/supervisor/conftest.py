"""What tests of supervisors share."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import pytest

import shmbus
from shmbus.supervisor import Line, Process, ProcessStatus, Supervisor
from shmbus.supervisor.mark import marked

WORKER = """
    import os, shmbus
    with shmbus.attach(name={name!r}) as endpoint:
        endpoint.handle({type!r}, lambda message: os.getpid())
        endpoint.run()
"""


def python(name: str, code: str, **options: Any) -> Process:
    """A process that runs this code."""
    return Process(
        name=name,
        command=(sys.executable, "-c", textwrap.dedent(code)),
        stop_timeout=5.0,
        **options,
    )


def handler(name: str, type: str | None = None, **options: Any) -> Process:
    """A process that answers requests of a type, by default its name, with its pid."""
    return python(name, WORKER.format(name=name, type=type or name), **options)


def shell(name: str, script: str, **options: Any) -> Process:
    """A process that runs a script of the shell."""
    return Process(name=name, command=("sh", "-c", script), **options)


def of(supervisor: Supervisor, name: str) -> ProcessStatus:
    """The status of one process."""
    return next(each for each in supervisor.status() if each.name == name)


class Supervise(Protocol):
    """The type of the fixture `supervise`."""

    def __call__(self, *processes: Process, **options: Any) -> Supervisor: ...


@pytest.fixture
def lines() -> list[Line]:
    """What the test's processes write."""
    return []


@pytest.fixture
def supervise(bus_name: str, lines: list[Line]) -> Iterator[Supervise]:
    """Supervise processes on the test's bus, which is served for that, until the test ends."""
    with contextlib.ExitStack() as stack:

        def supervise(*processes: Process, **options: Any) -> Supervisor:
            options = {"bus": bus_name, "output": lines.append, **options}
            return stack.enter_context(shmbus.supervise(processes, **options))

        yield supervise
    assert left(bus_name) == []


def left(bus: str) -> list[int]:
    """What a supervisor of this bus has started and what that has started, and still lives; it is
    killed."""
    found = [one.pid for one in marked(bus)]
    kill(found)
    return found


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
