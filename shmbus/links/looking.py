"""What the endpoints of this bus want: it is looked at when its routes have changed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shmbus.aio.endpoint import Endpoint
from shmbus.aio.threads import in_thread
from shmbus.errors import BusError
from shmbus.views import EndpointInfo

from .pauses import Pauses
from .rules import Rules
from .tables import Away, announced

log = logging.getLogger("shmbus")

COALESCED = 0.02
"""Seconds in which changes of the bus's routes become one."""


class Looking:
    """That of one link."""

    def __init__(self, site: str) -> None:
        """`site`: this bus's."""
        self._site = site
        self._endpoint: Endpoint
        self.on_seen: list[Callable[[], None]] = []
        """Called when it was looked at."""
        self._seen: list[EndpointInfo] = []
        self._tables: dict[
            Rules, dict[str, Away]
        ] = {}  # made of that, by the rules that were applied
        self._looking: asyncio.Task[None] | None = None
        self._look_again = False

    async def begin(self, endpoint: Endpoint) -> None:
        """Hear by this endpoint that its routes have changed."""
        self._endpoint = endpoint
        await endpoint.subscribe("$bus.routes", lambda _: self.look(), overflow="latest")

    def look(self) -> None:
        """The routes of the bus have changed, or somebody is to be told what is wanted."""
        self._look_again = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        pauses = Pauses()
        while self._look_again:
            await asyncio.sleep(COALESCED)
            self._look_again = False
            try:
                await self.see()
            except BusError as why:
                log.debug("link %s: %s", self._site, why)
                self._look_again = True
                await asyncio.sleep(pauses.next())
                continue
            pauses.over()
            for seen in self.on_seen:
                seen()

    async def see(self) -> None:
        """Look now, and call nobody."""
        there = self._endpoint.bus.endpoints
        found = await in_thread(self._endpoint.name, "looking", there)
        before = {(e.name, e.pid, e.generation): e for e in self._seen}
        # What the dispatcher does not route by yet is as it was; it tells when it does.
        routed = (e if e.routed else before.get((e.name, e.pid, e.generation)) for e in found)
        self._seen = [e for e in routed if e is not None]
        self._tables.clear()

    def announced(self, rules: Rules) -> dict[str, Away]:
        """What is told to peers with these rules, as it was seen last."""
        if rules not in self._tables:
            self._tables[rules] = announced(rules, self._seen)
        return self._tables[rules]

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
