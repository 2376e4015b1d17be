"""Commands to endpoints of other sites. One that is lost on the way is counted there, and not sent
again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from shmbus.errors import BusError

from .wire import SEND, Reader

if TYPE_CHECKING:
    from shmbus.aio.endpoint import Endpoint
    from shmbus.endpoint._kernel import Encoded, Message

    from .peer import Peer

log = logging.getLogger("shmbus")


class Command(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A command, in front of its payload."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=48)]
    """Who sent it."""
    sent_ns: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """When, by the clock there."""
    flags: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    """Of its payload."""


_command = Reader(Command)


class _Came(NamedTuple):
    """One that waits for space on this bus."""

    peer: Peer
    held: int
    """The number of its frame."""
    there: str
    """Its type in the names of the space,"""
    here: str
    """and on this bus."""
    payload: Encoded


async def send_there(able: Sequence[tuple[Peer, str]], message: Message) -> None:
    """Send a command of this bus to the nearest site that handles it. Waits where that shall have
    all."""
    if not able:  # any more: whoever handles it by now shall have it, or nobody
        message.nack(reason="no site that handles it is up")
        return
    peer, type = able[0]
    await peer.channel.space()
    payload = message._encoded()
    peer.send(SEND, type, Command(message.source, message.sent_ns, payload.flags), payload.data)


class Commands:
    """Those of other sites, in the order in which they came."""

    def __init__(
        self,
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[Peer], object],
    ) -> None:
        """`done`: called when frames of a peer are done with, which it is to be told."""
        self._endpoint, self._loop, self._done = endpoint, loop, done
        self._waiting: deque[_Came] = deque()
        self._sending: asyncio.Task[None] | None = None

    def take(self, peer: Peer, type: str, body: msgspec.Raw, data: bytes) -> None:
        """A frame of the lane of commands. `type`: in the names of the space. Raises `Garbage`."""
        command = _command.read(body)
        assert isinstance(command, Command)
        lost = peer.take_untold(type)
        payload = peer.payload(command.source, command.sent_ns, command.flags, data, lost=lost)
        peer.received += 1
        peer.received_bytes += len(data)
        here = peer.rules.inward(type)
        if here is None:
            peer.lose(type)
            return
        self._waiting.append(_Came(peer, peer.arrivals.hold(), type, here, payload))
        if self._sending is None or self._sending.done():
            self._sending = self._loop.create_task(self._send())

    async def _send(self) -> None:
        while self._waiting:
            peer, held, there, here, payload = self._waiting.popleft()
            try:
                await self._endpoint.send(here, payload, timeout=None)
            except BusError as why:
                peer.lose(there)
                log.debug("command %r of site %s is lost: %s", here, peer.site, why)
            peer.arrivals.release(held)
            if peer.arrivals.due or not self._waiting:
                self._done(peer)

    def end(self) -> None:
        """The link ends."""
        if self._sending is not None:
            self._sending.cancel()
