"""What processes take of the machine, from one line of /proc for each: a bus may have hundreds."""

from __future__ import annotations

import os
from typing import NamedTuple

from shmbus.shared._kernel import monotonic
from shmbus.shared.processes import Task, leader_of

from .facts import Process

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Leaders(dict[int, Task | None]):
    """The first thread of each process by its pid, each read once; for one look."""

    def __missing__(self, pid: int) -> Task | None:
        task = self[pid] = leader_of(pid)
        return task


class Processes:
    """Processes, as the system shows them. CPU is of the time since the look before."""

    def __init__(self) -> None:
        self._known: dict[int, _Seen] = {}

    def look(self, pids: set[int], leaders: Leaders) -> dict[int, Process]:
        """CPU and memory of these processes; those that are gone are left out."""
        at = monotonic()
        now = {pid: _Seen(at, task) for pid in pids if (task := leaders[pid]) is not None}
        before, self._known = self._known, now
        return {pid: seen.since(before.get(pid)) for pid, seen in now.items()}


class _Seen(NamedTuple):
    at: float
    """Seconds of the monotonic clock."""
    task: Task

    def since(self, before: _Seen | None) -> Process:
        cpu, task = 0.0, self.task
        # A pid may have been another process's before.
        if before is not None and before.task.start_time == task.start_time and self.at > before.at:
            cpu = 100.0 * (task.ticks - before.task.ticks) / _TICK / (self.at - before.at)
        return Process(cpu=max(cpu, 0.0), memory=task.pages * _PAGE, stopped=task.stopped)
