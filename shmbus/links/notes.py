"""What a link notes of sites, and of endpoints there, for whoever observes its bus
(`shared/sites.py`)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from shmbus.errors import BusError
from shmbus.shared.sites import EndpointNote, Note, SiteNote, SiteState, Wish, encode

if TYPE_CHECKING:
    from .node import Node
    from .peer import Peer
    from .tables import Away

log = logging.getLogger("shmbus")

EVERY = 1.0
"""Seconds after which numbers that have changed are noted."""


class Notes:
    """Those of one link."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._written: dict[str, Note] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._former = self._since
        self._timer: asyncio.TimerHandle | None = None
        node.settling.on_settled.append(self.write)
        node.space.on_refused.append(self.write)
        node.peers.on_down.append(lambda peer, reason: self.write())
        node.frames.on_heard.append(lambda peer: self.write_later())
        node.peers.on_measured.append(lambda peer: self.write_later())
        node.on_close.append(self.close)

    def write_later(self) -> None:
        """Numbers have changed."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._write_numbers)

    def _write_numbers(self) -> None:
        """Of sites: what endpoints there are does not change with them, and they may be many."""
        self._timer = None
        self._put(self._of_sites())

    def write(self) -> None:
        """Note what is other now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._former, self._since = self._since, {}
        now = [*self._of_sites(), *self._of_endpoints()]
        self._put(now, self._written.keys() - {note.key for note in now})

    def _put(self, notes: Iterable[Note], gone: Iterable[str] = ()) -> None:
        try:
            for note in notes:
                if self._written.get(note.key) != note:
                    self._node.relay.note(note.key, encode(note))
                    self._written[note.key] = note
            for key in gone:
                self._node.relay.note(key, None)
                del self._written[key]
        except BusError as why:
            log.debug("link %s: %s", self._node.config.site, why)

    def _of_endpoints(self) -> Iterable[Note]:
        for peer in self._node.peers.known():
            if peer.up:
                yield from (self._endpoint(peer, away) for away in peer.table.endpoints.values())

    def _of_sites(self) -> list[Note]:
        node, config = self._node, self._node.config
        notes: list[Note] = [self._site(config.site, node.run, "here")]
        for peer in node.peers.known():
            if peer.up:
                notes.append(self._of_peer(peer, "up", ""))
            elif peer.leaves:
                notes.append(self._of_peer(peer, "left", "its link has ended"))
            elif peer.met:
                notes.append(self._of_peer(peer, "down", "its link cannot be reached"))
        for site, wire in node.space.refused.items():
            reason = f"its link speaks version {wire} of the wire, this one another"
            notes.append(self._site(site, "", "refused", reason))
        return notes

    def _site(self, site: str, run: str, state: SiteState, reason: str = "") -> SiteNote:
        since = self._began(site, f"{run} {state}")
        space = self._node.config.space
        return SiteNote(site=site, space=space, run=run, state=state, since=since, reason=reason)

    def _of_peer(self, peer: Peer, state: SiteState, reason: str) -> SiteNote:
        known = peer.clock.known
        return SiteNote(
            site=peer.site,
            space=self._node.config.space,
            run=peer.run,
            state=state,
            since=self._began(peer.site, f"{peer.run} {state}"),
            reason=reason,
            round_trip=peer.round_trip,
            clock_offset_ns=None if known is None else known.ahead_ns,
            clock_error_ns=None if known is None else known.round_trip_ns // 2,
            sent=peer.channel.messages,
            sent_bytes=peer.channel.payload_bytes,
            received=peer.received,
            received_bytes=peer.received_bytes,
            lost_to=peer.channel.lost.total(),
            lost_from=peer.lost.total(),
            waiting_bytes=peer.channel.waiting_bytes,
            garbage=peer.garbage,
        )

    def _endpoint(self, peer: Peer, away: Away) -> EndpointNote:
        wishes = (
            Wish(pattern, wanted.role, wanted.group, wanted.key, wanted.history, wanted.method)
            for wanted in away.wants
            for pattern in peer.rules.offered(wanted.pattern)
        )
        return EndpointNote(
            name=away.name,
            site=peer.site,
            pid=away.pid,
            host=away.host,
            since=self._began(peer.site, f"{peer.run} {away.name} {away.pid}"),
            interests=tuple(wishes),
        )

    def _began(self, site: str, what: str) -> float:
        """When that was noted first."""
        key = site, what
        return self._since.setdefault(key, self._former.get(key) or time.time())

    async def close(self) -> None:
        """Note nothing more."""
        if self._timer is not None:
            self._timer.cancel()
