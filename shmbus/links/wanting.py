"""What this link subscribes to on its bus, because endpoints of other sites do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Set
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shmbus.errors import BusError, Disconnected

from .pauses import Pauses
from .rules import widest
from .sure import confirms

if TYPE_CHECKING:
    from shmbus.aio.subscribing import Subscription

    from .node import Node

log = logging.getLogger("shmbus")

AT_ONCE = 16
"""Subscriptions that are begun, or ended, at a time."""


class Want(NamedTuple):
    """A subscription."""

    pattern: str
    group: str | None = None
    key: str | None = None


class Wanting:
    """The subscriptions of one link."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._there: dict[Want, Subscription] = {}
        self._failed: dict[Want, str] = {}
        """Those that the bus has refused, and why."""
        self._pauses = Pauses()
        self._trying: asyncio.TimerHandle | None = None
        self._again = False
        self._working: asyncio.Task[None] | None = None

    def look(self) -> None:
        """What others want has changed."""
        self._again = True
        self._node.settling.begin(self)
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    def wanted(self) -> set[Want]:
        """All that is wanted now."""
        found = set(self._of_all())
        plain = widest(sorted(want.pattern for want in found if want.group is None))
        return {want for want in found if want.group is not None or want.pattern in plain}

    def _of_all(self) -> Iterable[Want]:
        node = self._node
        for peer in node.peers.known():
            for wanted in peer.wants():
                if wanted.role != "subscribe":
                    continue
                for pattern in peer.rules.offered(wanted.pattern):
                    group, key = wanted.group, wanted.key
                    if confirms(node.config, msgspec.structs.replace(wanted, pattern=pattern)):
                        continue
                    if group is None or node.config.groups == "local":
                        yield Want(pattern)
                    else:  # who has a key has it for the pattern as it is
                        yield Want(pattern, group, key if pattern == wanted.pattern else None)

    async def _work(self) -> None:
        while self._again:
            self._again = False
            wanted = self.wanted()
            await _together(self._subscribe, wanted - self._there.keys())
            await _together(self._close, self._there.keys() - wanted)
            self._failed = {w: why for w, why in self._failed.items() if w in wanted}
        if self._failed:
            self._try_later()
        else:
            self._pauses.over()
        self._node.settling.done(self)  # what the bus refuses keeps nothing else waiting

    async def _subscribe(self, want: Want) -> None:
        try:
            self._there[want] = await self._node.endpoint.subscribe(
                want.pattern, group=want.group, key=want.key
            )
        except Disconnected as why:
            self._node.end(why)
        except BusError as why:  # such as a group that has another key here
            if self._failed.get(want) != str(why):
                log.warning("link %s: %s", self._node.config.site, why)
            self._failed[want] = str(why)
        else:
            self._failed.pop(want, None)

    async def _close(self, want: Want) -> None:
        try:
            await self._there.pop(want).close()
        except BusError as why:  # the bus is not there, and forgets it
            log.debug("link %s: %s", self._node.config.site, why)

    def _try_later(self) -> None:
        """What has failed may be possible by then, though nobody tells so."""
        if self._trying is not None:
            self._trying.cancel()
        loop = asyncio.get_running_loop()
        self._trying = loop.call_later(self._pauses.next(), self.look)

    def close(self) -> None:
        """Change nothing more; the endpoint's end is the subscriptions'."""
        if self._trying is not None:
            self._trying.cancel()
        if self._working is not None:
            self._working.cancel()


async def _together(change: Callable[[Want], Awaitable[None]], wants: Set[Want]) -> None:
    """So many at a time: each waits until the bus routes by it."""
    left = list(wants)
    while left:
        await asyncio.gather(*map(change, left[:AT_ONCE]))
        del left[:AT_ONCE]
