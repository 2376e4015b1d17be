"""What waits natively is called in a thread of its own, which ends with it, so that the loop goes
on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from shmbus.endpoint import background

Result = TypeVar("Result")


def begin_in_thread(
    endpoint: str,
    task: str,
    function: Callable[[], Result],
    undo: Callable[[Result], object] | None = None,
) -> asyncio.Future[Result]:
    """What `function` is to return, which is called from now on, in a thread that `endpoint` and
    `task` name. It is called to its end also where the future is cancelled: then `undo` gets what
    it returned. Raises `NoThread`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if error is not None:
            if not future.done():
                future.set_exception(error)
        elif future.done():  # cancelled
            _discard(endpoint, task, undo, result)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error there is one

    def call() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as why:
            error = why
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop is closed
            if error is None and undo is not None:
                undo(result)  # type: ignore[arg-type]

    background.start(background.thread_of(endpoint, task, call), endpoint, task)
    return future


def _discard(
    endpoint: str, task: str, undo: Callable[[Result], object] | None, result: Result | None
) -> None:
    if undo is not None:
        background.start(background.thread_of(endpoint, task, undo, result), endpoint, task)


async def in_thread(
    endpoint: str,
    task: str,
    function: Callable[[], Result],
    undo: Callable[[Result], object] | None = None,
) -> Result:
    """What `function` returns. Where the caller is cancelled, `undo` gets it. Raises `NoThread`."""
    future = begin_in_thread(endpoint, task, function, undo)
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            # Both came at once.
            _discard(endpoint, task, undo, future.result())
        raise


async def to_the_end(future: asyncio.Future[Result]) -> Result:
    """What it returns. Where the caller is cancelled meanwhile, it is awaited all the same, and
    then the cancellation is raised. `asyncio.run` cancels all tasks at its end, even one that has
    not begun; a future of a thread's is none."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as why:
            cancelled = why
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # it is the lesser one
        raise cancelled
    return future.result()
