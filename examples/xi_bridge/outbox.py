"""Events on their way to the bus."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import shmbus.aio
from shmbus.errors import BusError, Disconnected, MessageTooLarge, QueueFull

from .messages import Changed
from .methods import RETAINED

_log = logging.getLogger(__name__)

SPACE = 1000
"""Events that may wait; where there are more, the oldest go."""


class Outbox:
    """What the core says is put here at once, and published when the bus has space: reading from
    the core never waits for that. Whoever follows a view sees what is missing.

    `refused` is called with the type of an event that the bus does not take, and the reason.
    """

    def __init__(self, ep: shmbus.aio.Endpoint, refused: Callable[[str, BusError], object]) -> None:
        self._ep, self._refused = ep, refused
        self._events: deque[tuple[str, Any]] = deque(maxlen=SPACE)
        self._something = asyncio.Event()

    def put(self, type: str, payload: Any) -> None:
        self._events.append((type, payload))
        self._something.set()

    async def run(self) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            while self._events:
                type, payload = self._events.popleft()
                try:
                    await self._publish(type, payload)
                except QueueFull:
                    pass
                except Disconnected:
                    raise
                except BusError as error:
                    _log.warning("not published: %s", error)
                    self._refused(type, error)

    async def _publish(self, type: str, payload: Any) -> None:
        retain = type.removeprefix("xi.") in RETAINED
        try:
            await self._ep.publish(type, payload, timeout=1.0, retain=retain)
        except MessageTooLarge:
            if not isinstance(payload, Changed):
                raise
            payload.update = None  # it is not too large for a stream of lines
            await self._ep.publish(type, payload, timeout=1.0)
