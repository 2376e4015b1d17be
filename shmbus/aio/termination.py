"""SIGTERM in an event loop: inside `run` all endpoints of the loop finish what they have."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from shmbus.endpoint.termination import untouched

Drain = Callable[[], Coroutine[Any, Any, None]]

_running: list[Drain] = []
"""Of the endpoints inside `run`, all of the main thread's loop."""

_drains: set[asyncio.Task[None]] = set()
"""Those that have begun, so that nothing collects them."""


@contextmanager
def drained(drain: Drain) -> Iterator[None]:
    """A block in which SIGTERM has `drain` awaited in a task of its own; a second one ends the
    process. Only in the main thread, and where the program does nothing else about SIGTERM."""
    if not _running and not untouched():
        yield
        return
    loop = asyncio.get_running_loop()
    if not _running:
        loop.add_signal_handler(signal.SIGTERM, _terminate, loop)
    _running.append(drain)
    try:
        yield
    finally:
        _running.remove(drain)
        if not _running:
            loop.remove_signal_handler(signal.SIGTERM)


def _terminate(loop: asyncio.AbstractEventLoop) -> None:
    loop.remove_signal_handler(signal.SIGTERM)
    for drain in _running:
        task = loop.create_task(drain())
        _drains.add(task)
        task.add_done_callback(_drains.discard)
