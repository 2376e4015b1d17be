"""The other sites, as they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from shmbus.errors import NoSuchSite

from . import keys
from .channel import Channel, Put
from .config import LinkConfig
from .peer import Peer
from .rules import Rules

FORGOTTEN = 3600.0
"""Seconds for which what a site that was cut off would get is counted as lost for it."""


class Peers:
    """Those of one link. Iterating yields the ones whose tokens are there."""

    def __init__(self, config: LinkConfig, run: str) -> None:
        self._config, self._run = config, run
        self.on_met: list[Callable[[Peer], None]] = []
        """Called when its token has come."""
        self.on_up: list[Callable[[Peer], None]] = []
        """Called when a peer can be talked to."""
        self.on_down: list[Callable[[Peer, str], None]] = []
        """Called when it cannot any more, with the reason."""
        self.on_wants: list[Callable[[Peer], None]] = []
        """Called when what a peer's endpoints want may have changed."""
        self.on_measured: list[Callable[[Peer], None]] = []
        """Called when more is known of a peer's clock, and of how far away it is."""
        self._there: dict[str, Peer] = {}
        self._known: dict[str, Peer] = {}  # those that are not there at the moment, too
        self._of_sites: dict[str, Rules] = {}

    # Which there are -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._there.values())

    def get(self, site: str, *, there: bool = True) -> Peer | None:
        """That of this name. `there`: only if its token is."""
        return (self._there if there else self._known).get(site)

    def known(self) -> list[Peer]:
        """All that were there since this link began, by name."""
        return [peer for _, peer in sorted(self._known.items())]

    def up(self, site: str) -> Peer:
        """That of this name, which can be talked to. Raises `NoSuchSite`."""
        peer = self._there.get(site)
        if peer is None or not peer.up:
            there = tuple(sorted(p.site for p in self if p.up))
            raise NoSuchSite(space=self._config.space, site=site, there=there)
        return peer

    def nearest(self, sites: list[Peer]) -> list[Peer]:
        """The same, the nearest first."""
        if len(sites) < 2:
            return sites
        return sorted(sites, key=lambda p: (p.clock.round_trip_ns, p.site))

    def handling(self, type: str) -> list[Peer]:
        """Those that handle this type of this bus's, the nearest first."""
        found = []
        for peer in self:
            there = peer.rules.outward(type)
            if there is not None and peer.up and peer.table.handles(there):
                found.append(peer)
        return self.nearest(found)

    # Coming and going ------------------------------------------------------------------------

    def meet(self, site: str, run: str, put: Put) -> None:
        """The token of this run is there; `put` sends to it."""
        peer = self._known.get(site)
        if peer is not None and peer.run == run:
            peer.came_again()
        else:
            if peer is not None:
                peer.channel.close()
            peer = self._known[site] = self._new(site, run, put, peer)
        self._there[site] = peer
        for met in self.on_met:
            met(peer)

    def _new(self, site: str, run: str, put: Put, former: Peer | None) -> Peer:
        config = self._config
        channel = Channel(
            keys.Outbox(config.space, config.site, site),
            self._run,
            run,
            put,
            window=config.window,
            buffer=config.buffer,
            congestion=config.congestion,
        )
        peer = Peer(site, run, self._rules(site), channel)
        if former is not None:
            peer.count_on(former)
        return peer

    def _rules(self, site: str) -> Rules:
        """Towards this site; all that have none of their own share one."""
        own = site if site in self._config.sites else ""
        if own not in self._of_sites:
            self._of_sites[own] = self._config.towards(site)
        return self._of_sites[own]

    def came_up(self, peer: Peer) -> None:
        """It can be talked to."""
        for up in self.on_up:
            up(peer)

    def wants(self, peer: Peer) -> None:
        """What its endpoints want may have changed."""
        for wants in self.on_wants:
            wants(peer)

    def down(self, site: str, reason: str) -> None:
        """Its token has gone: `restarted` or `gone`; or this link takes leave of it: `closed`."""
        peer = self._there.pop(site, None)
        if peer is None:
            return  # this link ends, and has taken leave of it
        was_up, peer.up = peer.up, False
        if reason != "closed":
            peer.channel.cut()
            if peer.leaves:
                reason = "left"
            elif was_up:
                self._miss(peer)
        if was_up:
            for call in self.on_down:
                call(peer, reason)

    def _miss(self, peer: Peer) -> None:
        """It has gone without a word, and misses what it wants until it is there again."""
        missing = peer.missing = peer.table

        def forget() -> None:
            known = self._known[peer.site]
            if known.missing is missing:
                self._forget(known)

        asyncio.get_running_loop().call_later(FORGOTTEN, forget)

    def leaves(self, peer: Peer) -> None:
        """It has said that its link ends."""
        peer.leaves = True
        if peer.missing is not None:
            self._forget(peer)

    def _forget(self, peer: Peer) -> None:
        """It does not come again soon."""
        peer.missing = None
        self.wants(peer)

    def close(self) -> None:
        """Send nothing more to any."""
        for peer in self._known.values():
            peer.channel.close()
