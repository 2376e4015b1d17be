"""What is wrong with a bus, and what is late on it: each in one sentence, with what to do.

A counter is compared with itself a look before, never with another: those are not read at one
moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from shmbus.settings import sized

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

HEARTBEAT_LIMIT = 1.0
"""Seconds without a heartbeat after which the forwarding plane counts as hanging."""
ROUTING_LIMIT = 1.0
"""Seconds that routing may take for 99 of 100 messages."""
DEATHS_LIMIT = 3
"""Deaths within a minute that are worth a look."""
RECENT = 300.0
"""Seconds for which a loss that nobody chose is told of."""
_MINUTE = 60.0

Known = Mapping[tuple[int, int, str], PastLoss]
"""What was lost last, by slot, generation and reason."""

_LARGER = "a larger Settings(in_bytes=...)"


def faults(
    info: BusInfo,
    endpoints: Sequence[EndpointInfo],
    lost: Sequence[Losses],
    *,
    known: Known,
    now: float,
    host: Process | None = None,
    names_missing: bool = False,
) -> list[str]:
    """What is wrong: messages are lost, or do not get on. ``lost``: what each endpoint has lost
    since the look before; ``host``: the dispatcher's process; ``now``: seconds since the epoch."""
    found = list(_of_bus(info, bool(endpoints), host))
    if names_missing:
        found.append(
            "somebody removed its names from /dev/shm: those attached go on, no other can "
            "attach; restart the bus, and keep a cleaner or logind (RemoveIPC=no) from /dev/shm"
        )
    for e, since in zip(endpoints, lost, strict=True):
        found += [*_of_endpoint(e, known, now), *_of_losses(e, since, known, now)]
    return found


def warnings(
    info: BusInfo,
    endpoints: Sequence[EndpointInfo],
    lost: Sequence[Losses],
    deaths: Sequence[PastDeath],
    *,
    known: Known,
    routing: tuple[float, float],
    late: float,
    now: float,
) -> list[str]:
    """What is late, or is not as it should be, while messages get on. ``deaths``: the last ones,
    latest first; ``routing``: the seconds that it took since the look before, at p99 and at most;
    ``late``: those for which a message may wait; ``now``: seconds since the epoch."""
    found = [
        _too_large(e, e.lost_by.too_large, "so far" + _last(_of(known, e, "too_large"), now))
        for e, since in zip(endpoints, lost, strict=True)
        if e.lost_by.too_large and not since.too_large
    ]
    found += [_overdue(e) for e in endpoints if e.overdue]
    if info.alive:
        found += _waiting(endpoints, late)
        if routing[0] > ROUTING_LIMIT:
            found.append(
                f"routing took up to {routing[0]:.1f} s for 99 of 100 messages since the look "
                f"before, {routing[1]:.1f} s at most; see whose ring is full, and how busy the "
                "machine is"
            )
    recent = [death for death in deaths if now - death.at < _MINUTE]
    if len(recent) >= DEATHS_LIMIT:
        names = ", ".join(dict.fromkeys(f"{d.name} ({d.reason})" for d in recent))
        found.append(
            f"{len(recent)} endpoints died within the last minute: {names}; see their logs"
        )
    return found


def past_losses(
    losses: Sequence[PastLoss],
    endpoints: Sequence[EndpointInfo],
    backlogs: Sequence[Backlog],
    lost: Sequence[tuple[int, int, Losses]],
    now: float,
) -> list[str]:
    """What was lost lately and nobody had chosen so, where nothing else tells of it: before the
    look before, or at one who has gone. ``lost``: what each slot and generation has lost since
    that look."""
    told = {
        (slot, generation, reason)
        for slot, generation, since in lost
        for reason in Losses.__struct_fields__
        if getattr(since, reason)
    }
    told |= {(e.slot, e.generation, "too_large") for e in endpoints}  # for as long as it is there
    told |= {(e.slot, e.generation, "slow") for e in endpoints if e.condition == "slow"}
    told |= {(b.slot, b.generation, "slow") for b in backlogs if b.full}
    return [
        _past_loss(p, now)
        for p in losses
        if now - p.at < RECENT and (p.slot, p.generation, p.reason) not in told
    ]


def faults_of_backlogs(
    backlogs: Sequence[Backlog],
    lost: Sequence[Losses],
    *,
    known: Known,
    now: float,
    failed: int,
    late: float,
) -> list[str]:
    """What keeps messages from waiting there. ``lost``: what each has lost since the look before;
    ``failed``: how many could not be made since then; ``late``: a full one whose first message has
    waited longer does not get on."""
    found = []
    for b, since in zip(backlogs, lost, strict=True):
        if since.unchosen or (b.full and (b.oldest or 0.0) > late):
            found.append(_full(b, since.unchosen, _last(_of(known, b, "slow"), now)))
    if failed > 0:
        found.append(
            f"{failed} backlogs could not be made or adopted since the look before, so work waits "
            "behind the busy; free /dev/shm (shmbus doctor), or lower Settings(backlog_bytes=...)"
        )
    return found


