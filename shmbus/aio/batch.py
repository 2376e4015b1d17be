"""Messages that are published together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Self

from shmbus.endpoint._kernel import Batch as KernelBatch
from shmbus.endpoint._kernel import ways
from shmbus.shared.layout import Kind

Post = Callable[[KernelBatch, int, int, str, object, float | None], Awaitable[None]]


class Batch:
    """What `Endpoint.batch` returns, to be used in `async with`: its messages are published
    together, at the latest when the block ends."""

    def __init__(self, inner: KernelBatch, post: Post) -> None:
        self._inner, self._post = inner, post

    async def publish(
        self,
        type: str,
        payload: object = None,
        *,
        timeout: float | None = 5.0,
        retain: bool = False,
        urgent: bool = False,
    ) -> None:
        """Send an event with this batch. Raises like `Endpoint.publish`."""
        await self._post(self._inner, Kind.EVENT, ways(retain, urgent), type, payload, timeout)

    async def send(self, type: str, payload: object = None, *, timeout: float | None = 5.0) -> None:
        """Send a command with this batch. Raises like `Endpoint.send`."""
        await self._post(self._inner, Kind.SEND, 0, type, payload, timeout)

    def flush(self) -> None:
        """Publish what there is so far."""
        self._inner.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._inner.flush()
