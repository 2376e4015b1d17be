"""What processes write: read in a thread of its own, in lines, and the last ones kept."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from shmbus.shared import threads
from shmbus.shared._kernel import monotonic

from .status import Line

log = logging.getLogger("shmbus")

Sink = Callable[[Line], object]
"""What each line is given to."""

LONGEST = 16 << 10
"""Bytes of a line; a longer one is cut."""

KEPT = 1000
"""Lines of each process that are kept, at most."""

KEPT_BYTES = 1 << 20
"""And so much of them, approximately."""

_CHUNK = 64 << 10  # bytes that are read of one process before the next has its turn
_REST = 0.01  # seconds between turns while somebody writes more than can be read in one
_REMAINDER = 1.0  # seconds that the rest may take at the end


def print_line(line: Line) -> None:
    """Where nobody says what is to be done with output: to standard error, with the name."""
    with suppress(OSError, ValueError, AttributeError):  # it may be closed, or not be there
        sys.stderr.write(f"{line.name} | {line.text}\n")


class Kept:
    """The last lines of one process. Written by one thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: deque[Line] = deque(maxlen=KEPT)
        self._bytes = 0
        self._number = 0

    def add(self, text: str) -> Line:
        self._number += 1
        line = Line(name=self.name, number=self._number, time=time.time(), text=text)
        if len(self.lines) == KEPT:
            self._bytes -= len(self.lines[0].text)
        self.lines.append(line)
        self._bytes += len(text)
        while self._bytes > KEPT_BYTES:
            self._bytes -= len(self.lines.popleft().text)
        return line


class _Pipe:
    """What one run of a process writes."""

    def __init__(self, fd: int, kept: Kept) -> None:
        self.fd, self.kept = fd, kept
        self._rest = b""

    def read(self) -> tuple[list[str], bool, bool]:
        """Lines; whether there may be more at once; whether it has ended."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return [], False, False
        except OSError:
            data = b""
        if not data:
            return self._lines(self._rest + b"\n" if self._rest else b""), False, True
        return self._lines(self._rest + data), len(data) == _CHUNK, False

    def _lines(self, data: bytes) -> list[str]:
        *lines, self._rest = data.split(b"\n")
        while len(self._rest) > LONGEST:
            lines.append(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]
        return [
            line[at : at + LONGEST].decode(errors="replace").removesuffix("\r")
            for line in lines
            for at in range(0, max(len(line), 1), LONGEST)
        ]


class Output:
    """Reads the output of all processes. A process that writes without end is read as fast as one
    turn follows the other, and waits meanwhile."""

    def __init__(self, bus: str, *sinks: Sink) -> None:
        self._sinks = sinks
        self._failed = set[Sink]()
        self._kept: dict[str, Kept] = {}
        self._new: deque[_Pipe] = deque()
        self._ending = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"shmbus {bus}: output", daemon=True)
        threads.start(self._thread)

    def add(self, name: str, fd: int) -> None:
        """Read what comes there, and close it at the end."""
        self._new.append(_Pipe(fd, self._kept.setdefault(name, Kept(name))))
        os.eventfd_write(self._wake, 1)

    def forget(self, name: str) -> None:
        """Keep nothing of this process any more."""
        self._kept.pop(name, None)

    def last(self, name: str, count: int) -> list[Line]:
        """The last lines of a process, at most so many."""
        kept = self._kept.get(name)
        while kept is not None and count > 0:
            with suppress(RuntimeError):  # a line came meanwhile
                return list(kept.lines)[-count:]
        return []

    def close(self) -> None:
        """Read the rest, for a limited time. Called once."""
        self._ending = True
        os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * _REMAINDER)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        pipes: dict[int, _Pipe] = {}
        try:
            while not self._turn(poll, pipes):
                pass
        except Exception:
            log.exception("the output of processes is read no more")
        finally:
            for fd in pipes:
                os.close(fd)

    def __del__(self) -> None:
        os.close(self._wake)  # not before: another thread may just be adding one

    def _turn(self, poll: select.poll, pipes: dict[int, _Pipe]) -> bool:
        """Whether it is over."""
        ready = poll.poll()
        began, more = monotonic(), False
        for fd, _ in ready:
            if fd == self._wake:
                continue
            lines, again, ended = pipes[fd].read()
            more |= again
            for text in lines:
                self._give(pipes[fd].kept.add(text))
            if ended:
                poll.unregister(fd)
                os.close(fd)
                del pipes[fd]
        if (self._wake, select.POLLIN) in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            while self._new:
                pipe = self._new.popleft()
                pipes[pipe.fd] = pipe
                poll.register(pipe.fd, select.POLLIN)
            if self._ending:
                return self._finish(pipes)
        if more:
            time.sleep(max(0.0, _REST - (monotonic() - began)))
        return False

    def _finish(self, pipes: dict[int, _Pipe]) -> bool:
        """Read what is there, and no longer than it may take."""
        end = monotonic() + _REMAINDER
        for pipe in pipes.values():
            more = True
            while more and monotonic() < end:
                lines, more, _ = pipe.read()
                for text in lines:
                    self._give(pipe.kept.add(text))
        return True

    def _give(self, line: Line) -> None:
        for sink in self._sinks:
            try:
                sink(line)
            except BaseException:  # SystemExit, too: others' output is read in this thread
                if sink not in self._failed:  # said once: it may be so for each line
                    self._failed.add(sink)
                    log.exception("what takes the output of processes has raised")
