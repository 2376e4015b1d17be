"""What runs in a worker's process: it takes tasks from the bus, one at a time, until it is told to
go."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from shmbus import errors
from shmbus.endpoint._kernel import Message
from shmbus.endpoint.attach import attach
from shmbus.endpoint.endpoint import Endpoint
from shmbus.shared import processes
from shmbus.shared._kernel import end_with

from . import packing, wire


class Setup(NamedTuple):
    """What a worker is given by the executor that starts it."""

    bus: str
    pool: str
    executor: int
    """The pid of the executor's process,"""
    executor_start: int
    """and when that started, in clock ticks since boot."""
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    tasks: int | None = None
    """After how many it leaves; None: never."""
    number: int = 0
    """Of the worker, at its executor."""


def main(setup: Setup) -> None:
    """Be a worker, in a process that was started for that."""
    _stand_alone()
    _end_with(setup.executor, setup.executor_start)
    with suppress(errors.Disconnected, errors.AttachError):  # the executor has gone
        with attach(setup.bus, name=wire.worker_name(setup.pool, os.getpid())) as endpoint:
            worker = Worker(endpoint, setup.pool, setup.tasks)
            failure = None
            try:
                if setup.initializer is not None:
                    setup.initializer(*setup.initargs)
            except BaseException as raised:
                failure = wire.Failure(raised)
            if failure is None:
                endpoint.subscribe(wire.end_type(setup.pool), worker.leave)
                endpoint.handle(wire.task_type(setup.pool), worker.do)
            worker.say_ready(setup.number, failure)
            if failure is not None:
                raise SystemExit(1)
            endpoint.run(reconnect=False)


def _stand_alone() -> None:
    """Out of the session of the executor, where Ctrl-C goes to all; and not as it is told there
    what signals do."""
    with suppress(OSError):
        os.setsid()
    signal.set_wakeup_fd(-1)


def _end_with(pid: int, start: int) -> None:
    """End this process when that one ends, whatever this one does then."""
    watched = processes.open_process(pid, start)
    if watched is None:
        raise SystemExit(1)
    end_with(pid, watched.stat, watched.pidfd)


class Worker:
    """Does the tasks that come to one endpoint; after `tasks` of them it leaves."""

    def __init__(self, endpoint: Endpoint, pool: str, tasks: int | None = None) -> None:
        self._endpoint, self._pool = endpoint, pool
        self._executor = wire.executor_name(pool)
        self._left = tasks
        self._number: int | None = None

    def say_ready(self, number: int, failure: wire.Failure | None = None) -> None:
        """Tell the executor that tasks may come, or why not."""
        ready: wire.Ready = (os.getpid(), number, failure)
        self._endpoint.request(wire.ready_type(self._pool), packing.pack(ready), timeout=None)

    def leave(self, _: object = None) -> None:
        """Do what has come, then leave the bus."""
        threading.Thread(target=self._endpoint.close, daemon=True).start()

    def do(self, message: Message) -> None:
        """Do a task, and reply with its result."""
        if message.source != self._executor:
            raise PermissionError(f"tasks come from {self._executor!r} alone")
        message.reply(self._done(message))
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._endpoint.close()  # the rest is handed on

    def _done(self, message: Message) -> Any:
        """Its result or what it raised, as a payload."""
        global _current
        try:
            function, args, kwargs, number, timeout, watched = packing.unpack(message.payload)
            if timeout is not None:
                message._limit(timeout)
            self._number = number if watched else None
            _current = self
            result = function(*args, **kwargs)
            del function, args, kwargs
            return packing.pack(result)
        except BaseException as raised:
            return _packed(raised, message)
        finally:
            _current = None

    def report(self, value: object) -> None:
        """Tell the executor, if it listens, and wait until it has heard it."""
        number = self._number
        if number is not None:
            said: wire.Report = (number, value)
            self._endpoint.request(wire.report_type(self._pool), packing.pack(said), timeout=None)


def _packed(raised: BaseException, message: Message) -> Any:
    """What a task has raised, without our own call of it; or what can be said of it, where it
    cannot be pickled."""
    trace = raised.__traceback__
    raised.__traceback__ = trace.tb_next if trace is not None and trace.tb_next else trace
    failure = wire.Failure(raised)
    try:
        packed = packing.pack(failure)
        packing.unpack(packed)
        return packed
    except Exception:
        kind = type(raised)
        told = errors.RemoteError(
            type=message.type,
            endpoint=message.source,
            error=f"{kind.__module__}.{kind.__qualname__}",
            message=str(raised),
        )
        return packing.pack(wire.Failure(told, failure.traceback))


_current: Worker | None = None


def report(value: object) -> None:
    """In a task: tell whoever submitted it how far it is; `value` is what ``progress=`` is called
    with there. Waits until the executor has it, so it comes before the task's result. Where nobody
    listens, and outside a task, it does nothing. Raises what pickling the value raises, and
    `BusDown`."""
    if (worker := _current) is not None:
        worker.report(value)
