"""Ctrl-C while an endpoint leaves.

At the first Ctrl-C `asyncio.run` cancels the main task. At each later one it raises
KeyboardInterrupt wherever the loop is at that moment. In the midst of scheduling a callback that
loses the callback, and with it perhaps the next step of a task, for which `asyncio.run` then waits
for ever. So a Ctrl-C that comes while an endpoint leaves is held, makes it leave at once, and takes
effect when it has left. One more while it is held is not.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class _Held:
    """The blocks that hold it, all in the main thread."""

    def __init__(self) -> None:
        self.blocks: list[Callable[[], object]] = []
        """Each says how to end it soon."""
        self.came = False
        self.before: Any = None


_held = _Held()


@contextmanager
def held(hasten: Callable[[], object]) -> Iterator[None]:
    """A block, at whose end a Ctrl-C takes effect that came in it; `hasten` is called in the loop
    when it comes. Only one that would raise KeyboardInterrupt in this thread's loop: the first,
    which cancels the main task, does so at once, and a handler of the program's own is left
    alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _held.blocks and _raises(handler := signal.getsignal(signal.SIGINT)):
        _held.before = handler
        signal.signal(signal.SIGINT, _hold)
    block = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, hasten)
    _held.blocks.append(block)
    try:
        yield
    finally:
        _held.blocks.remove(block)
        if not _held.blocks:
            _let_go()


def _raises(handler: Any) -> bool:
    return handler is signal.default_int_handler or _main_task(handler) is not None


def _main_task(handler: Any) -> asyncio.Task[Any] | None:
    """That of the `asyncio.Runner` whose handler it is."""
    if not isinstance(handler, functools.partial):
        return None
    runner = getattr(handler.func, "__self__", None)
    return handler.keywords.get("main_task") if isinstance(runner, asyncio.Runner) else None


def _hold(number: int, frame: FrameType | None) -> None:
    main = _main_task(_held.before)
    if main is not None and not main.done() and not main.cancelling():
        _held.before(number, frame)  # it cancels the main task
    elif _held.came:
        _let_go()
    else:
        _held.came = True
        for hasten in _held.blocks:
            hasten()


def _let_go() -> None:
    """Install the handler from before, and have it deal with what came."""
    before, _held.before = _held.before, None
    if before is None:
        return
    main = _main_task(before)
    if main is not None and main.done():  # its run has ended, and left ours installed
        before = signal.default_int_handler
    if signal.getsignal(signal.SIGINT) is _hold:
        signal.signal(signal.SIGINT, before)
    came, _held.came = _held.came, False
    if came:
        before(signal.SIGINT, None)
