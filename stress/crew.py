"""The processes of a stress test: started by the hundred, killed at any moment, reaped at the end.

They are forked by a fork server that has imported shmbus and never attached, so one takes some
milliseconds to start. Each has a name and an incarnation, and a ledger for each.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Unpack

import shmbus

if TYPE_CHECKING:  # it imports pytest, which would cost each member its quick start
    from shmbus.testing import AttachOptions

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["shmbus", "ledger"])


class Reclaimed(Protocol):
    def __call__(self, *names: str) -> None: ...


class Place:
    """Where a member of the crew works: its bus, its name, its incarnation, its ledgers."""

    def __init__(self, bus: str, name: str, incarnation: int, directory: Path) -> None:
        self.bus = bus
        self.name = name
        self.incarnation = incarnation
        self.directory = directory

    def path(self, what: str) -> Path:
        return self.directory / f"{what}-{self.name}-{self.incarnation}"

    def attach(self, **options: Unpack[AttachOptions]) -> shmbus.Endpoint:
        given: AttachOptions = {"timeout": 60.0, "reconnect": True, **options}
        return shmbus.attach(self.bus, name=self.name, **given)


Work = Callable[..., None]


def _begin(work: Work, place: Place, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGTERM, _end)
    work(place, *arguments)


def _end(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


class Member:
    """One process."""

    def __init__(self, work: Work, place: Place, arguments: tuple[Any, ...]) -> None:
        self.work = work
        self.place = place
        self.arguments = arguments
        self.process: ForkServerProcess = CONTEXT.Process(
            target=_begin, args=(work, place, arguments), name=str(place.path("process").name)
        )
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, at whatever it is doing."""
        self.process.kill()

    def end(self) -> None:
        """SIGTERM: it closes its endpoint."""
        if self.process.is_alive():
            os.kill(self.pid, signal.SIGTERM)

    def ended_well(self) -> bool:
        """After `end`. Where that came before the process had begun, it never was on the bus."""
        code = self.wait()
        assert code in (0, -signal.SIGTERM), f"{self.process.name} ended with {code}"
        return True

    def wait(self, timeout: float = 120.0) -> int:
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"{self.process.name} has not ended"
        return self.process.exitcode


class Crew:
    """All of them."""

    def __init__(self, bus: str, directory: Path) -> None:
        self.bus = bus
        self.directory = directory
        self.everybody: list[Member] = []
        self._incarnations: dict[str, int] = {}

    def hire(self, work: Work, name: str, *arguments: Any) -> Member:
        """Start a process that calls `work(place, *arguments)`; returns at once."""
        incarnation = self._incarnations.get(name, -1) + 1
        self._incarnations[name] = incarnation
        place = Place(self.bus, name, incarnation, self.directory)
        self.everybody.append(Member(work, place, arguments))
        return self.everybody[-1]

    def hire_again(self, member: Member) -> Member:
        """The next incarnation of a dead one."""
        return self.hire(member.work, member.place.name, *member.arguments)

    def ledgers(self, what: str) -> list[tuple[str, int, Path]]:
        """Name, incarnation and file of every ledger of that kind."""
        found = []
        for path in self.directory.glob(f"{what}-*"):
            _, name, incarnation = path.name.split("-")
            found.append((name, int(incarnation), path))
        return sorted(found)

    def dismiss(self) -> None:
        for member in self.everybody:
            if member.process.is_alive():
                member.kill()
        for member in self.everybody:
            member.process.join()
            member.process.close()
        self.everybody.clear()
