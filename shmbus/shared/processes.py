"""Processes by pid and start time: a pid alone may belong to another process by now.

/proc may hide a process that is alive: of other users, and of those that cannot be traced, where it
is mounted with ``hidepid`` (systemd: ``ProtectProc=``). So what /proc does not show is asked for by
its pid, and only where there is no such process it is dead.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import NamedTuple

from .layout import TASK_FINISHED


def process_alive(pid: int, start_time: int, leader: Task | None = None) -> bool:
    """Whether the process that had this pid and start time (clock ticks since boot) can still run;
    True where that cannot be read: another may have the pid of one that /proc hides. ``leader``:
    its first thread, if that was just read.

    A zombie cannot; a zombie leader with other running threads can."""
    try:
        leader = leader or _task(f"/proc/{pid}/stat")
        if leader is None:
            return there(pid)
        if leader.start_time != start_time:
            return False
        if leader.runs:
            return True
        tasks = os.listdir(f"/proc/{pid}/task")
        found = (_task(f"/proc/{pid}/task/{task}/stat") for task in tasks)
        return any(task is not None and task.runs for task in found)
    except FileNotFoundError:
        return there(pid)
    except OSError:  # such as: no descriptor left
        return True


def there(pid: int) -> bool:
    """Whether a process has this pid and has not ended, without asking /proc."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:  # this system has none, or no descriptor is left
        return _signalled(pid)
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        return not ended.poll(0)
    finally:
        os.close(pidfd)


def _signalled(pid: int) -> bool:
    """Whether a signal would reach a process of this pid, a zombie included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, and may not be signalled
        pass
    return True


class Task(NamedTuple):
    """A thread, as its line in /proc has it."""

    start_time: int
    runs: bool
    stopped: bool
    ticks: int
    """Of the CPU; of a process's first thread: all that its threads took."""
    pages: int
    """Of its process in memory."""


def leader_of(pid: int) -> Task | None:
    """The first thread of a process; None where there is none, or it cannot be read."""
    with suppress(OSError, IndexError):
        return _task(f"/proc/{pid}/stat")
    return None


def _task(stat: str) -> Task | None:
    try:
        with open(stat, "rb", buffering=0) as file:
            fields = file.read(1024).rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Task(
        start_time=int(fields[19]),
        runs=fields[0] not in b"ZXx" and not int(fields[6]) & TASK_FINISHED,
        stopped=fields[0] in b"Tt",
        ticks=int(fields[11]) + int(fields[12]),
        pages=int(fields[21]),
    )


def stopped(pid: int) -> bool:
    """Whether the process of this pid is stopped (SIGSTOP, Ctrl-Z, a debugger), as far as it can be
    seen."""
    task = leader_of(pid)
    return task is not None and task.stopped


def namespace(kind: str) -> int:
    """The number of this process's namespace of that kind (pid, time); 0 where there is none."""
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return 0


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 where there is none, or it cannot be
    read."""
    task = leader_of(pid)
    return 0 if task is None else task.start_time


class Identity(NamedTuple):
    """A process as ``sb_identity`` has it, field by field."""

    pid: int
    uid: int
    start_time: int
    pid_namespace: int
    time_namespace: int


def identity() -> Identity:
    """This process."""
    pid = os.getpid()
    return Identity(
        pid=pid,
        uid=os.geteuid(),
        start_time=start_time(pid),
        pid_namespace=namespace("pid"),
        time_namespace=namespace("time"),
    )


class Descriptors(NamedTuple):
    """Descriptors that show when a process ends; -1 for one that is missing."""

    pidfd: int = -1
    stat: int = -1

    def close(self) -> None:
        for fd in self:
            if fd >= 0:
                os.close(fd)


def open_process(pid: int, start: int) -> Descriptors | None:
    """Descriptors of the process that had this pid and start time, as far as the system gives them;
    None: it has ended. Raises OSError (too many open files)."""
    try:
        stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):  # it has ended, or /proc hides it
        stat = -1
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        pidfd = -1
    opened = Descriptors(pidfd, stat)
    if process_alive(pid, start):  # after both were opened: neither can be somebody else's
        return opened
    opened.close()
    return None
