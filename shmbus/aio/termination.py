"""SIGTERM in an event loop: inside `run` all endpoints of the loop finish what they have."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod

from shmbus.endpoint.termination import untouched

Drain = Callable[[], Coroutine[Any, Any, None]]

_running: WeakKeyDictionary[asyncio.AbstractEventLoop, list[WeakMethod[Drain]]] = (
    WeakKeyDictionary()
)
"""Of the endpoints inside `run`, by their loop, which the main thread runs. It keeps neither: a
loop that is closed under them is forgotten with them."""

_drains: set[asyncio.Task[None]] = set()
"""Those that have begun, so that nothing collects them."""


@contextmanager
def drained(drain: Drain) -> Iterator[None]:
    """A block in which SIGTERM has `drain`, a method, awaited in a task of its own; a second one
    ends the process. Only in the main thread, where the program does nothing else about SIGTERM,
    and its event loop takes signals."""
    loop = asyncio.get_running_loop()
    if not _attend(loop):
        yield
        return
    drains, mine = _running.setdefault(loop, []), WeakMethod(drain)
    drains.append(mine)
    try:
        yield
    finally:
        drains.remove(mine)
        if not drains:
            _running.pop(loop, None)
            loop.remove_signal_handler(signal.SIGTERM)


def _attend(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop gets SIGTERM for endpoints inside `run`, from now on at the latest."""
    if loop in _running:
        return True
    if not untouched():
        return False
    try:
        loop.add_signal_handler(signal.SIGTERM, _terminate, loop)
    except NotImplementedError:
        return False
    return True


def _terminate(loop: asyncio.AbstractEventLoop) -> None:
    loop.remove_signal_handler(signal.SIGTERM)
    for endpoints_own in _running.get(loop, ()):
        if (drain := endpoints_own()) is None:
            continue
        task = loop.create_task(drain())
        _drains.add(task)
        task.add_done_callback(_drains.discard)
