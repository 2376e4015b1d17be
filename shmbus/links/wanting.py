"""What this link subscribes to on its bus, because endpoints of other sites do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shmbus.errors import BusError, Disconnected

from .confirmed import confirms
from .rules import widest

if TYPE_CHECKING:
    from shmbus.aio.subscribing import Subscription

    from .node import Node

log = logging.getLogger("shmbus")


class Want(NamedTuple):
    """A subscription."""

    pattern: str
    group: str | None = None
    key: str | None = None


class Wanting:
    """The subscriptions of one link."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._there: dict[Want, Subscription | None] = {}
        self._again = False
        self._working: asyncio.Task[None] | None = None

    def look(self) -> None:
        """What others want has changed."""
        self._again = True
        self._node.unsettled.add(self)
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work())

    def wanted(self) -> set[Want]:
        """All that is wanted now."""
        found = set(self._of_all())
        plain = widest(sorted(want.pattern for want in found if want.group is None))
        return {want for want in found if want.group is not None or want.pattern in plain}

    def _of_all(self) -> Iterable[Want]:
        node = self._node
        for peer in node.known():
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
            for want in wanted - self._there.keys():
                await self._subscribe(want)
            for want in self._there.keys() - wanted:
                subscription = self._there.pop(want)
                if subscription is not None:
                    await subscription.close()
        self._node.settled(self)

    async def _subscribe(self, want: Want) -> None:
        try:
            self._there[want] = await self._node.endpoint.subscribe(
                want.pattern, group=want.group, key=want.key
            )
        except Disconnected as why:
            self._node.end(why)
        except BusError as why:  # such as a group that has another key here
            self._there[want] = None
            log.warning("link %s: %s", self._node.config.site, why)

    def close(self) -> None:
        """Change nothing more; the endpoint's end is the subscriptions'."""
        if self._working is not None:
            self._working.cancel()
