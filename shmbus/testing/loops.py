"""Tests of what runs in an event loop, with or without a plugin of pytest for that."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from shmbus.shared._kernel import monotonic

from .waiting import TIMEOUT

T = TypeVar("T")


def run_async(main: Callable[..., Coroutine[Any, Any, T]], *arguments: Any) -> T:
    """Run `await main(*arguments)` in an event loop of its own, and return what it returned: a
    call, or a decorator of a function that stands in a test. Fails the test after `TIMEOUT`
    seconds."""
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError as why:
        raise TypeError(
            f"run_async calls {main!r} here and now: {why}. Let a test take the fixtures, and "
            "decorate an `async def main()` within it"
        ) from None

    async def in_time() -> T:
        async with asyncio.timeout(TIMEOUT):
            return await main(*arguments)

    with asyncio.Runner() as runner:
        return runner.run(in_time())


async def eventually_async(
    condition: Callable[[], T | None], what: str = "", *, timeout: float = TIMEOUT
) -> T:
    """Like `eventually`, for a test in an event loop, which has its turns meanwhile."""
    end = monotonic() + timeout
    pause = 0.0005
    while True:
        result = condition()
        if result:
            return result
        if monotonic() >= end:
            what = what or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {timeout:g} s: {what}; it is still {result!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.02)
