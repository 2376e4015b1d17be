"""What is wrong with a bus, and what is late on it: each in one sentence, with what to do.

A counter is compared with itself a look before, never with another: those are not read at one
moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .facts import Backlog, BusInfo, EndpointInfo, Losses, PastDeath, Process

HEARTBEAT_LIMIT = 1.0
"""Seconds without a heartbeat after which the forwarding plane counts as hanging."""
ROUTING_LIMIT = 1.0
"""Seconds that routing may take for 99 of 100 messages."""
DEATHS_LIMIT = 3
"""Deaths within a minute that are worth a look."""
_MINUTE = 60.0

_LARGER = "give it a larger Settings(in_bytes=...)"


def faults(
    info: BusInfo,
    endpoints: Sequence[EndpointInfo],
    lost: Sequence[Losses],
    *,
    host: Process | None = None,
    names_missing: bool = False,
) -> list[str]:
    """What is wrong: messages are lost, or do not get on. ``lost``: what each endpoint has lost
    since the look before; ``host``: the dispatcher's process."""
    found = list(_of_bus(info, bool(endpoints), host))
    if names_missing:
        found.append(
            "somebody removed its names from /dev/shm: those attached go on, no other can "
            "attach; restart the bus, and keep a cleaner or logind (RemoveIPC=no) from /dev/shm"
        )
    for e, since in zip(endpoints, lost, strict=True):
        found += [*_of_endpoint(e), *_of_losses(e, since)]
    return found


def warnings(
    info: BusInfo,
    endpoints: Sequence[EndpointInfo],
    lost: Sequence[Losses],
    deaths: Sequence[PastDeath],
    *,
    routing: tuple[float, float],
    late: float,
    now: float,
) -> list[str]:
    """What is late, or is not as it should be, while messages get on. ``deaths``: the last ones,
    latest first; ``routing``: the seconds that it took since the look before, at p99 and at most;
    ``late``: those for which a message may wait; ``now``: seconds since the epoch."""
    found = [
        _too_large(e, e.lost_by.too_large, "so far")
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


def faults_of_backlogs(
    backlogs: Sequence[Backlog], lost: Sequence[Losses], *, failed: int, late: float
) -> list[str]:
    """What keeps messages from waiting there. ``lost``: what each has lost since the look before;
    ``failed``: how many could not be made since then; ``late``: a full one whose first message has
    waited longer does not get on."""
    found = []
    for b, since in zip(backlogs, lost, strict=True):
        if since.unchosen or (b.full and (b.oldest or 0.0) > late):
            gone = f", {since.unchosen} lost since the look before" if since.unchosen else ""
            found.append(_full(b, gone))
    if failed > 0:
        found.append(
            f"{failed} backlogs could not be made or adopted since the look before, so work waits "
            "behind the busy; free /dev/shm (shmbus doctor), or lower Settings(backlog_bytes=...)"
        )
    return found


def _full(b: Backlog, gone: str) -> str:
    return (
        f"the backlog of {b.what} is full, its senders wait ({b.waiting} messages{gone}); "
        f"start more workers beside {_takers(b)}, or serve the bus with larger "
        "Settings(backlog_bytes=...)"
    )


def late_in_backlogs(backlogs: Sequence[Backlog], lost: Sequence[Losses], late: float) -> list[str]:
    """Where a message has waited too long for somebody who is free, and what is full but gets
    on."""
    full = [
        _full(b, "")
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


def _of_endpoint(e: EndpointInfo) -> Iterator[str]:
    who, age = _who(e), "" if e.oldest is None else f" (the oldest for {e.oldest:.1f} s)"
    match e.condition:
        case "dead":
            yield f"{who} is dead{f' ({e.reason})' if e.reason else ''}; restart it"
        case "stalled" if e.receivers == 0:
            yield (
                f"{who} is stalled: {e.untouched} messages wait{age}, no thread runs its handlers; "
                "call run(), start() or receive()"
            )
        case "stalled":
            yield (
                f"{who} is stalled: {e.untouched} messages wait{age} and it takes none; "
                "is it stopped, or blocked?"
            )
        case "slow":
            yield (
                f"{who} is slow: its ring stayed full and messages were lost there; give it "
                "more threads or members, or a larger in_bytes"
            )


def _of_losses(e: EndpointInfo, since: Losses) -> Iterator[str]:
    """What it has lost since the look before, and did not choose to lose."""
    if since.too_large:
        yield _too_large(e, since.too_large, "since the look before")
    if since.slow and e.condition != "slow":  # else that says so
        yield (
            f"{_who(e)} lost messages because its ring was full, {since.slow} since the look "
            f"before; give it more threads or members, or {_LARGER.removeprefix('give it ')}"
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
        f"{limit} bytes each; send less, or {_LARGER}"
    )


def _overdue(e: EndpointInfo) -> str:
    first, more = e.overdue[0], len(e.overdue) - 1
    return (
        f"{_who(e)} is overdue: its handler of {first.type!r} has run for {first.seconds:.1f} s, "
        f"its limit is {first.limit:g} s{f' ({more} more)' if more else ''}; see where it hangs "
        f"(py-spy dump --pid {e.pid}), shorten it, or give it a larger handle(limit=...)"
    )


def _waiting(endpoints: Sequence[EndpointInfo], late: float) -> Iterator[str]:
    """What has waited too long: at a receiver, and at the front of what a sender has sent."""
    full = [e for e in endpoints if e.condition in ("stalled", "slow", "full")]
    for e in endpoints:
        if (e.oldest or 0.0) > late and not e.lossy and e.condition not in ("dead", "stalled"):
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
