"""What processes take of the machine, from one line of /proc for each: a bus may have hundreds."""

from __future__ import annotations

import os
from typing import NamedTuple

from shmbus.shared._kernel import monotonic

from .facts import Process

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Processes:
    """Processes, as the system shows them. CPU is of the time since the look before."""

    def __init__(self) -> None:
        self._known: dict[int, _Usage] = {}

    def look(self, pids: set[int]) -> dict[int, Process]:
        """CPU and memory of these processes; those that are gone are left out."""
        now = {pid: usage for pid in pids if (usage := _usage(pid)) is not None}
        before, self._known = self._known, now
        return {pid: usage.since(before.get(pid)) for pid, usage in now.items()}


class _Usage(NamedTuple):
    at: float
    """Seconds of the monotonic clock."""
    began: bytes
    """The process's start time, as /proc has it: its pid may have been another's before."""
    ticks: int
    memory: int
    stopped: bool

    def since(self, before: _Usage | None) -> Process:
        cpu = 0.0
        if before is not None and before.began == self.began and self.at > before.at:
            cpu = 100.0 * (self.ticks - before.ticks) / _TICK / (self.at - before.at)
        return Process(cpu=max(cpu, 0.0), memory=self.memory, stopped=self.stopped)


def _usage(pid: int) -> _Usage | None:
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(1024).rpartition(b")")[2].split()
    except OSError:  # it has gone, or /proc hides it
        return None
    if len(fields) < 22:
        return None
    return _Usage(
        at=monotonic(),
        began=fields[19],
        ticks=int(fields[11]) + int(fields[12]),
        memory=int(fields[21]) * _PAGE,
        stopped=fields[0] in (b"T", b"t"),
    )
