"""What a link says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from shmbus.shared._kernel import monotonic_ns

if TYPE_CHECKING:
    from .node import Node
    from .peer import Peer


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Another site, as a link sees it."""

    site: str
    """Its name."""
    run: str
    """Which run of its link: 16 hex digits, others after each start."""
    up: bool
    """Whether it can be talked to: its endpoints are known."""
    round_trip: float | None = None
    """Seconds to it and back; None: not measured yet."""
    endpoints: int = 0
    """Endpoints there that want something that may come in from here, or handle it."""
    ahead: float | None = None
    """By how many seconds its clock is ahead of the one here; None: not measured yet."""
    ahead_error: float | None = None
    """By how much that may be wrong, either way."""
    sent: int = 0
    """Messages that have left for it."""
    sent_bytes: int = 0
    """Bytes of their payloads."""
    received: int = 0
    """Messages that have come from it."""
    received_bytes: int = 0
    """Bytes of their payloads."""
    lost_there: int = 0
    """Messages that were to leave for it and were dropped, or were lost on the way."""
    lost_by_type: dict[str, int] = {}
    """Those, by type in the names of the space; beyond 10,000 types those of all further ones as
    ``$other``."""
    lost_here: int = 0
    """Messages that were to come from it and were lost, as that site says, or that this bus did not
    take."""
    buffered: int = 0
    """Bytes that wait to leave for it."""
    under_way: int = 0
    """Bytes on their way to it: it has not acknowledged them."""
    unconfirmed: int = 0
    """Commands and group messages that are held until it has confirmed them."""
    garbage: int = 0
    """Frames in its name that no link sends."""


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A link, at one moment."""

    bus: str
    """The bus that it joins to others."""
    space: str
    """What it is joined to."""
    site: str
    """Its bus's name there."""
    endpoint: str
    """Its own on the bus."""
    run: str
    """16 hex digits, others after each start."""
    listening: tuple[str, ...]
    """Where others may connect to."""
    unreached: dict[str, str] = {}
    """Those addresses it is to connect to and does not reach, and why, as far as it can be seen."""
    detection: float
    """Seconds after which a site that says nothing counts as gone."""
    peers: tuple[PeerStatus, ...]
    """The other sites, by name."""
    refused: dict[str, str] = {}
    """Sites whose links speak another version, and which."""
    garbage: int = 0
    """Frames that no link sends."""
    stale: int = 0
    """Frames for, or from, a run that has ended."""
    overrun: int = 0
    """Frames that were dropped because they came faster than anybody may send."""


def status_of(node: Node) -> LinkStatus:
    """Of now."""
    return LinkStatus(
        bus=node.bus,
        space=node.config.space,
        site=node.config.site,
        endpoint=node.endpoint.name,
        run=node.run,
        listening=node.space.listening,
        unreached=dict(node.space.unreached),
        detection=node.config.detection,
        peers=tuple(
            PeerStatus(
                site=p.site,
                run=p.run,
                up=p.up,
                round_trip=p.round_trip,
                endpoints=len(p.table.endpoints),
                sent=p.channel.messages,
                sent_bytes=p.channel.payload_bytes,
                received=p.received,
                received_bytes=p.received_bytes,
                lost_there=p.channel.lost.total(),
                lost_here=p.lost.total(),
                lost_by_type=dict(p.channel.lost),
                buffered=p.channel.waiting_bytes,
                under_way=p.channel.under_way,
                unconfirmed=node.unconfirmed(p.site),
                garbage=p.garbage,
                **_clock(p),
            )
            for p in sorted(node.peers, key=lambda peer: peer.site)
        ),
        refused=dict(node.space.refused),
        garbage=node.frames.garbage,
        stale=node.frames.stale,
        overrun=node.space.overrun,
    )


def _clock(peer: Peer) -> dict[str, float]:
    """What is known of its clock, for a status."""
    known = peer.clock.known
    if known is None:
        return {}
    error = known.error_ns(monotonic_ns())
    return {"ahead": known.ahead_ns / 1e9, "ahead_error": error / 1e9}
