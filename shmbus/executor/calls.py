"""Functions with their arguments become calls: numbered, packed, and put into the line."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shmbus import errors

from . import packing, wire
from .mapping import Item
from .task import Task

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Message
    from shmbus.shared.exits import Exit

    from .line import Call, Line

log = logging.getLogger("shmbus")


def name_of(call: Call) -> str:
    """By what a task is known in errors."""
    function = call._function
    return f"{getattr(function, '__qualname__', type(function).__qualname__)} #{call._number}"


class Calls:
    """Those of one executor. `timeout`, `retries`: of calls that say nothing else."""

    def __init__(self, line: Line, timeout: float | None, retries: int) -> None:
        self.line = line
        self.timeout, self.retries = timeout, retries
        self.exit_of: Callable[[int], Exit]
        self._numbers = itertools.count(1)
        self._listeners: dict[int, Callable[[Any], object]] = {}

    def submit(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task[Any]:
        """With what holds for all."""
        number = next(self._numbers)
        task: Task[Any] = Task(self.line, function, number)
        if self.retries:
            task._retries = self.retries
        self._send(task, (function, args, kwargs, number, self.timeout, False))
        return task

    def submit_with(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        timeout: float | None,
        retries: int,
        progress: Callable[[Any], object] | None,
    ) -> Task[Any]:
        """With what holds for this one. `progress` gets what it reports."""
        number = next(self._numbers)
        task: Task[Any] = Task(self.line, function, number)
        task._retries = retries
        if progress is not None:
            self._listeners[number] = progress
            task.add_done_callback(self._forget)
        self._send(task, (function, args, kwargs, number, timeout, progress is not None))
        return task

    def item(self, function: Any, args: tuple[Any, ...], done: deque[Item] | None) -> Item:
        """One of a map; it appends itself to `done` when it has ended."""
        number = next(self._numbers)
        item = Item(function, number, self.retries, done)
        self._send(item, (function, args, {}, number, self.timeout, False))
        return item

    def _send(self, call: Call, task: wire.Task) -> None:
        try:
            call._packed = packing.pack_call(*task)
        except Exception as why:
            self.line.end([(call, why)])
            return
        self.line.add(call)

    def _forget(self, task: Any) -> None:
        self._listeners.pop(task._number, None)

    # What comes back ------------------------------------------------------------------------------

    def reported(self, message: Message) -> None:
        """A worker tells of a task's progress."""
        wire.check_worker(self.line.endpoint.name, message.source)
        report: wire.Report = packing.unpack(message.payload)
        number, value = report
        listener = self._listeners.get(number)
        if listener is not None:
            try:
                listener(value)
            except Exception:
                log.exception("what listens to the progress of task %d raised", number)

    def died(self, call: Call, error: errors.EndpointDied) -> BaseException:
        """The worker that had begun this one has died."""
        ended = None if error.pid is None else self.exit_of(error.pid)
        return errors.WorkerDied(
            type=error.type,
            endpoint=error.endpoint,
            pid=error.pid,
            reason=error.reason,
            begun=error.begun,
            task=name_of(call),
            signal=ended.signal if ended else "",
            code=ended.code if ended else None,
        )

    def overdue(self, call: Call, error: errors.HandlerTimeout) -> BaseException:
        """This one takes too long."""
        return errors.TaskTimeout(
            task=name_of(call), seconds=error.seconds, endpoint=error.endpoint, pid=error.pid
        )
