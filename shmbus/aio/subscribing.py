"""Subscriptions in an event loop."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from shmbus.endpoint._kernel import LoopIteration, Message
from shmbus.endpoint.subscribing import Subscription as Synchronous

Callback = Callable[[Message], Any]


def is_asynchronous(function: object) -> bool:
    """Whether what it returns is to be awaited."""
    call = getattr(function, "__call__", None)  # noqa: B004
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, call)
    )


class Subscription:
    """What `Endpoint.subscribe`, `tap`, `offer` and `on_death` return. Leaving its `async with`
    block ends it. Where `subscribe` got no callback, `async for` yields its messages.

    `pattern`: what was subscribed to, or the name of the endpoint that is watched.
    `group`: the group that was given, or None.
    """

    def __init__(
        self,
        inner: Synchronous,
        close: Callable[[Callable[[], None]], Awaitable[None]],
        iterate: Callable[[], LoopIteration] | None = None,
        forget: Callable[[], None] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.pattern, self.group = inner.pattern, inner.group
        self._inner, self._close = inner, close
        self._iterate, self._forget, self._release = iterate, forget, release

    def __aiter__(self) -> LoopIteration:
        """Its messages, until it or the endpoint is closed. The loop has a turn after every 128 of
        them at the latest."""
        if self._iterate is None:
            raise TypeError(
                f"the subscription to {self.pattern!r} has a callback, which gets its messages"
            )
        return self._iterate()

    async def close(self) -> None:
        """End it: when this returns, no more messages are sent here for it, and those not taken
        yet are let go; those of a group, for another member to have them. Harmless if done
        before."""
        if self._forget is not None:
            self._forget()
        try:
            await self._close(self._inner.close)
        finally:
            if self._release is not None:
                self._release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