def without_mailbox(failed: int) -> list[str]:
    """How many mailboxes could not be made since the look before."""
    if failed <= 0:
        return []
    return [
        "mailboxes could not be made since the look before, and the subscriptions that wanted "
        f"them failed: {failed}; end others that have one, or free /dev/shm (shmbus doctor)"
    ]


def full_pools(pools: Sequence[Pool], before: Mapping[tuple[int, int], int]) -> list[str]:
    """For which pools a sender has waited since the look before without a break, and who holds what
    of them. ``before``: for which one waited then, and which of its waits that was."""
    return [
        _full_pool(p) for p in pools if p.waiting and before.get((p.slot, p.generation)) == p.waits
    ]


def _full_pool(p: Pool) -> str:
    held = f", held by {', '.join(map(str, p.holders))}" if p.holders else ""
    lies = f", not taken by {', '.join(map(str, p.untaken))}" if p.untaken else ""
    lies += f", {sized(p.kept)} in values that are kept" if p.kept else ""
    what = (
        f"endpoint {p.endpoint} has waited for space in its pool since the look before: "
        f"{sized(p.in_use)} of {sized(p.limit)} are in use{held}{lies}"
    )
    if p.granted < p.asked:
        return (
            f"{what}, and the pools of the bus together may have no more; free what is held, or "
            "serve the bus with larger Settings(pool_total_bytes=...)"
        )
    return (
        f"{what}; let these take or look at less at a time, or give {p.endpoint} larger "
        "Settings(pool_bytes=...)"
    )


def refused(count: int, endpoints: Sequence[EndpointInfo]) -> list[str]:
    """How often somebody tried what a grant does not cover since the look before, and who has."""
    if count <= 0:
        return []
    who = ", ".join(f"{e.name} (last: {e.last_forbidden})" for e in endpoints if e.forbidden)
    return [
        f"what a grant does not cover was tried {count} times since the look before, by "
        f"{who or 'endpoints that have ended'}; let the host grant it (serve(grants=...)), or end "
        "what tries it"
    ]


def sites_away(sites: Sequence[SiteInfo]) -> list[str]:
    """The other sites to which nothing crosses though they have not ended in good order."""
    return [
        f"site {s.name} of space {s.space} is {s.state}, as {s.link} sees it: {s.reason}; see its "
        "link there, and the network between, with shmbus link --status on both sides"
        for s in sites
        if s.state in ("down", "refused")
    ]


def _full(b: Backlog, gone: int = 0, last: str = "") -> str:
    remedy = (
        f"start more workers beside {_takers(b)}, or serve the bus with larger "
        "Settings(backlog_bytes=...)"
    )
    if gone:
        return (
            f"the backlog of {b.what} was full, and messages for it were lost, {gone} since the "
            f"look before{last} ({b.waiting} wait there); {remedy}"
        )
    if b.lost_by.slow:
        return (
            f"the backlog of {b.what} is full ({b.waiting} messages wait): what comes is lost, "
            f"after block_timeout at the latest, {b.lost_by.slow} so far{last}; {remedy}"
        )
    return f"the backlog of {b.what} is full, its senders wait ({b.waiting} messages); {remedy}"


def late_in_backlogs(
    backlogs: Sequence[Backlog], lost: Sequence[Losses], *, known: Known, now: float, late: float
) -> list[str]:
    """Where a message has waited too long for somebody who is free, and what is full but gets
    on."""
    full = [
        _full(b, last=_last(_of(known, b, "slow"), now))
        for b, since in zip(backlogs, lost, strict=True)
        if b.full and not since.unchosen and (b.oldest or 0.0) <= late
    ]
    return full + [
        f"{b.waiting} messages wait in the backlog of {b.what}, the oldest for {b.oldest:.1f} s: "
        f"nobody who may take them is free ({_takers(b)}); start more workers, or see what those "
        "do"
        for b in backlogs
        if (b.oldest or 0.0) > late
    ]


def _takers(b: Backlog) -> str:
    more = f" and {len(b.takers) - 5} more" if len(b.takers) > 5 else ""
    return ", ".join(b.takers[:5]) + more or "none is attached"


def _who(e: EndpointInfo) -> str:
    return f"endpoint {e.name} (process {e.pid})"


def _of_bus(info: BusInfo, used: bool, host: Process | None) -> Iterator[str]:
    again = f"start it again: python -m shmbus {info.name}"
    if info.state in ("ended", "handover"):
        word = "has ended" if info.state == "ended" else "waits for its next dispatcher"
        yield f"bus {info.name} {word}; {again}"
    elif not info.alive:
        yield f"dispatcher {info.pid} is dead; {again}"
    elif host is not None and host.stopped:
        yield f"dispatcher {info.pid} is stopped; let it go on: kill -CONT {info.pid}"
    elif used and info.heartbeat_age is not None and info.heartbeat_age > HEARTBEAT_LIMIT:
        yield (
            f"dispatcher {info.pid} hangs: nothing forwarded for {info.heartbeat_age:.1f} s; "
            "see what blocks that process"
        )


def _of(known: Known, where: EndpointInfo | Backlog, reason: str) -> PastLoss | None:
    return known.get((where.slot, where.generation, reason))


