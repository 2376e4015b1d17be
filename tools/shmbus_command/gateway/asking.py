"""What a client has asked for: requests and streams under way, by its own ids."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from shmbus_console.messages import envelope

from shmbus import BusError, aio, errors

from .lines import BadLine, Id, Request, Stream
from .output import Output
from .wording import told

MOST = 1024
"""Of one client that may be under way."""


class Cancelled(BadLine):
    """What becomes of a request that its client withdraws."""

    def __init__(self, type: str) -> None:
        super().__init__(f"{type!r} was withdrawn", "To have its reply, do not cancel it")


class Asking:
    """The requests and streams of one client, each in a task that writes what comes of it."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._tasks: dict[Id, asyncio.Task[None]] = {}
        self._all: set[asyncio.Task[None]] = set()
        """These, and those whose last line waits until the client reads."""

    async def begin(self, endpoint: aio.Endpoint, said: Request | Stream) -> None:
        """Begin one, in its place among what this client sends. Raises `BadLine`, `BusError`."""
        payload = said.value()
        if said.id in self._tasks:
            raise BadLine(f"{said.id!r} is under way", "Give each request an id of its own")
        if len(self._all) >= MOST:
            raise errors.RequestsFull(
                type=said.type, endpoint=endpoint.name, limit=MOST, seconds=0.0
            )
        task = asyncio.create_task(self._ask(endpoint, said, payload))
        self._tasks[said.id] = task
        self._all.add(task)
        task.add_done_callback(self._all.discard)
        await asyncio.sleep(0)  # by the end of which it is sent, or stands in the line for that

    def cancel(self, identity: Id) -> None:
        """Withdraw one. Raises `BadLine`."""
        task = self._tasks.get(identity)
        if task is None:
            raise BadLine(
                f"no request {identity!r} is under way", "Give the id of one that has not ended"
            )
        task.cancel()

    async def wait(self) -> None:
        """Until all have ended."""
        while self._all:
            await asyncio.wait(self._all)

    def leave(self) -> None:
        """Withdraw all."""
        for task in self._all:
            task.cancel()

    async def _ask(self, endpoint: aio.Endpoint, said: Request | Stream, payload: object) -> None:
        last: dict[str, Any] = {"ok": True}
        try:
            if isinstance(said, Request):
                reply = await endpoint.request(said.type, payload, timeout=said.timeout)
                last |= envelope(reply)
            else:
                await self._take_parts(endpoint, said, payload)
        except BusError as why:
            last = {"error": told(why)}
        except asyncio.CancelledError:
            last = {"error": told(Cancelled(said.type))}
        finally:
            del self._tasks[said.id]
        with contextlib.suppress(asyncio.CancelledError):  # leaving: nobody waits any more
            await self._output.space()
        self._output.put({"id": said.id, **last})

    async def _take_parts(self, endpoint: aio.Endpoint, said: Stream, payload: object) -> None:
        async with endpoint.stream(said.type, payload, timeout=said.timeout) as parts:
            async for part in parts:
                await self._output.write({"id": said.id, **envelope(part)})
