"""A link at work, in its event loop: what all that it does has in common.

Others add to it what frames of a lane mean (`frames`), and what is to happen when a peer comes,
goes, or wants something else (`peers`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from shmbus.aio.attach import attach_as
from shmbus.aio.endpoint import Endpoint
from shmbus.aio.relay import Relay
from shmbus.errors import BusError

from .config import LinkConfig
from .frames import Frames
from .greeting import Greeting
from .keeper import Tell
from .looking import Looking
from .peer import Peer
from .peers import Peers
from .settling import Settling
from .space import Space

log = logging.getLogger("shmbus")

CONCURRENCY = 1 << 16
"""Messages of the bus that are worked on at a time. A request is until its answer has come, which
shall keep nobody else's from being asked."""


class Node:
    """That of one link."""

    def __init__(
        self,
        bus: str | None,
        config: LinkConfig,
        run: str,
        keep: Tell | None = None,
        former: Collection[str] = (),
    ) -> None:
        self.config, self.run = config, run
        self.keep = keep
        """Has this link's keeper do something; None: it has none."""
        self.former = former
        """The sites that may have what lies there."""
        self._bus = bus
        self.endpoint: Endpoint
        self.peers = Peers(config, run)
        self.frames = Frames(config, run, self.peers)
        self.looking = Looking(config.site)
        self.settling = Settling()
        self.space = Space(config, run, self.peers, self.frames.take, self.end)
        self._greeting = Greeting(config, self.frames, self.peers, self.looking)
        self.on_close: list[Callable[[], Awaitable[None] | None]] = []
        """Called before the link leaves its bus."""
        self.unconfirmed: Callable[[str], int] = lambda site: 0
        """How many messages for a site are held until that has confirmed them."""
        self.asked: Callable[[], object] = _nothing
        """Called when a part of a request has been handled: more may come soon."""
        self.ping_peer: Callable[[Peer], Awaitable[float | None]]
        """Seconds to it and back; None: it has gone."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the link cannot go on."""
        self._attached = False

    async def attach(self) -> None:
        """Attach to the bus. Raises what attaching raises."""
        self.endpoint = await attach_as(
            f"@{self.config.name}", self._bus, reconnect="always", concurrency=CONCURRENCY
        )
        self._attached = True
        self.relay = Relay(self.endpoint)
        self.bus = self.endpoint.bus.name
        await self.looking.begin(self.endpoint)

    async def join(self) -> None:
        """Then join the space. Raises `NotSupported`, `LinkFailed` and `SiteTaken`."""
        await self.looking.see()
        await self.space.join(self.endpoint)
        self.looking.look()

    async def ping(self, site: str) -> float:
        """Seconds to this site and back, measured now. Raises `NoSuchSite`."""
        while (took := await self.ping_peer(self.peers.up(site))) is None:
            pass  # it has gone, or is there anew
        return took

    def end(self, why: BusError) -> None:
        """It cannot go on, for this reason."""
        if not self.ended.done():
            self.ended.set_exception(why)

    async def close(self) -> None:
        """Leave the space and the bus."""
        self.looking.close()
        self.space.rest()
        self.frames.close()
        self._greeting.close()
        for call in self.on_close:
            try:
                if (closing := call()) is not None:
                    await closing
            except BusError as why:
                log.warning("link %s: %s", self.config.site, why)
        self.peers.close()
        await self.space.close()
        if self._attached:
            await self.endpoint.close()


def _nothing() -> None:
    """Nobody wants to know."""
