"""What an executor and the workers of its pool say to each other: by which names and message types,
and what stands in each message. All of it is packed (`packing`).

A task is a request of the executor, which one of the workers handles; its reply is the result, or a
`Failure`. Ready and report are requests of a worker, which the executor handles.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from shmbus.errors import InvalidName
from shmbus.shared import names

Task = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], int, float | None, bool]
"""The function, its arguments, those by keyword; the task's number at its executor; seconds that it
may take (None: any time); whether somebody looks at what it reports."""

Report = tuple[int, Any]
"""The number of the task, and what it reports."""

Ready = tuple[int, int, "Failure | None"]
"""The pid of a worker; its number, where the executor has started it, else 0; and what its
initializer raised: None where it can take tasks."""


def check_pool(name: str) -> str:
    """The name of a pool itself, if it is one: one token of a message type. Raises
    `InvalidName`."""
    if isinstance(name, str) and "." in name:
        raise InvalidName(name=name, what="pool", reason="it has the character '.'")
    return names.check_pool(name)


def executor_name(pool: str) -> str:
    """Of the executor's endpoint: workers take tasks from no other."""
    return f"pool.{pool}"


def worker_name(pool: str, pid: int) -> str:
    """Of a worker's endpoint."""
    return f"pool.{pool}.{pid}"


def check_worker(executor: str, endpoint: str) -> None:
    """Raises PermissionError where an endpoint has not the name of a worker of this executor's,
    which unpacks nothing that others say."""
    if not endpoint.startswith(f"{executor}."):
        raise PermissionError(f"{endpoint!r} is no worker of {executor!r}")


def task_type(pool: str) -> str:
    """Of the requests that are tasks."""
    return f"pool.{pool}.task"


def ready_type(pool: str) -> str:
    """Of the request by which a worker says that it can take tasks, or why it cannot: `Ready`."""
    return f"pool.{pool}.ready"


def report_type(pool: str) -> str:
    """Of the request by which a worker tells of a task's progress: `Report`."""
    return f"pool.{pool}.report"


def begin_type(pool: str) -> str:
    """Of the event by which an executor tells workers started elsewhere that it is there: they
    answer that they are ready. Empty."""
    return f"pool.{pool}.begin"


def end_type(pool: str) -> str:
    """Of the event by which an executor tells the workers that it has started to leave. Empty."""
    return f"pool.{pool}.end"


class Failure:
    """What a task has raised, with its traceback there as the cause: a reply that is not the
    result."""

    def __init__(self, exception: BaseException, told: str | None = None) -> None:
        self.exception = exception
        self.traceback = _traceback_of(exception) if told is None else told

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.exception, self.traceback)


class RemoteTraceback(Exception):
    """The cause of an exception that came from a worker: where it was raised there."""

    def __init__(self, traceback: str) -> None:
        self.traceback = traceback

    def __str__(self) -> str:
        return self.traceback


def _received(exception: BaseException, told: str) -> Failure:
    exception.__cause__ = RemoteTraceback(f'\n"""\n{told}"""')
    return Failure(exception, told)


def _traceback_of(exception: BaseException) -> str:
    return "".join(traceback.format_exception(exception))
