"""Whether a bus is healthy, computed from one moment's facts, and what is wrong.

This is for operators and supervisors; nothing in the bus acts upon it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from shmbus.shared import _kernel, layout

from .complaints import (
    faults,
    faults_of_backlogs,
    full_pools,
    late_in_backlogs,
    past_losses,
    refused,
    sites_away,
    warnings,
    without_mailbox,
)
from .facts import (
    Backlog,
    BusInfo,
    EndpointInfo,
    Losses,
    PastDeath,
    PastLoss,
    Pool,
    Process,
    SiteInfo,
)

LATE = 5.0
"""Seconds for which a message may wait before the bus counts as degraded: the time for which a
caller waits for its reply by default."""

State = Literal["healthy", "degraded", "unhealthy"]

_FLOORS: NDArray[np.float64] = np.array(_kernel.latency_floors()) / 1e9
"""Where each latency bucket begins, in seconds, and where the last would end."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took, mostly the bus: its routing latency is the time from the publication
    in the sender's ring to that in the receiver's. Seconds; percentiles are exact to an eighth."""

    count: int
    """How many were measured."""
    mean: float
    """Their average."""
    p50: float
    """Half of them took no longer."""
    p90: float
    """90 % of them took no longer."""
    p99: float
    """99 % of them took no longer."""
    p999: float
    """99.9 % of them took no longer."""
    max: float
    """The longest."""
    histogram: tuple[tuple[float, int], ...] = ()
    """Where each octave begins and how many were in it, from the first with any to the last."""

    @classmethod
    def of(cls, buckets: NDArray[np.uint64], total: float, longest: float) -> Latency:
        """From a histogram, the sum of what it counts and the largest, both in seconds."""
        count = int(buckets.sum())
        if not count:
            return cls(count=0, mean=0.0, p50=0.0, p90=0.0, p99=0.0, p999=0.0, max=0.0)
        upto = np.cumsum(buckets)

        def percentile(part: float) -> float:
            bucket = int(np.searchsorted(upto, max(part * count, 1)))
            return min(float(_FLOORS[bucket] + _FLOORS[bucket + 1]) / 2, longest)

        return cls(
            count=count,
            mean=total / count,
            p50=percentile(0.5),
            p90=percentile(0.9),
            p99=percentile(0.99),
            p999=percentile(0.999),
            max=longest,
            histogram=_octaves(buckets),
        )

    @classmethod
    def of_times(cls, times: Sequence[float]) -> Latency:
        """From the times themselves, in seconds."""
        buckets = np.searchsorted(_FLOORS[1:-1], times, side="right")
        counts = np.bincount(buckets, minlength=layout.LATENCY_BUCKETS).astype(np.uint64)
        return cls.of(counts, sum(times), max(times, default=0.0))


def _octaves(buckets: NDArray[np.uint64]) -> tuple[tuple[float, int], ...]:
    counts = buckets.reshape(-1, 8).sum(axis=1)
    used = np.flatnonzero(counts)
    octaves = range(int(used[0]), int(used[-1]) + 1)
    return tuple((float(_FLOORS[octave * 8]), int(counts[octave])) for octave in octaves)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What the forwarding plane has counted up to one moment."""

    seconds: float
    """That moment, on the monotonic clock."""
    routed: int
    unrouted: int
    no_route: int
    forbidden: int
    dead_letters: int
    orphans: int
    cancels: int
    cancels_lost: int
    credits_lost: int
    lost: int
    lost_by: Losses
    redelivered: int
    violations: int
    backlogs_failed: int
    mailboxes_failed: int
    retained: int
    retained_bytes: int
    evicted: int
    latency: tuple[int, ...]
    latency_sum: float
    latency_max: float

    @classmethod
    def of(cls, bus: Any, seconds: float, dropped: int = 0) -> Traffic:
        """From a copy of BUS, and what mailboxes have lost beside that."""
        names = "routed unrouted no_route forbidden dead_letters orphans redelivered violations"
        by = Losses.of(bus)
        names += " cancels cancels_lost credits_lost"
        names += " backlogs_failed mailboxes_failed retained retained_bytes evicted"
        return cls(
            seconds=seconds,
            lost=int(bus["lost"]) + dropped,
            lost_by=msgspec.structs.replace(by, dropped=by.dropped + dropped),
            latency=tuple(bus["latency"].tolist()),
            latency_sum=int(bus["latency_sum_ns"]) / 1e9,
            latency_max=int(bus["latency_max_ns"]) / 1e9,
            **{name: int(bus[name]) for name in names.split()},
        )

    def latency_since(self, before: Traffic | None) -> Latency:
        """The latency of what was routed since then, or ever."""
        mine, total = np.array(self.latency, np.int64), self.latency_sum
        longest = self.latency_max
        if before is not None and self.routed >= before.routed:
            mine = np.maximum(mine - np.array(before.latency, np.int64), 0)
            total -= before.latency_sum
            full = np.flatnonzero(mine)
            if full.size:  # the end of the highest bucket in use: the exact maximum is not kept
                longest = min(longest, float(_FLOORS[int(full[-1]) + 1]))
        return Latency.of(mine.astype(np.uint64), total, longest)


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint, as `Health` shows it."""

    name: str
    """The endpoint's."""
    state: str
    """Its most important condition: dead, leaving, stopped, stalled, overdue, slow, full, busy,
    idle."""
    pid: int
    """Its process."""
    cpu: float | None
    """Of one CPU, in percent, since the look before; of the whole process."""
    memory: int | None
    """Resident bytes of the whole process."""
    incoming: int
    """Bytes in its incoming rings, all together."""
    outgoing: int
    """Bytes in its outgoing rings, both together."""
    incoming_high: int
    """The most bytes that were ever in its incoming data ring."""
    outgoing_high: int
    """The most bytes that were ever in its outgoing data ring."""
    untouched: int
    """Messages that wait for it, in its rings and not taken."""
    oldest: float | None
    """For how long the oldest message has waited for it, or its own to be forwarded: seconds; None
    where none waits."""
    in_hand: int
    """Messages begun and not done."""
    sent: int
    """Messages that it has sent."""
    received: int
    """Messages that it has taken."""
    lost: int
    """Messages that it should have got and did not."""
    lost_by: Losses
    """The same by the reason."""
    redelivered: int
    """Messages handed on to it when another endpoint ended, or gave them back."""
    last_progress: float | None
    """When it last took a message, to about 10 ms: seconds since the epoch."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """A bus at one moment."""

    bus: str
    """Its name."""
    state: State
    """``unhealthy``: messages are lost or do not get on. ``degraded``: they do, but late, or not
    all is as it should be; or some were lost within the last five minutes. What a receiver chose
    to lose does not count."""
    healthy: bool
    """Whether ``state`` is that: there is nothing to complain of."""
    reasons: tuple[str, ...]
    """Why it is not healthy, each with what to do; faults first."""
    oldest: float | None
    """For how long the oldest message has waited, anywhere on the bus (backlogs included) but at
    endpoints that lose rather than wait: seconds; None where none waits."""
    bus_state: str
    """What the dispatcher wrote, as in `BusInfo.state`."""
    dispatcher_alive: bool
    """Whether the dispatcher's process is alive."""
    pid: int | None
    """The dispatcher's process; None: there is none."""
    serial: int
    """How many dispatchers the bus has had."""
    uptime: float | None
    """Seconds since this dispatcher began."""
    heartbeat_age: float | None
    """Seconds since the forwarding plane's last heartbeat (every 0.1 s at least, while an endpoint
    is attached)."""
    control_age: float | None
    """Seconds since the control plane last ran."""
    cpu: float | None
    """Of the dispatcher's process: percent of one CPU since the look before."""
    memory: int | None
    """Of the dispatcher's process: resident bytes."""
    rate: float
    """Messages a second delivered since the look before (or since the view was opened)."""
    latency: Latency
    """Of all that this bus has routed."""
    recent_latency: Latency
    """Of what it has routed since the look before."""
    pending: int
    """Requests under way."""
    routed: int
    """Messages that the bus has delivered, an event to several once for each."""
    lost: int
    """Messages that a receiver should have got and did not, of all endpoints that the bus ever
    had, also where it chose so (``lost_by.dropped``), of which `reasons` say nothing."""
    lost_by: Losses
    """The same by the reason."""
    last_losses: tuple[PastLoss, ...]
    """What was lost last and nobody had chosen so, latest first: where, why, and of which type.
    Those of the last five minutes are among the reasons."""
    unrouted: int
    """Events that no subscription matched, and that the bus does not keep either."""
    no_route: int
    """Commands and requests that no endpoint handled."""
    forbidden: int
    """How often endpoints tried what their grants do not cover."""
    dead_letters: int
    """Messages published on ``$bus.undeliverable`` because no endpoint will handle them."""
    orphans: int
    """Replies that no request waited for."""
    cancels: int
    """Withdrawn requests of which the server was told."""
    cancels_lost: int
    """How often it had no space to be told; it is told later, and works in vain until then."""
    credits_lost: int
    """Credits for parts of replies for which their server had no space; they are said again."""
    redelivered: int
    """Messages handed on when an endpoint ended, or gave them back."""
    violations: int
    """Endpoints that were quarantined, since they wrote what no endpoint writes."""
    deaths: dict[str, int]
    """How many endpoints did not end in good order, by how they ended (a word of `Death.reason`),
    since the bus was made."""
    last_deaths: tuple[PastDeath, ...]
    """The last of these, latest first."""
    backlogs: tuple[Backlog, ...]
    """What waits in the dispatcher until somebody who may take it is free."""
    backlogs_failed: int
    """Backlogs that could not be made, or were removed while messages waited in them."""
    mailboxes_failed: int
    """Mailboxes that could not be made: each subscription that wanted one got an error."""
    retained: int
    """Values that the bus keeps for who subscribes later."""
    retained_bytes: int
    """Bytes that these take, in pools included."""
    evicted: int
    """Values that went, or were not kept, for want of space."""
    pools: tuple[Pool, ...]
    """Memory of endpoints for what is too large for rings, and who holds what of it."""
    endpoints: tuple[EndpointHealth, ...]
    """Each on its own."""


