"""A question to all of several sites: one exchange with each site, which asks all there.

What came of it is a list of `Entry`, in MessagePack. That is also what the endpoint here gets that
asked: it makes one entry of its own of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from shmbus import errors
from shmbus.endpoint._kernel import Encoded

from . import failures
from .exchanges import ALL
from .requests import Asking, Exchange, Whole

if TYPE_CHECKING:
    from shmbus.aio.endpoint import Endpoint
    from shmbus.endpoint._kernel import Message

    from .peer import Peer

SLACK_NS = 20_000_000
"""So much sooner than its deadline an answer for all is on its way, at the least; but it takes no
more than a quarter of the time that there is."""


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What became of one request."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=96)]
    """Of the endpoint that was asked; here, of another site, `NAME@SITE`."""
    kind: Literal["reply", "error"]
    flags: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    payload: bytes
    """Of its reply, or the account of the error."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


async def gather_here(endpoint: Endpoint, type: str, payload: Encoded, left: float | None) -> bytes:
    """Ask all on this bus, for another site."""
    found = await endpoint.gather(type, payload, timeout=left)
    return _encode([_entry(name, result) for name, result in found.items()])


def _entry(name: str, result: Message | errors.BusError) -> Entry:
    if isinstance(result, errors.BusError):
        return Entry(name, "error", 0, failures.account(result))
    payload = result._encoded()
    return Entry(name, "reply", payload.flags, bytes(payload.data))


async def gather_there(
    asking: Asking, peers: Sequence[tuple[Peer, str]], message: Message, now: int
) -> Encoded:
    """Ask all who handle it at these sites, for an endpoint of this bus."""
    slack, patience = 0, None
    if message.deadline_ns is not None:
        left = max(0, message.deadline_ns - now)
        away = max((peer.clock.round_trip_ns for peer, _ in peers), default=0)
        slack = min(SLACK_NS + 2 * away, left // 4)
        patience = (left - slack // 2) / 1e9
    exchanges = [asking.begin(peer, type, message, ALL, slack) for peer, type in peers]
    found = await asyncio.gather(*(_entries(each, patience) for each in exchanges))
    return Encoded(0, _encode([entry for entries in found for entry in entries]))


async def _entries(exchange: Exchange, patience: float | None) -> list[Entry]:
    peer, type = exchange.peer, exchange.message.type
    try:
        async with asyncio.timeout(patience):
            came = await exchange.next()
    except TimeoutError:
        came = errors.RequestTimeout(
            type=type, seconds=patience or 0.0, endpoint=peer.link_there, sent=True
        )
    if isinstance(came, Whole):
        try:
            return [_named(entry, peer, type) for entry in _decode(came.payload.data)]
        except msgspec.MsgspecError as why:
            reason = f"it is no list of what became of each: {why}"
            came = errors.ReplyLost(type=type, endpoint=peer.link_there, reason=reason)
    if isinstance(came, errors.NoRoute):
        return []
    assert isinstance(came, errors.BusError)
    return [Entry(peer.link_there, "error", 0, failures.account(came))]


def _named(entry: Entry, peer: Peer, type: str) -> Entry:
    payload = entry.payload
    if entry.kind == "error":
        payload = failures.account(failures.read(payload, type, peer))
    return Entry(f"{entry.name}@{peer.site}", entry.kind, entry.flags, payload)
