"""The mark by which a child of a supervisor is known, whichever supervisor started it.

It stands in the environment that the child was started with, as SHMBUS_PROCESS, where Linux shows
it for as long as the child lives; its children inherit it. So nothing has to be written to a file
that could be lost or outdated: what lives is what is found.

Which of those that have it is the child itself, the environment cannot say: it is made before there
is a pid. A resource limit does, which Linux has not looked at since 2.4.30 and which is inherited,
too: its number names the child.
"""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from typing import NamedTuple, Self

VARIABLE = "SHMBUS_PROCESS"

_LIMIT = resource.RLIMIT_RSS
_NAMES = 0x53484D42 << 32  # in its upper half: the lower half is a pid

_FORKED = 0x40  # PF_FORKNOEXEC: it has not executed its program yet
_OF_KERNEL = 0x200000  # PF_KTHREAD
_MOMENT = 1.0  # seconds for which a new process may be about to execute its program
_TICK = os.sysconf("SC_CLK_TCK")


class Mark(NamedTuple):
    """What the mark says."""

    bus: str
    name: str
    digest: str
    """Of what was to run: `Process.digest`."""
    pipe: int
    """The number of the pipe that its output goes to, by which that is found again."""

    def __str__(self) -> str:
        return f"{self.bus}:{self.name}:{self.digest}:{self.pipe}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None: it is none of ours."""
        parts = text.split(":")
        if len(parts) != 4 or not parts[3].isdecimal():
            return None
        return cls(parts[0], parts[1], parts[2], int(parts[3]))


class Marked(NamedTuple):
    """A live process that has a mark."""

    pid: int
    start: int
    """When it was started, in clock ticks since boot."""
    session: int
    mark: Mark
    child: int | None
    """The pid of the supervisor's child that it is or comes from; None: it cannot be said."""

    @property
    def leads(self) -> bool:
        """Whether it leads its session, as what a supervisor starts does, and is no process that
        one of those has started in a session of its own."""
        return self.pid == self.session and self.child in (None, self.pid)


def name_child(pid: int) -> None:
    """Have this process, and all that it starts, say that it is the child."""
    with suppress(OSError, ValueError):  # it has ended, or may not have such a limit
        hard = resource.prlimit(pid, _LIMIT)[1]
        resource.prlimit(pid, _LIMIT, (_NAMES | pid, hard))


def _child_of(pid: int) -> int | None:
    with suppress(OSError):
        limit = resource.prlimit(pid, _LIMIT)[0]
        if limit >> 32 == _NAMES >> 32:
            return limit & 0xFFFFFFFF
    return None


def mark_of(pid: int) -> Mark | None:
    """The mark of a process; None where it has none, or it cannot be read."""
    with suppress(OSError):
        return _mark_in(_environment_of(pid))
    return None


def _environment_of(pid: int) -> bytes:
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read()


def _mark_in(environment: bytes) -> Mark | None:
    for entry in environment.split(b"\0"):
        if entry.startswith(VARIABLE.encode() + b"="):
            return Mark.parse(os.fsdecode(entry.partition(b"=")[2]))
    return None


def marked(bus: str) -> list[Marked]:
    """All live processes of this user with a mark of that bus, the oldest first.

    A supervisor may have been killed just when it started a child, which has its mark from when it
    executes its program on. So a process that is there and has not done so yet, or is just doing
    it and shows no environment at all, is waited for, until it is a second old."""
    found, young = list[Marked](), list[int]()
    asked = time.clock_gettime(time.CLOCK_BOOTTIME)
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            _look(int(entry), bus, asked, found, young)
    while young:
        time.sleep(0.002)
        waited_for, young = young, []
        for pid in waited_for:
            _look(pid, bus, asked, found, young)
    return sorted(found, key=lambda one: (one.start, one.pid))


def _look(pid: int, bus: str, asked: float, found: list[Marked], young: list[int]) -> None:
    """Put it where it belongs, if anywhere: where it may be about to get its mark, and was there
    when this was asked for, it is young."""
    with suppress(OSError, IndexError, ValueError):
        if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
            return
        fields = stat_of(pid)
        if fields.state in "ZXx":
            return
        environment = _environment_of(pid)
        mark = _mark_in(environment)
        if mark is not None and mark.bus == bus:
            found.append(Marked(pid, fields.start, fields.session, mark, _child_of(pid)))
        elif not fields.flags & _OF_KERNEL and (fields.flags & _FORKED or not environment):
            now, began = time.clock_gettime(time.CLOCK_BOOTTIME), fields.start / _TICK
            if began <= asked and now - began < _MOMENT:
                young.append(pid)


class Stat(NamedTuple):
    """Of the line that /proc has of a process."""

    state: str
    parent: int
    session: int
    flags: int
    start: int


def stat_of(pid: int) -> Stat:
    """Raises OSError where there is no such process."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        fields = file.read(1024).rpartition(b")")[2].split()
    return Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[6]), int(fields[19]))