def assess(
    info: BusInfo,
    endpoints: Sequence[EndpointInfo],
    traffic: Traffic,
    *,
    backlogs: Sequence[Backlog] = (),
    pools: Sequence[Pool] = (),
    waited_before: Mapping[tuple[int, int], int] | None = None,
    before: Traffic | None = None,
    lost_before: dict[tuple[int, int], Losses] | None = None,
    deaths: tuple[dict[str, int], tuple[PastDeath, ...]] = ({}, ()),
    losses: tuple[PastLoss, ...] = (),
    sites: Sequence[SiteInfo] = (),
    processes: dict[int, Process] | None = None,
    now: float,
    late: float = LATE,
    names_missing: bool = False,
) -> Health:
    """The health of a bus. ``before`` is the look before this one, ``lost_before`` what each slot
    and generation had lost by then (none: it has come since), ``waited_before`` for whose pools a
    sender waited then, and which of its waits it was, ``now`` seconds since the epoch, ``late`` the
    seconds for which a message may wait, ``names_missing`` whether somebody removed the bus's names
    from /dev/shm."""
    processes, lost_before = processes or {}, lost_before or {}
    elapsed = traffic.seconds - before.seconds if before is not None else 0.0
    routed = traffic.routed - before.routed if before is not None else 0
    host = processes.get(info.pid) if info.pid is not None else None
    recent = traffic.latency_since(before)
    lost = [_since(e.lost_by, lost_before.get((e.slot, e.generation))) for e in endpoints]
    known = {(loss.slot, loss.generation, loss.reason): loss for loss in losses}
    wrong = faults(
        info, endpoints, lost, known=known, now=now, host=host, names_missing=names_missing
    )
    waiting_lost = [_since(b.lost_by, lost_before.get((b.slot, b.generation))) for b in backlogs]
    wrong += faults_of_backlogs(
        backlogs,
        waiting_lost,
        known=known,
        now=now,
        failed=traffic.backlogs_failed - (before.backlogs_failed if before is not None else 0),
        late=late,
    )
    slow = warnings(
        info,
        endpoints,
        lost,
        deaths[1],
        known=known,
        routing=(recent.p99, recent.max),
        late=late,
        now=now,
    )
    since = [(e.slot, e.generation, gone) for e, gone in zip(endpoints, lost, strict=True)]
    since += [(b.slot, b.generation, gone) for b, gone in zip(backlogs, waiting_lost, strict=True)]
    slow += past_losses(losses, endpoints, backlogs, since, now)
    slow += refused(traffic.forbidden - (before.forbidden if before is not None else 0), endpoints)
    slow += full_pools(pools, waited_before or {})
    slow += sites_away(sites)
    slow += without_mailbox(
        traffic.mailboxes_failed - (before.mailboxes_failed if before is not None else 0)
    )
    if info.alive:
        slow += late_in_backlogs(backlogs, waiting_lost, known=known, now=now, late=late)
    waits = [b.oldest for b in backlogs if b.oldest is not None]
    waits += [age for e in endpoints if not e.lossy and (age := _oldest(e)) is not None]
    return Health(
        bus=info.name,
        state="unhealthy" if wrong else "degraded" if slow else "healthy",
        healthy=not (wrong or slow),
        reasons=(*wrong, *slow),
        oldest=max(waits, default=None),
        bus_state=info.state,
        dispatcher_alive=info.alive,
        pid=info.pid,
        serial=info.serial,
        uptime=max(now - info.since, 0.0) if info.since is not None and info.alive else None,
        heartbeat_age=info.heartbeat_age,
        control_age=info.control_age,
        cpu=host.cpu if host else None,
        memory=host.memory if host else None,
        rate=max(routed, 0) / elapsed if elapsed > 0 else 0.0,
        latency=traffic.latency_since(None),
        recent_latency=recent,
        pending=sum(e.pending for e in endpoints),
        routed=traffic.routed,
        lost=traffic.lost,
        lost_by=traffic.lost_by,
        last_losses=losses,
        unrouted=traffic.unrouted,
        no_route=traffic.no_route,
        forbidden=traffic.forbidden,
        dead_letters=traffic.dead_letters,
        orphans=traffic.orphans,
        cancels=traffic.cancels,
        cancels_lost=traffic.cancels_lost,
        credits_lost=traffic.credits_lost,
        redelivered=traffic.redelivered,
        violations=traffic.violations,
        deaths=deaths[0],
        last_deaths=deaths[1],
        backlogs=tuple(backlogs),
        backlogs_failed=traffic.backlogs_failed,
        mailboxes_failed=traffic.mailboxes_failed,
        retained=traffic.retained,
        retained_bytes=traffic.retained_bytes,
        evicted=traffic.evicted,
        pools=tuple(pools),
        endpoints=tuple(_endpoint(e, processes.get(e.pid)) for e in endpoints),
    )


def _since(now: Losses, before: Losses | None) -> Losses:
    """What was lost between two looks."""
    earlier = before or Losses()
    return Losses(**{f: getattr(now, f) - getattr(earlier, f) for f in Losses.__struct_fields__})


def _oldest(info: EndpointInfo) -> float | None:
    ages = (info.oldest, info.oldest_unforwarded)
    return max((age for age in ages if age is not None), default=None)


def _endpoint(info: EndpointInfo, process: Process | None) -> EndpointHealth:
    return EndpointHealth(
        name=info.name,
        state=info.condition,
        pid=info.pid,
        cpu=process.cpu if process else None,
        memory=process.memory if process else None,
        incoming=info.incoming.depth + info.incoming_replies.depth + info.incoming_urgent.depth,
        outgoing=info.outgoing.depth + info.outgoing_replies.depth,
        incoming_high=info.incoming.high,
        outgoing_high=info.outgoing.high,
        untouched=info.untouched,
        oldest=_oldest(info),
        in_hand=info.in_hand,
        sent=info.sent.total,
        received=info.received.total,
        lost=info.lost,
        lost_by=info.lost_by,
        redelivered=info.redelivered,
        last_progress=info.last_progress,
    )
