"""A process of a test from the inside: it serves a bus, or calls a function with an endpoint."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import msgspec

from shmbus.endpoint.attach import attach
from shmbus.host import host
from shmbus.settings import Settings
from shmbus.shared.grants import Grant

from .options import WorkerOptions

_MAIN = "import sys; from shmbus.testing.child import main; main(sys.argv[1])"


class Function(msgspec.Struct):
    """What another process finds a function by."""

    module: str
    file: str
    name: str


class Task(msgspec.Struct, kw_only=True):
    """What a child process is told on its command line."""

    bus: str
    path: list[str]
    settings: Settings | None = None  # of the bus
    grants: dict[str, Grant | None] | None = None  # likewise
    function: Function | None = None  # None: serve the bus
    arguments: list[Any] = []
    name: str | None = None  # of the function's endpoint, and how it attaches
    options: WorkerOptions = {}

    def command(self) -> list[str]:
        """That starts the process."""
        return [sys.executable, "-c", _MAIN, msgspec.json.encode(self).decode()]


class Report(msgspec.Struct, kw_only=True):
    """What a child process reports, one a line, to the descriptor that SHMBUS_TESTING_FD names."""

    at: str  # ready, returned or raised
    value: Any = None
    trace: str = ""


def function_of(function: Callable[..., Any]) -> Function:
    """Raises ValueError where another process could not find it."""
    name = function.__qualname__
    if "<" in name:
        raise ValueError(
            f"{name} cannot be found by another process: define it at the top of its module"
        )
    return Function(function.__module__, inspect.getfile(function), name)


def main(encoded: str) -> None:
    """The whole life of a child process."""
    task = msgspec.json.decode(encoded, type=Task)
    sys.path[:] = task.path
    writer = int(os.environ.pop("SHMBUS_TESTING_FD"))
    os.set_inheritable(writer, False)

    def report(what: Report) -> None:
        os.write(writer, msgspec.json.encode(what) + b"\n")

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        if task.function is None:
            host(
                task.bus,
                settings=task.settings,
                grants=task.grants,
                ready=lambda bus: report(Report(at="ready")),
            )
            return
        function = _load(task.function)
        if inspect.iscoroutinefunction(function):
            value = _run_in_loop(function, task, lambda: report(Report(at="ready")))
        else:
            with attach(task.bus, name=task.name, **task.options) as endpoint:
                report(Report(at="ready"))
                value = function(endpoint, *task.arguments)
        report(Report(at="returned", value=value))
    except Exception as why:
        # Also where nobody asks for its result: pytest shows it with a test that fails.
        traceback.print_exc()
        report(Report(at="raised", trace=traceback.format_exc()))
        raise SystemExit(1) from why


def _run_in_loop(function: Callable[..., Any], task: Task, ready: Callable[[], None]) -> Any:
    """What an `async def` returns, with an endpoint of an event loop."""
    import shmbus.aio  # here, so that a process which does not need it begins sooner

    async def run() -> Any:
        async with shmbus.aio.attach(task.bus, name=task.name, **task.options) as endpoint:
            ready()
            return await function(endpoint, *task.arguments)

    return asyncio.run(run())


def _load(function: Function) -> Callable[..., Any]:
    try:
        module = importlib.import_module(function.module)
        if getattr(module, "__file__", None) != function.file:
            raise ImportError
    except ImportError:  # pytest imports test files that stand on no path, too
        spec = importlib.util.spec_from_file_location(function.module, function.file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{function.file} is no Python file") from None
        module = importlib.util.module_from_spec(spec)
        sys.modules[function.module] = module
        spec.loader.exec_module(module)
    found: Any = module
    for part in function.name.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]