def _last(loss: PastLoss | None, now: float) -> str:
    """When the last one was lost, and what it was."""
    if loss is None:
        return ""
    what = f" {loss.type!r} from {loss.source}" if loss.type else ""
    return f", the last{what} {max(now - loss.at, 0.0):.1f} s ago"


def _past_loss(p: PastLoss, now: float) -> str:
    who = f"endpoint {p.name} (process {p.pid})" if p.pid else f"the {p.name}"
    lost = f"{p.count} in all{_last(p, now)}"
    match p.reason:
        case "slow" if not p.pid:
            return (
                f"{who} was full, and messages for it were lost, {lost}; start more workers, or "
                "serve the bus with larger Settings(backlog_bytes=...)"
            )
        case "slow":
            return (
                f"{who} lost messages because its ring, or a sender's pool, was full, {lost}; give "
                f"it more threads or members, or {_LARGER}"
            )
        case "too_large":
            return (
                f"{who} lost events that are too large for its ring, {lost}: it takes at most "
                f"{p.limit} bytes of that type; send less, or give it {_LARGER}"
            )
        case "ended":
            return (
                f"{who} ended with messages that nobody else could have, {lost}; see what it "
                "died of, or let a queue group have them"
            )
        case _:
            return (
                f"{who} lost messages whose sender was quarantined, {lost}; see the dispatcher's "
                "log"
            )


def _of_endpoint(e: EndpointInfo, known: Known, now: float) -> Iterator[str]:
    who, age = _who(e), "" if e.oldest is None else f" (the oldest for {e.oldest:.1f} s)"
    match e.condition:
        case "dead":
            yield f"{who} is dead{f' ({e.reason})' if e.reason else ''}; restart it"
        case "stopped":
            yield (
                f"{who} is stopped: {e.untouched} messages wait{age}; let it go on: "
                f"kill -CONT {e.pid}"
            )
        case "stalled" if e.receivers == 0 and not e.looped:
            yield (
                f"{who} is stalled: {e.untouched} messages wait{age}, no thread runs its handlers; "
                "call run(), start() or receive()"
            )
        case "stalled":
            yield (
                f"{who} is stalled: {e.untouched} messages wait{age} and it takes none; "
                "see where it is blocked: py-spy dump --pid "
                f"{e.pid}"
            )
        case "slow":
            yield (
                f"{who} is slow: senders waited for it in vain, and messages were lost there, "
                f"{e.lost_by.slow} so far{_last(_of(known, e, 'slow'), now)}; give it more threads "
                "or members, or a larger in_bytes"
            )


def _of_losses(e: EndpointInfo, since: Losses, known: Known, now: float) -> Iterator[str]:
    """What it has lost since the look before, and did not choose to lose."""
    if since.too_large:
        when = "since the look before" + _last(_of(known, e, "too_large"), now)
        yield _too_large(e, since.too_large, when)
    if since.slow and e.condition != "slow":  # else that says so
        yield (
            f"{_who(e)} lost messages because its ring, or a sender's pool, was full, "
            f"{since.slow} since the look before{_last(_of(known, e, 'slow'), now)}; give it more "
            f"threads or members, or {_LARGER}"
        )
    if since.abandoned:
        yield (
            f"{_who(e)} lost messages whose sender was quarantined, {since.abandoned} since the "
            "look before; see the dispatcher's log"
        )


def _too_large(e: EndpointInfo, count: int, when: str) -> str:
    limit = e.incoming.capacity // 4
    return (
        f"{_who(e)} lost events that are too large for its ring, {count} {when}: it takes at most "
        f"{limit} bytes each; send less, or give it {_LARGER}"
    )


def _overdue(e: EndpointInfo) -> str:
    first, more = e.overdue[0], len(e.overdue) - 1
    what, call = ("callback", "subscribe") if first.kind == "event" else ("handler", "handle")
    return (
        f"{_who(e)} is overdue: its {what} of {first.type!r} has run for {first.seconds:.1f} s, "
        f"its limit is {first.limit:g} s{f' ({more} more)' if more else ''}; see where it hangs "
        f"(py-spy dump --pid {e.pid}), shorten it, or give it a larger {call}(limit=...)"
    )


def _waiting(endpoints: Sequence[EndpointInfo], late: float) -> Iterator[str]:
    """What has waited too long: at a receiver, and at the front of what a sender has sent."""
    full = [e for e in endpoints if e.condition in ("stopped", "stalled", "slow", "full")]
    for e in endpoints:
        told = e.condition in ("dead", "stopped", "stalled")
        if (e.oldest or 0.0) > late and not e.lossy and not told:
            yield (
                f"{_who(e)} is behind: its oldest message has waited {e.oldest:.1f} s (waiting: "
                f"{e.untouched}, in hand: {e.in_hand}); give it more threads or members, or "
                "shorten its handlers"
            )
        if (e.oldest_unforwarded or 0.0) > late:
            whom = ", ".join(one.name for one in full) or "none is full any more"
            yield (
                f"what {_who(e)} has sent waits to be forwarded, the oldest for "
                f"{e.oldest_unforwarded:.1f} s; see which receivers are full: {whom}"
            )
