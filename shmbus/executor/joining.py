"""Working for an executor in a process that it has not started: `work`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shmbus import errors
from shmbus.endpoint._kernel import Message
from shmbus.endpoint.attach import attach

from . import wire
from .worker import Worker


def work(
    bus: str | None,
    pool: str,
    *,
    initializer: Callable[..., object] | None = None,
    initargs: tuple[Any, ...] = (),
    max_tasks: int | None = None,
    timeout: float | None = 5.0,
    ready: Callable[[], object] | None = None,
) -> None:
    """In this process, do tasks of the executor that serves this pool (``Executor(bus=bus,
    name=pool)``), one at a time, until the bus is ended. It may come before the executor, and go on
    when that is followed by another of the same name.

    Tasks are pickled: join only pools whose executor you trust as you trust this process, and where
    the functions can be imported. `bus`: None takes the one that SHMBUS_BUS in the environment
    names, or else the only one that runs. `initializer`, `initargs`: what is called first, instead
    of the executor's own. `max_tasks`: return after so many. `timeout`: seconds to wait for the
    bus. `ready`: is called once tasks can come. In the main thread, Ctrl-C ends it and the task at
    work, and is raised again; SIGTERM ends it after that task.

    Raises `InvalidName`, and like `attach`.
    """
    wire.check_pool(pool)
    name = wire.worker_name(pool, os.getpid())
    with attach(bus, name=name, timeout=timeout, reconnect=True) as endpoint:
        worker = Worker(endpoint, pool, tasks=max_tasks, interruptible=True)
        if initializer is not None:
            initializer(*initargs)

        def offer(_: Message | None = None) -> None:
            with suppress(errors.NoRoute, errors.EndpointDied):  # the executor comes later
                worker.say_ready()

        with suppress(errors.BusDown):
            worker.take_tasks()
            endpoint.subscribe(wire.begin_type(pool), offer)
            offer()
            if ready is not None:
                ready()
            endpoint.run()
