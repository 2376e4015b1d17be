"""The processes of a test, as it sees them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from multiprocessing.connection import wait
from typing import Any, Self

import msgspec

from shmbus.settings import Settings
from shmbus.shared._kernel import monotonic
from shmbus.shared.grants import Grant

from .child import Report, Task
from .faults import pause, resume
from .waiting import TIMEOUT


class WorkerFailed(Exception):
    """The function of a worker raised, or its process ended before it returned."""


def _environment(bus: str | None) -> dict[str, str]:
    """Of a process that is to take part in a bus."""
    return os.environ | ({} if bus is None else {"SHMBUS_BUS": bus})


class Child:
    """A process that a test started. It ends with the test, or with the `with` block it is used
    in."""

    def __init__(
        self,
        what: str,
        command: list[str],
        *,
        bus: str | None = None,
        read_output: bool = False,
    ) -> None:
        """`bus`: the one that it finds as SHMBUS_BUS; None: as in this process. `read_output`:
        read its standard output, and not the reports of `child.main`."""
        self.what = what
        reader, writer = os.pipe()
        env = _environment(bus)
        try:
            if read_output:
                self._process = subprocess.Popen(command, stdout=writer, env=env)
            else:
                env |= {"SHMBUS_TESTING_FD": str(writer)}
                self._process = subprocess.Popen(command, pass_fds=[writer], env=env)
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self._reader = reader
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it with SIGKILL, and return when it is dead and gone."""
        self._process.kill()
        self._process.wait(TIMEOUT)

    def pause(self) -> None:
        """Stop it (SIGSTOP), and return when it stands still."""
        pause(self.pid)

    def resume(self) -> None:
        """Let it go on."""
        resume(self.pid)

    def stop(self, timeout: float = TIMEOUT) -> int:
        """Ask it to end (SIGTERM), and return its exit code."""
        if self.alive:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)
        return self.wait(timeout)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait for its end, and return its exit code; negative: the signal that ended it."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self} has not ended within {timeout:g} s") from None

    def _line(self, timeout: float) -> bytes | None:
        """The next line that it writes; None where it ends first."""
        end = monotonic() + timeout
        while b"\n" not in self._unread:
            if self._reader < 0:
                return None
            if not wait([self._reader], max(0.0, end - monotonic())):
                raise AssertionError(f"{self} wrote nothing for {timeout:g} s")
            more = os.read(self._reader, 1 << 16)
            if not more:
                return None
            self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _collect(self) -> None:
        """Keep what it has written so far."""
        while self._reader >= 0 and wait([self._reader], 0):
            more = os.read(self._reader, 1 << 16)
            if not more:
                break
            self._unread += more

    def _report(self, timeout: float) -> Report | None:
        """The next report of `child.main`; None where it ends first."""
        line = self._line(timeout)
        return None if line is None else msgspec.json.decode(line, type=Report)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        try:
            self.stop()
        except AssertionError:
            self.kill()
            raise
        finally:
            self._collect()
            os.close(self._reader)
            self._reader = -1

    def __repr__(self) -> str:
        return f"<{self.what}, process {self.pid}>"


class Worker(Child):
    """A function in a process of its own, attached to the test's bus; made by the fixture
    `worker`."""

    _last: Report | None = None

    def result(self, timeout: float = TIMEOUT) -> Any:
        """What the function returned: plain values. Raises `WorkerFailed` with its traceback where
        it raised, or where the process ended without it."""
        if self._last is None:
            self._last = self._report(timeout)
        if self._last is None:
            raise WorkerFailed(f"{self} ended with exit code {self.wait()}")
        if self._last.at == "raised":
            raise WorkerFailed(f"{self} raised\n{self._last.trace}")
        return self._last.value

    def _await_ready(self) -> None:
        report = self._report(TIMEOUT)
        if report is None or report.at != "ready":
            self._last = report
            self.result()


def run_python(
    code: str,
    *arguments: object,
    before: Iterable[str] = (),
    quiet: bool = True,
    timeout: float = 120.0,
    bus: str | None = None,
) -> str:
    """Run Python code in a process of its own until it ends, and return what it printed. Fails the
    test where it does not end by itself with exit code 0, or, if it is to be `quiet`, prints
    anything on standard error. `arguments` are its `sys.argv[1:]`; `before` is put before the
    command, as in `before=["unshare", "-m"]`; `bus` is what `shmbus.attach()` without a name takes
    there (SHMBUS_BUS)."""
    command = [*before, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    env = _environment(bus)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, env=env
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    assert not quiet or done.stderr == "", done.stderr
    return done.stdout


class Program(Child):
    """Python code in a process of its own, which prints lines for the test to read; made by
    `start_python`. With 64 KiB unread, its printing waits until the test reads."""

    def line(self, timeout: float = TIMEOUT) -> str:
        """The next line that it prints, without the line break. Fails the test where it ends
        first."""
        line = self._line(timeout)
        if line is None:
            raise AssertionError(f"{self} ended with exit code {self.wait()} and no further line")
        return line.decode()

    @property
    def printed(self) -> str:
        """What it has printed so far and `line` has not returned yet. Does not wait."""
        self._collect()
        return self._unread.decode()


def start_python(code: str, *arguments: object, bus: str | None = None) -> Program:
    """Start Python code in a process of its own, and return at once. `with start_python(code) as
    program:` ends it with the block, by SIGTERM. `arguments` are its `sys.argv[1:]`; its standard
    output is read with `line` and `printed`, its standard error is the test's. `bus`: as of
    `run_python`."""
    command = [sys.executable, "-u", "-c", textwrap.dedent(code), *map(str, arguments)]
    return Program("program", command, bus=bus, read_output=True)


class BusProcess:
    """The dispatcher of the test's bus in a process of its own; made by the fixture
    `bus_process`."""

    def __init__(
        self, name: str, settings: Settings, grants: dict[str, Grant | None] | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self.grants = grants
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive

    def start(self) -> None:
        """Serve, and return when endpoints can attach. What a killed one left is adopted."""
        assert not self.alive, f"bus {self.name!r} is served already"
        self._end()
        task = Task(bus=self.name, path=sys.path, settings=self.settings, grants=self.grants)
        child = self._child = Child(f"dispatcher of bus {self.name!r}", task.command())
        report = child._report(TIMEOUT)
        if report is None or report.at != "ready":
            trace = report.trace if report else f"it ended with exit code {child.wait()}"
            raise WorkerFailed(f"{child} does not serve\n{trace}")

    def kill(self) -> None:
        """Kill it with SIGKILL, and return when it is dead and gone. The bus waits for the next
        one."""
        self._running.kill()

    def restart(self) -> None:
        """Kill it, and start the next, which adopts the bus."""
        self.kill()
        self.start()

    def stop(self) -> None:
        """End the bus in good order."""
        self._running.stop()

    def pause(self) -> None:
        """Stop its process (SIGSTOP)."""
        self._running.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._running.resume()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child._end()

    @property
    def _running(self) -> Child:
        assert self._child is not None, f"bus {self.name!r} was never started"
        return self._child
