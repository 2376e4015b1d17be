"""Values that this bus keeps, for subscriptions with history on others."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from shmbus.aio.threads import in_thread
from shmbus.errors import BusError

from .leaving import Leaving
from .peer import Peer

if TYPE_CHECKING:
    from shmbus.views import Retained

    from .node import Node

log = logging.getLogger("shmbus")


class Histories:
    """Those of all peers. They leave among the events of this bus."""

    def __init__(self, node: Node, leaving: Leaving) -> None:
        self._node, self._leaving = node, leaving
        self._sent: dict[Peer, set[tuple[str, int, str]]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    def send(self, peer: Peer) -> None:
        """Those for subscriptions that are new there."""
        if not peer.up:
            return
        wanted = {
            (pattern, each.history, each.endpoint)
            for each in peer.table.histories()
            for pattern in peer.rules.offered(each.pattern)
        }
        new = {(pattern, history) for pattern, history, _ in wanted - self._sent.get(peer, set())}
        self._sent[peer] = wanted
        if new:
            reading = asyncio.get_running_loop().create_task(self._read(peer, new))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)

    async def _read(self, peer: Peer, new: set[tuple[str, int]]) -> None:
        endpoint = self._node.endpoint
        values: dict[int, Retained] = {}
        try:
            for pattern, history in new:
                look = partial(endpoint.bus.retained, pattern)
                for last in _last(await in_thread(endpoint.name, "looking", look), history):
                    values[last.number] = last
        except BusError as why:
            log.debug("link %s: %s", self._node.config.site, why)
        for _, value in sorted(values.items()):
            there = peer.rules.outward(value.type)
            if value.site is None and value.whole and there is not None and peer.up:
                self._leaving.keep(peer, there, value)

    def forget(self, peer: Peer) -> None:
        """It is not there any more."""
        self._sent.pop(peer, None)

    def close(self) -> None:
        """Read no more."""
        for reading in self._reading:
            reading.cancel()


def _last(values: list[Retained], history: int) -> list[Retained]:
    """So many of each type."""
    of_type: dict[str, deque[Retained]] = {}
    for value in values:
        of_type.setdefault(value.type, deque(maxlen=history)).append(value)
    return [value for last in of_type.values() for value in last]
