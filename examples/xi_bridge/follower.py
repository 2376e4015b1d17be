"""Who follows a view: its lines, kept up to date over the bus.

Updates wait in a mailbox of which the oldest goes when it is full. So one who is slow, or stopped,
holds up nobody: when it goes on, it sees that steps are missing and asks for the lines once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from msgspec import convert

import shmbus.aio
from shmbus import BusError

from .errors import CORE_DOWN
from .lines import CachedLine, LineCache
from .messages import Changed, State
from .positions import Position

DEPTH = 64
"""Updates that may wait."""
PATIENCE = 30.0
"""Seconds within which the lines are to come first."""
AGAIN = 0.05
"""Seconds until the lines are asked for again, where that failed."""


class Follower:
    """A view followed; use it in `async with`."""

    def __init__(self, ep: shmbus.aio.Endpoint, view: str) -> None:
        self.ep, self.view = ep, view
        self.author = ""
        """Who has a caret here."""
        self.cache = LineCache()
        self.carets: dict[str, list[Position]] = {}
        self.styles: list[Any] = []
        self.seq = 0
        self.fetched = 0
        """How often it asked for the whole."""
        self.on_change: Callable[[], object] = lambda: None
        """Called after each step."""
        self.run = ""
        """Which life of the host counts so."""
        self._stepped = asyncio.Condition()
        self._steps = self._seen = 0
        self._ended = False

    async def __aenter__(self) -> Self:
        self._updates = await self.ep.subscribe(
            f"xi.{self.view}.update", overflow="drop_oldest", depth=DEPTH, payload_type=Changed
        )
        await self._fetch(PATIENCE)
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError, BusError):
            await self._following
        with contextlib.suppress(BusError):
            await self._updates.close()

    @property
    def text(self) -> str:
        return self.cache.text

    async def until(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Wait for a step after which that holds. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout), self._stepped:
            await self._stepped.wait_for(lambda: condition() or self._ended)
        self._check()

    async def step(self) -> None:
        """Wait until it has changed since the last time."""
        async with self._stepped:
            await self._stepped.wait_for(lambda: self._steps != self._seen or self._ended)
            self._seen = self._steps
        self._check()

    def _check(self) -> None:
        if self._ended:
            self._following.result()  # which raises what ended it
            raise shmbus.errors.EndpointClosed(endpoint=self.ep.name)

    async def _follow(self) -> None:
        try:
            async for message in self._updates:
                await self._take(message.payload)
        finally:
            self._ended = True
            async with self._stepped:
                self._stepped.notify_all()

    async def _take(self, changed: Changed) -> None:
        if changed.run == self.run and changed.seq <= self.seq:
            return  # it is in the lines that came already
        next = changed.run == self.run and changed.seq == self.seq + 1
        if not next or changed.update is None:
            await self._fetch(None)
            return
        self.cache.apply(changed.update)
        self.seq, self.carets = changed.seq, changed.carets
        await self._tell()

    async def _fetch(self, patience: float | None) -> None:
        """Get the whole. While nobody answers it asks again, for so long. A view that was closed
        ends it."""
        end = asyncio.get_running_loop().time() + (patience or float("inf"))
        while True:
            try:
                await self._ask()
                return
            except (shmbus.errors.PeerFailed, shmbus.BusDown) as error:
                for_good = isinstance(error, shmbus.BusDown) and not self.ep.reconnect
                refused = isinstance(error, shmbus.RemoteError) and error.error != CORE_DOWN
                late = asyncio.get_running_loop().time() > end
                if for_good or late or refused:
                    raise
                await asyncio.sleep(AGAIN)

    async def _ask(self) -> None:
        lines: list[CachedLine | None] = []
        asking = {"from": self.author} if self.author else {}
        async with self.ep.stream(f"xi.{self.view}.lines", asking, timeout=10.0) as parts:
            first = await anext(parts)
            state = convert(first.payload, State)
            async for part in parts:
                lines += convert(part.payload, list[CachedLine | None])
        self.cache.lines = lines
        self.cache.pristine, self.cache.annotations = state.pristine, state.annotations
        self.carets, self.styles = state.carets, state.styles
        self.run, self.seq = state.run, state.seq
        self.fetched += 1
        await self._tell()

    async def _tell(self) -> None:
        self._steps += 1
        self.on_change()
        async with self._stepped:
            self._stepped.notify_all()
