"""A process that runs: started by this supervisor, or adopted from one before it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from shmbus.shared import processes
from shmbus.shared._kernel import monotonic
from shmbus.shared.exits import Exit, signal_name
from shmbus.views.discovery import VARIABLE as BUS

from . import target
from .mark import VARIABLE, Mark, Marked, name_child
from .process import Process
from .sessions import signal_members

PIPE_BYTES = 256 << 10
"""Of output that may wait for a supervisor, where the system grants so much."""

_SWEEPS = 50  # of a session in which processes are started as fast as they are killed


class Child:
    """One run of a process. Its output can be read at `output`, which whoever reads closes; -1
    where it is not to be had."""

    def __init__(self, pid: int, start: int, output: int, *, adopted: bool) -> None:
        self.pid, self.output, self.adopted = pid, output, adopted
        self.began = monotonic()
        self._start = start
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:  # this system has none, or it has ended: `ended` looks
            self.pidfd = -1

    def ended(self) -> Exit | None:
        """How it has ended; None while it runs. Once it has, its pid is kept until `reap`, if this
        process is its parent."""
        if self.pidfd >= 0:
            look = select.poll()
            look.register(self.pidfd, select.POLLIN)
            if not look.poll(0):
                return None
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:  # not ours: adopted, or the host has SIGCHLD ignored
            alive = self.pidfd < 0 and processes.process_alive(self.pid, self._start)
            return None if alive else Exit()
        if found is None:
            return None
        if found.si_code == os.CLD_EXITED:
            return Exit(code=found.si_status)
        return Exit(signal=signal_name(found.si_status))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(OSError):
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            elif self.ended() is None:
                os.kill(self.pid, number)

    def send_all(self, number: signal.Signals) -> None:
        """Send a signal to all that is in its session."""
        self.send(number)
        signal_members(self.pid, number)

    def reap(self) -> bool:
        """It has ended: end what is left of its session, and let go of its pid. Whether nothing is
        left."""
        left = 0
        for _ in range(_SWEEPS):
            if not (left := signal_members(self.pid, signal.SIGKILL)):
                break
        if not self.adopted:
            with suppress(ChildProcessError):  # the host has SIGCHLD ignored, or has waited for it
                os.waitpid(self.pid, 0)
        self.output = -1  # whoever reads it closes it
        self.let_go()
        return not left

    def let_go(self) -> None:
        """Close what is open of it."""
        for fd in (self.pidfd, self.output):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.output = -1


def spawn(process: Process, bus: str) -> Child:
    """Start it in a session of its own. Raises OSError."""
    output, write = os.pipe2(os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        # The child can read there, too: so there is always a reader, and without a supervisor its
        # writing waits rather than fails.
        both = os.open(f"/proc/self/fd/{write}", os.O_RDWR | os.O_CLOEXEC)
        os.close(write)
        write = both
        with _blocking_none():
            started = subprocess.Popen(
                _command(process),
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                cwd=process.directory,
                env=_environment(process, bus, os.fstat(output).st_ino),
                start_new_session=True,
            )
        started.returncode = 0  # it is told nothing more: whoever has the Child waits for it
        name_child(started.pid)
    except BaseException:
        os.close(output)
        raise
    finally:
        os.close(write)
    os.set_blocking(output, False)
    return Child(started.pid, processes.start_time(started.pid), output, adopted=False)


@contextmanager
def _blocking_none() -> Iterator[None]:
    """A block in which this thread blocks no signal, as a host may do that waits for them: a child
    would have them blocked, too, for good. Those that are pending are the host's, and stay so."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.sigpending())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def adopt(found: Marked) -> Child | None:
    """One that a supervisor before this one has started. None: it has ended meanwhile."""
    child = Child(found.pid, found.start, _pipe_of(found), adopted=True)
    if processes.process_alive(found.pid, found.start):  # after its pidfd was opened
        return child
    child.let_go()
    return None


def kill(found: Marked) -> None:
    """End one that nobody adopts, if it is still there."""
    child = Child(found.pid, found.start, -1, adopted=True)
    if processes.process_alive(found.pid, found.start):
        child.send(signal.SIGKILL)
    child.let_go()


def _command(process: Process) -> list[str]:
    if process.target:
        return [sys.executable, "-c", target.COMMAND, process.target]
    return list(process.command)


def _environment(process: Process, bus: str, pipe: int) -> dict[str, str]:
    mark = Mark(bus, process.name, process.digest, pipe)
    made = {"PYTHONUNBUFFERED": "1"} | os.environ | process.environment
    if process.target:
        made[target.PATH] = os.pathsep.join(sys.path)
    return made | {BUS: bus, VARIABLE: str(mark)}


def _pipe_of(found: Marked) -> int:
    """Its output, opened once more; -1 where it has turned that elsewhere."""
    for number in (1, 2):
        with suppress(OSError):
            name = f"/proc/{found.pid}/fd/{number}"
            if os.stat(name).st_ino == found.mark.pipe:
                return os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return -1
