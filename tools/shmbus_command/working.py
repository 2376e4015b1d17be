"""``shmbus worker``."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import click
from shmbus_console.options import complete_bus
from shmbus_console.output import note
from shmbus_console.run import usual_end

from shmbus.executor import work

from .attaching import running_bus, wait_for_bus


@click.command()
@click.argument("bus", shell_complete=complete_bus)
@click.argument("pool")
@wait_for_bus
@click.option(
    "--initializer",
    metavar="MODULE:FUNCTION",
    help="First call this, without arguments, such as one that loads a model.",
)
@click.option(
    "--max-tasks",
    type=click.IntRange(1),
    metavar="N",
    help="End after so many tasks, such as for a supervisor that starts it again.",
)
def worker(
    bus: str, pool: str, wait: float | None, initializer: str | None, max_tasks: int | None
) -> None:
    """Do tasks of the executor that serves POOL on the BUS, one at a time, until the bus is ended.

    A program has such an executor with shmbus.Executor(bus="BUS", name="POOL"); with max_workers=0
    it has only workers that join it so. They may come before it, and go on when another of that
    name follows it. Several take turns: whoever is free gets the next task.

    Tasks are functions that are imported here, from the current directory too, so their modules
    must be there; those of a program's own __main__ cannot be found. Tasks are pickled: work only
    for executors that you trust as you trust yourself.

    Ctrl-C ends it at once, and its task as if the worker had died; SIGTERM ends it after that task.

    \b
    shmbus serve symphony
    shmbus worker symphony frames
    python -c 'import math, shmbus
    with shmbus.Executor(0, bus="symphony", name="frames") as pool:
        print(*pool.map(math.sqrt, range(10)))'
    """
    sys.path.insert(0, os.getcwd())
    call = None if initializer is None else _found(initializer)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # `work` finishes its task
    with usual_end():
        work(
            running_bus(bus, wait),
            pool,
            initializer=call,
            max_tasks=max_tasks,
            ready=lambda: note(
                "worker", f"working for pool {pool} on {bus}, process {os.getpid()}"
            ),
        )


def _found(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as problem:
        raise click.BadParameter(f"{name!r}: {problem}", param_hint="--initializer") from None
    if not callable(found):
        raise click.BadParameter(f"{name!r} cannot be called", param_hint="--initializer")
    return found  # type: ignore[no-any-return]
