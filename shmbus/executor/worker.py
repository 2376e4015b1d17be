"""What runs in a worker's process: it takes tasks from the bus, one at a time, until it is told to
go."""

from __future__ import annotations

import os
import signal
import sys
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
    reconnect: bool = False
    """Whether it waits for the next dispatcher where that of the bus dies."""
    number: int = 0
    """Of the worker, at its executor."""


def main(setup: Setup) -> None:
    """Be a worker, in a process that was started for that."""
    _stand_alone()
    _end_with(setup.executor, setup.executor_start)
    name = wire.worker_name(setup.pool, os.getpid())
    with attach(setup.bus, name=name, reconnect=setup.reconnect) as endpoint:
        worker = Worker(endpoint, setup.pool, tasks=setup.tasks)
        with suppress(errors.Disconnected, errors.NoRoute, errors.EndpointDied):  # it has gone
            worker.begin(setup)
            endpoint.run(reconnect=setup.reconnect)


def _stand_alone() -> None:
    """Out of the session of the executor, where Ctrl-C goes to all; not as it is told there what
    signals do; and without keeping the forkserver, which else would not end before this one."""
    with suppress(OSError):
        os.setsid()
    signal.set_wakeup_fd(-1)
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    kept = getattr(server, "_forkserver_alive_fd", None)
    if server is not None and kept is not None:
        server._forkserver_alive_fd = None  # one that is needed here is started anew
        os.close(kept)


def _end_with(pid: int, start: int) -> None:
    """End this process when that one ends, whatever this one does then."""
    watched = processes.open_process(pid, start)
    if watched is None:
        raise SystemExit(1)
    end_with(pid, watched.stat, watched.pidfd)


class Worker:
    """Does the tasks that come to one endpoint; after `tasks` of them it leaves. `interruptible`:
    Ctrl-C is for it, and not for its task alone."""

    def __init__(
        self,
        endpoint: Endpoint,
        pool: str,
        *,
        tasks: int | None = None,
        interruptible: bool = False,
    ) -> None:
        self._endpoint, self._pool, self._left = endpoint, pool, tasks
        self._executor = wire.executor_name(pool)
        self._interruptible, self._interrupted = interruptible, False
        self._number: int | None = None

    def begin(self, setup: Setup) -> None:
        """Take tasks from now on, once what `setup` says has been called. Ends the process where
        that raises: the executor gives up."""
        try:
            if setup.initializer is not None:
                setup.initializer(*setup.initargs)
        except BaseException as raised:
            self.say_ready(setup.number, wire.Failure(_without_us(raised)))
            raise SystemExit(1) from None
        self._endpoint.subscribe(wire.end_type(self._pool), self._leave)
        self.take_tasks()
        self.say_ready(setup.number)

    def take_tasks(self) -> None:
        """From now on."""
        self._endpoint.handle(wire.task_type(self._pool), self._do)

    def say_ready(self, number: int = 0, failure: wire.Failure | None = None) -> None:
        """Tell the executor that tasks may come, or why not."""
        ready: wire.Ready = (os.getpid(), number, failure)
        self._endpoint.request(wire.ready_type(self._pool), packing.pack(ready), timeout=None)

    def _leave(self, _: object) -> None:
        """Do what has come, then leave the bus."""

        def leave() -> None:
            with suppress(errors.BusError):
                self._endpoint.drain(None)

        threading.Thread(target=leave, daemon=True).start()

    def _do(self, message: Message) -> None:
        """Do a task, and reply with its result."""
        if message.source != self._executor:
            raise PermissionError(f"tasks come from {self._executor!r} alone")
        result = self._done(message)
        if self._interrupted:
            self._endpoint.close()  # its requester learns that the worker has gone
            raise KeyboardInterrupt
        message.reply(result)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._endpoint.close()  # what it has not begun is handed on

    def _done(self, message: Message) -> Any:
        """The result of a task, or what it has raised, as a payload."""
        global _current
        where = "unpickling the task"
        try:
            function, args, kwargs, number, timeout, heard = packing.unpack_call(message.payload)
            if timeout is not None:
                message._limit(timeout)
            self._number = number if heard else None
            _current = self
            where = ""
            result = function(*args, **kwargs)
            where = f"pickling the result of {_name(function)}"
            del function, args, kwargs
            return packing.pack(result)
        except BaseException as raised:
            if where:
                raised.add_note(f"(raised by {where}, in a worker of pool {self._pool!r})")
            self._interrupted = self._interruptible and isinstance(raised, KeyboardInterrupt)
            return _packed(_without_us(raised), message)
        finally:
            _current = None

    def report(self, value: object) -> None:
        """Tell the executor, if it listens, and wait until it has heard it."""
        number = self._number
        if number is not None:
            said: wire.Report = (number, value)
            self._endpoint.request(wire.report_type(self._pool), packing.pack(said), timeout=None)


def _name(function: object) -> str:
    """Of a function, for errors."""
    return str(getattr(function, "__qualname__", repr(function)))


def _without_us(raised: BaseException) -> BaseException:
    """It, with a traceback that begins where our call leads to."""
    trace = raised.__traceback__
    return raised.with_traceback(trace and trace.tb_next)


def _packed(raised: BaseException, message: Message) -> Any:
    """What a task has raised; or what can be said of it, where that cannot be pickled."""
    failure = wire.Failure(raised)
    try:
        packed = packing.pack(failure)
        packing.unpack(packed)  # what cannot be unpickled here cannot be there
        return packed
    except Exception:
        kind = type(raised)
        told = errors.RemoteError(
            type=message.type,
            endpoint=wire.worker_name(message.type.split(".")[1], os.getpid()),
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
