"""A bus and its processes while they run: what the main thread does until they have stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler
from pathlib import Path

from shmbus_console.output import note

from shmbus import BusError, Process, Supervisor, supervise
from shmbus.errors import SupervisorClosed

from .file import File, Unfit, read
from .notify import Notifier
from .orphans import Orphans, adopt
from .printed import ToFiles, ToTerminal, WhileRead
from .signals import HangUp, queued
from .status import has_failed, summary

log = logging.getLogger("shmbus.up")

_REST = 1.0  # seconds that what is logged last may take to be told

_TICK = 1.0
"""Seconds between looks at what nobody tells of: orphans, the watchdog."""

_HAPPENED = 0
"""Beside the signals in the queue: all is started, or has stopped."""


def run(path: Path, file: File) -> bool:
    """Run until a signal comes, or no process is left that would run again. Whether none has
    failed."""
    notifier = Notifier(os.environ)
    adopt()
    printed = (
        WhileRead(ToTerminal([process.name for process in file.processes]))
        if file.output is None
        else ToFiles(file.output)
    )
    hung_up = HangUp()
    with told(), queued() as came:
        supervisor = supervise(
            file.processes,
            bus=file.bus,
            settings=file.settings,
            output=printed,
            source=Source(path, file),
        )
        orphans = Orphans(lambda: [one.pid for one in supervisor.status() if one.pid is not None])
        try:
            _tell_when_started(supervisor, came)
            return _look_after(supervisor, came, notifier, orphans, hung_up)
        finally:
            _stop(supervisor, came, notifier)
            orphans.end()


@contextmanager
def told() -> Iterator[None]:
    """What is logged is told, by a thread of its own: where nobody takes it, as at a terminal that
    is stopped, the processes are looked after all the same."""
    above, records = logging.getLogger("shmbus"), queue.SimpleQueue[logging.LogRecord | None]()
    above.addHandler(handler := QueueHandler(records))
    level = above.level
    above.setLevel(logging.INFO)

    def tell() -> None:
        while record := records.get():
            note("up", record.getMessage())

    telling = threading.Thread(target=tell, name="shmbus up: log", daemon=True)
    telling.start()
    try:
        yield
    finally:
        above.setLevel(level)
        above.removeHandler(handler)
        records.put(None)
        telling.join(_REST)


class Source:
    """The processes of the file, read anew. What else it says takes effect at the next start."""

    def __init__(self, path: Path, file: File) -> None:
        self._path, self._file = path, file

    def __call__(self) -> Iterable[Process]:
        file = read(self._path)
        was = self._file
        if (file.bus, file.settings, file.output) != (was.bus, was.settings, was.output):
            log.info("%s: [bus] and [output] are read at the next start alone", self._path)
        return file.processes


def _tell_when_started(supervisor: Supervisor, came: queue.SimpleQueue[int]) -> None:
    def wait() -> None:
        with contextlib.suppress(SupervisorClosed):
            supervisor.wait_started()
            came.put(_HAPPENED)

    threading.Thread(target=wait, name="shmbus up: start", daemon=True).start()


def _look_after(
    supervisor: Supervisor,
    came: queue.SimpleQueue[int],
    notifier: Notifier,
    orphans: Orphans,
    hung_up: HangUp,
) -> bool:
    """Until a signal ends it or nothing is left to do. Whether none has failed."""
    tick = min(_TICK, (notifier.watchdog or _TICK) / 2)
    started = False
    while True:
        number = _next(came, tick)
        if number == signal.SIGHUP and not hung_up:
            with notifier.reloading():
                _reload(supervisor)
        elif number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            return True
        orphans.reap()
        found = supervisor.status()
        if number == _HAPPENED and not started:
            started = True
            notifier.ready(summary(found))
        notifier.status(summary(found))
        notifier.alive()
        if all(one.state in ("ended", "failed") for one in found):
            log.info("nothing is left to run: %s", summary(found))
            return not any(map(has_failed, found))


def _next(came: queue.SimpleQueue[int], seconds: float) -> int | None:
    try:
        return came.get(timeout=seconds)
    except queue.Empty:
        return None


def _reload(supervisor: Supervisor) -> None:
    try:
        supervisor.reload()
    except (Unfit, BusError) as problem:
        log.info("all stays as it was: %s", problem)


def _stop(supervisor: Supervisor, came: queue.SimpleQueue[int], notifier: Notifier) -> None:
    """Stop all in order; at one more signal, kill what is left."""
    notifier.stopping()

    def close() -> None:
        try:
            supervisor.close()
        finally:
            came.put(_HAPPENED)

    closing = threading.Thread(target=close, name="shmbus up: stop", daemon=True)
    closing.start()
    told: list[str] = []
    while closing.is_alive():
        number = _next(came, 0.2)
        if number in (signal.SIGINT, signal.SIGTERM):
            log.info("killing what is left")
            supervisor.kill()
        left = _left(supervisor)
        if left and left != told and number is None:
            told = left
            log.info("stopping %s (Ctrl-C again kills)", ", ".join(left))
            notifier.status(f"stopping {', '.join(left)}")
        notifier.alive()


def _left(supervisor: Supervisor) -> list[str]:
    """The names of the processes that still run."""
    try:
        return [one.name for one in supervisor.status() if one.pid is not None]
    except SupervisorClosed:  # meanwhile
        return []
