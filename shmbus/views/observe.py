"""A bus observed from outside: read-only, through shared memory alone.

It needs nothing of the bus, nor of the dispatcher: it also works while that hangs or after it has
died, and shows so.
"""

from __future__ import annotations

import threading
from typing import Literal, Self
from uuid import UUID

import msgspec

from shmbus import errors
from shmbus.shared import names, patterns, shortage
from shmbus.shared._kernel import monotonic, monotonic_ns, seconds

from . import discovery
from .facts import (
    Backlog,
    BusInfo,
    Clock,
    EndpointInfo,
    Losses,
    PastLoss,
    PendingRequest,
    Pool,
    Retained,
    ServiceInfo,
    SiteInfo,
)
from .free import why_not_free
from .health import LATE, Health, Latency, Traffic, assess
from .registry import Registry
from .routes import across, handlers
from .services import services_of
from .usage import Leaders, Processes

_TRIES = 8


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A bus at one moment, all of it."""

    seconds: float
    """That moment, on the monotonic clock."""
    info: BusInfo
    """The bus itself."""
    endpoints: list[EndpointInfo]
    """All that hold a slot, dead ones that are not removed yet included; behind them those of other
    sites."""
    sites: list[SiteInfo]
    """What its links say of sites."""
    backlogs: list[Backlog]
    """What waits in the dispatcher until somebody is free."""
    pools: list[Pool]
    """The memory for what is too large for rings, and who holds what of it."""
    health: Health
    """What is wrong, and the traffic."""


class BusView:
    """One bus, observed. Thread-safe; a context manager. Once it is closed, looking
    raises ``ViewClosed``.

    `name`: the bus's.

    Raises ``NoSuchBus`` (names the buses that run), ``LayoutMismatch`` (names both layouts),
    ``SegmentError`` (it belongs to another user, or is broken).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._open: Registry | None = None
        with shortage.nothing_kept(), shortage.told(name, "memory to look with"):
            self._open = Registry(name)
            self._processes = Processes()
            there = self._registry.endpoints()
            self._lost = _lost(there, self._registry.backlogs(there))
            self._waited = _waited(self._registry.pools(there))
            self._before = self._traffic()

    @property
    def _registry(self) -> Registry:
        if self._open is None:
            raise errors.ViewClosed(bus=self.name)
        return self._open

    def info(self) -> BusInfo:
        """The bus itself: its dispatcher, state and sizes."""
        with self._lock:
            return self._registry.info()

    def endpoints(self) -> list[EndpointInfo]:
        """All endpoints that hold a slot now, dead ones that are not removed yet included; behind
        them those of other sites that links know of (`EndpointInfo.site`)."""
        with self._lock:
            found = self._registry.endpoints()
            return found + self._registry.elsewhere(found)

    def sites(self) -> list[SiteInfo]:
        """The sites that this bus is joined to, as its links see them, and its own; none where it
        has no link."""
        with self._lock:
            return self._registry.sites(self._registry.endpoints())

    def backlogs(self) -> list[Backlog]:
        """What waits in the dispatcher until somebody who may take it is free: events of a queue
        group, or commands and requests, whose takers all have enough to do."""
        with self._lock:
            return self._registry.backlogs(self._registry.endpoints())

    def pools(self, *, untaken: bool = False) -> list[Pool]:
        """The memory of endpoints for payloads that are too large for rings, and who holds what of
        it; also that of endpoints which have gone, while somebody holds something there.
        ``untaken``: find out, too, in whose rings payloads lie that were not taken, though no
        sender waits (`Pool.untaken`)."""
        with self._lock:
            return self._registry.pools(self._registry.endpoints(untaken=untaken))

    def losses(self) -> tuple[PastLoss, ...]:
        """What was lost last though its receiver had not chosen so, latest first: where, why, and
        of which type."""
        with self._lock:
            return self._registry.losses(Clock.now())

    def find(
        self, pattern: str, *, role: Literal["subscribe", "handle"] | None = None
    ) -> list[EndpointInfo]:
        """The attached endpoints that subscribe to or handle what this pattern (or type) matches;
        with ``role`` those that do that. Those of other sites are among them, in the place of the
        links that pass messages on to them. Raises ``InvalidPattern``."""
        patterns.check_pattern(pattern)
        roles = ("subscribe", "handle") if role is None else (role,)
        found = [
            endpoint
            for endpoint in self.endpoints()
            if endpoint.state == "attached"
            and any(
                interest.role in roles and patterns.overlaps(pattern, interest.pattern)
                for interest in endpoint.interests
            )
        ]
        across = any(endpoint.site is not None for endpoint in found)
        return [endpoint for endpoint in found if not (across and endpoint.passes_on)]

    def services(self, pattern: str = ">") -> list[ServiceInfo]:
        """What attached endpoints offer (`Endpoint.offer`): of each service the methods whose
        requests this pattern (or type) matches. Raises ``InvalidPattern``."""
        patterns.check_pattern(pattern)
        return [
            service
            for endpoint in self.endpoints()
            if endpoint.state == "attached"
            for service in services_of(endpoint, pattern)
        ]

    def requests(self, name: str) -> list[PendingRequest]:
        """The requests under way of an endpoint; none where there is no such endpoint."""
        with self._lock:
            return [
                request
                for endpoint in self._registry.endpoints()
                if endpoint.name == name
                for request in self._registry.requests(endpoint.slot, endpoint.generation)
            ]

    def has_begun(
        self, name: str, generation: int, correlation_id: UUID
    ) -> tuple[int, bool] | None:
        """The pid of the endpoint to which a request was given, and whether it has begun that
        request. None: it is not there any more."""
        with self._lock:
            return self._registry.has_begun(name, generation, correlation_id.bytes)

    def beyond(self, link: str, type: str) -> list[EndpointInfo]:
        """The endpoints of other sites of which one gets a request of this type that was given to
        this link, those of the nearest site first."""
        with self._lock:
            noted = self._registry.noted_by(link)
        return [] if noted is None else handlers(noted, type)

    def waiting(self, name: str) -> Latency:
        """How long the messages that wait for an endpoint have been on their way since they were
        sent. Replies are not among them: they are taken as they come."""
        with self._lock:
            sent = [
                sent
                for endpoint in self._registry.endpoints()
                if endpoint.name == name
                for sent in self._registry.waiting(endpoint.slot, endpoint.generation)
            ]
        return Latency.of_times([max(monotonic_ns() - then, 0) / 1e9 for then in sent])

    def route(self, type: str) -> patterns.Route:
        """Who would get a message of this type now, and why: of other sites, too, in the place of
        the link that passes it on to them. Raises ``InvalidType``."""
        if not isinstance(type, str) or not type.startswith("$"):
            patterns.check_type(type)
        with self._lock:
            clock, registry = Clock.now(), self._registry
            found = registry.endpoints(clock)
            waiting = {(b.group, b.takers) for b in registry.backlogs(found, clock) if b.waiting}
            owners = registry.owners_of_key(type)
            links = registry.noted(found)
        there = {e.name: e for e in found if e.state == "attached"}
        route = patterns.route(
            type,
            [interest for endpoint in there.values() for interest in endpoint.interests],
            load=lambda name: there[name].untouched + there[name].in_hand,
            why_not_free=lambda name: why_not_free(there[name], clock),
            waiting=waiting,
            owners={
                group: e.name for e in found for group in owners.get(e.generation & 0xFFFFFFFF, ())
            },
        )
        return across(route, links) if links else route

    def health(self, *, late: float = LATE) -> Health:
        """Whether the bus is healthy, and its traffic. Rates, CPU and recent latency are of the
        time since the call before, or since this view was opened. ``late``: seconds for which a
        message may wait before the bus counts as degraded."""
        return self.look(late=late).health

    def look(self, *, late: float = LATE, untaken: bool = False) -> Look:
        """Everything at one moment; counts as a call of `health`. ``untaken``: see `pools`."""
        seconds(late, "late")  # raises where it is none
        with self._lock:
            clock = Clock.now()
            leaders = Leaders()
            info = self._registry.info(clock)
            endpoints = self._registry.endpoints(clock, leaders, untaken=untaken)
            backlogs = self._registry.backlogs(endpoints, clock)
            pools = self._registry.pools(endpoints)
            elsewhere, sites = self._registry.elsewhere(endpoints), self._registry.sites(endpoints)
            traffic, before = self._traffic(), self._before
            self._before = traffic
            deaths, losses = self._registry.deaths(), self._registry.losses(clock)
            lost, self._lost = self._lost, _lost(endpoints, backlogs)
            waited, self._waited = self._waited, _waited(pools)
            pids = {e.pid for e in endpoints if e.state != "dead"}
            if info.alive and info.pid is not None:
                pids.add(info.pid)
            processes = self._processes.look(pids, leaders)
        health = assess(
            info,
            endpoints,
            traffic,
            backlogs=backlogs,
            pools=pools,
            waited_before=waited,
            before=before,
            lost_before=lost,
            deaths=deaths,
            losses=losses,
            sites=sites,
            processes=processes,
            now=clock.wall / 1e9,
            late=late,
            names_missing=self._names_missing(info),
        )
        return Look(
            seconds=traffic.seconds,
            info=info,
            endpoints=endpoints + elsewhere,
            sites=sites,
            backlogs=backlogs,
            pools=pools,
            health=health,
        )

    def retained(self, pattern: str = ">") -> list[Retained]:
        """The values that the bus keeps of the types that match: what was published there with
        ``retain=True``, in that order. They are no `Message`, because there is no endpoint whose
        types would decode them. Raises ``InvalidPattern``."""
        patterns.check_pattern(pattern)
        with self._lock:
            return self._registry.retained(pattern)

    def close(self) -> None:
        """Unmap the shared memory."""
        with self._lock:
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _traffic(self) -> Traffic:
        """After the endpoints were looked at. What one lost that ends now is counted in BUS or by
        itself, not in both."""
        for _ in range(_TRIES):
            dropped = self._registry.dropped()
            bus = self._registry.head[0].copy()
            if self._registry.dropped() == dropped:
                break
        return Traffic.of(bus, monotonic(), dropped)

    def _names_missing(self, info: BusInfo) -> bool:
        if not info.alive or names.names_of(self.name).complete():
            return False
        return self._registry.info().state == "serving"  # else it ended meanwhile


def observe(bus: str | None = None) -> BusView:
    """Look at a bus, read-only; None: the one that SHMBUS_BUS in the environment names, or else the
    only one running.

    Raises ``NoSuchBus`` (names the buses that run), ``LayoutMismatch`` (names both layouts),
    ``SegmentError`` (it belongs to another user, or is broken), ``InvalidName``, ``NoResource``.
    """
    with discovery.named(bus):
        return BusView(discovery.choose(bus))


def _lost(endpoints: list[EndpointInfo], backlogs: list[Backlog]) -> dict[tuple[int, int], Losses]:
    found = {(e.slot, e.generation): e.lost_by for e in endpoints}
    return found | {(b.slot, b.generation): b.lost_by for b in backlogs}


def _waited(pools: list[Pool]) -> dict[tuple[int, int], int]:
    """For which pools a sender waits, and which of its waits that is."""
    return {(p.slot, p.generation): p.waits for p in pools if p.waiting}
