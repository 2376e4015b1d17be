"""``shmbus describe``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import click
from msgspec.structs import asdict
from shmbus_console.options import bus_option, complete_endpoint, json_option
from shmbus_console.output import print_json
from shmbus_console.pools import held_by
from shmbus_console.schemas import definitions, signature
from shmbus_console.text import columns, duration, one_line

from shmbus import Grant, errors, observe
from shmbus.options import sized
from shmbus.views import Backlog, EndpointInfo, Look, MethodInfo, Ring, SiteInfo

from .facts import ago, deaths, facts_of, fields, lost, ring_limits, when
from .sites import elsewhere
from .tables import below

_ROLES = {"match": "is told of receivers of"}


@click.command(short_help="Show all facts about a bus or an endpoint.")
@click.argument("endpoint", required=False, shell_complete=complete_endpoint)
@bus_option
@json_option
def describe(endpoint: str | None, bus: str | None, as_json: bool) -> None:
    """Show all facts about a bus, or about one ENDPOINT on it, or on another site: NAME@SITE."""
    with observe(bus) as view:
        look = view.look(untaken=True)
    if endpoint is None:
        if as_json:
            found = {"endpoints": list(map(fields, look.endpoints))}
            deaths = {"deaths": look.health.deaths, "last_deaths": look.health.last_deaths}
            backlogs = {"backlogs": look.backlogs, "pools": look.pools}
            losses = {"last_losses": look.health.last_losses, "sites": look.sites}
            print_json({**fields(look.info), **found, **backlogs, **losses, **deaths})
        else:
            click.echo("\n".join(_describe_bus(look)))
        return
    info = next((e for e in look.endpoints if e.name == endpoint), None)
    if info is None:
        there = tuple(e.name for e in look.endpoints)
        raise errors.NoSuchEndpoint(bus=look.info.name, endpoint=endpoint, there=there)
    if as_json:
        print_json(fields(info))
    elif info.site is not None:
        click.echo("\n".join(_describe_remote(info, look.sites)))
    else:
        click.echo("\n".join(_describe_endpoint(info, look.backlogs)))


def _describe_bus(look: Look) -> list[str]:
    info, endpoints, health = look.info, look.endpoints, look.health
    facts = {
        "state": info.state,
        "dispatcher": f"process {info.pid}, {'alive' if info.alive else 'dead'}",
        "since": when(info.since),
        "dispatchers so far": info.serial,
        "package, layout": f"{info.package}, {info.layout}",
        "endpoints": f"{info.endpoints} of {info.slots}",
        "rings": f"{sized(info.in_bytes)} in, {sized(info.out_bytes)} out, "
        f"{sized(info.reply_bytes)} each for replies; {ring_limits(info)}",
        "prefetch, backlogs": f"{info.prefetch} messages, {sized(info.backlog_bytes)} each",
        "kept": f"{info.retained} values, {info.history} of a type at most; "
        f"{sized(info.retained_bytes)} of {sized(info.retain_bytes)}; {info.evicted} evicted",
        "pools": f"{sized(info.pool_bytes)} each at most; {sized(info.pools_granted)} of "
        f"{sized(info.pool_total_bytes)} granted; {info.pools_left} of endpoints that have gone",
        "last heartbeat": ago(info.heartbeat_age),
        "control plane ran": ago(info.control_age),
        "deaths": deaths(health),
    }
    lines = [info.name, *facts_of(facts)]
    rows = [
        [i.pattern, i.role, i.group or "-", i.overflow if i.role == "subscribe" else "-", e.name]
        for e in endpoints
        for i in e.interests
    ]
    if rows:
        heads = ["PATTERN", "ROLE", "GROUP", "OVERFLOW", "ENDPOINT"]
        lines += ["", *columns(heads, sorted(rows), "  ")]
    methods = [i.method for e in endpoints for i in e.interests if i.method is not None]
    if methods:
        lines += ["", "  METHODS", *_methods(methods)]
    lines += elsewhere(look.sites, endpoints)
    return lines + below(health.backlogs, health.pools, health.last_losses, health.last_deaths)


def _describe_remote(e: EndpointInfo, sites: Sequence[SiteInfo]) -> list[str]:
    """All that is known of an endpoint of another site."""
    facts = {
        "site": e.site,
        "process": f"{e.pid} on {one_line(e.host) or 'another machine'}",
        **({"known since": when(e.since)} if e.since else {}),
    }
    for s in sites:
        if s.name == e.site:
            trip = "" if s.round_trip is None else f", {duration(s.round_trip)} there and back"
            facts[f"over {s.link}"] = f"{s.state}{trip}, space {s.space}"
    return [e.name, *facts_of(facts), *_interests(e)]


def _describe_endpoint(e: EndpointInfo, backlogs: Sequence[Backlog]) -> list[str]:
    counts = [f"{n} {kind}" for kind, n in asdict(e.sent).items() if n]
    received = [f"{n} {kind}" for kind, n in asdict(e.received).items() if n]
    hand = f", without a break for {duration(e.in_hand_seconds)}" if e.in_hand else ""
    facts: dict[str, Any] = {
        "state": f"{e.state}, {e.condition}" + (f" ({e.reason})" if e.reason else ""),
        "process": e.pid,
        "slot, generation": f"{e.slot}, {e.generation}",
        "since": when(e.since),
        "last took a message": when(e.last_progress),
        "threads that receive": f"{e.receivers}{', and an event loop' if e.looped else ''}",
        "prefetch": f"{e.prefetch} messages",
        "incoming": _ring(e.incoming),
        "incoming replies": _ring(e.incoming_replies),
        "incoming urgent": _ring(e.incoming_urgent),
        "outgoing": _ring(e.outgoing),
        "outgoing replies": _ring(e.outgoing_replies),
        "waiting": _waiting(e.untouched, e.oldest),
        **{
            f"in the backlog of {b.what}": _waiting(b.waiting, b.oldest)
            for b in backlogs
            if b.waiting and e.name in b.takers
        },
        **{
            f"in the mailbox of {box.pattern}": f"{box.waiting} of {box.came}, "
            f"{box.received} taken, {box.lost} written over"
            for box in e.mailboxes
        },
        **_large(e),
        "in hand": f"{e.in_hand}{hand}",
        **({"overdue": _overdue(e)} if e.overdue else {}),
        "held for handing on": e.held,
        "not yet forwarded": _waiting(e.unforwarded, e.oldest_unforwarded),
        "requests under way": f"{e.pending} of {e.pending_limit}",
        **({"replies in parts": e.streaming} if e.streaming else {}),
        "sent": ", ".join(counts) or "nothing",
        "received": ", ".join(received) or "nothing",
        "lost": lost(e.lost, e.lost_by),
        "redelivered": e.redelivered,
        **({} if e.grant is None else _grant(e, e.grant)),
    }
    for name in (
        "undeliverable",
        "unrouted",
        "orphans",
        "expired",
        "withdrawn",
        "handler_errors",
        "decode_errors",
        "timeouts",
        "overruns",
        "let_go",
        "nacked",
        "note",
    ):
        if value := getattr(e, name):
            facts[name.replace("_", " ")] = value
    return [e.name, *facts_of(facts), *_interests(e)]


def _interests(e: EndpointInfo) -> list[str]:
    """What it wants and offers, a line each."""
    lines = []
    for i in e.interests:
        if i.method is not None:
            continue
        group = f", group {i.group}" if i.group else ""
        if i.key:
            group += f", key {i.key}"
        losing = f", {i.losing}" if i.losing else ""
        late = f", {i.history} of what was kept first" if i.history else ""
        lines.append(f"  {_ROLES.get(i.role, f'{i.role}s')} {i.pattern}{group}{losing}{late}")
    methods = [i.method for i in e.interests if i.method is not None]
    if methods:
        lines += ["  offers", *_methods(methods)]
    return lines


def _methods(methods: Iterable[MethodInfo]) -> list[str]:
    """What they take and return, and what the names in that stand for."""
    lines = []
    ordered = sorted(methods, key=lambda one: (one.service, one.type, signature(one)))
    for _, alike in groupby(ordered, lambda one: one.service):
        named: dict[str, str] = {}
        for one in alike:
            about = f"  {one.summary}" if one.summary else ""
            lines.append(f"    {signature(one)}{about}")
            named |= definitions(one)
        lines += [f"      {name}: {text}" for name, text in sorted(named.items())]
    return [one_line(line) for line in dict.fromkeys(lines)]


def _large(e: EndpointInfo) -> dict[str, str]:
    """What it has and holds of what is too large for rings."""
    facts = {}
    if (pool := e.pool) is not None:
        now = ", waits for space now" if pool.waiting else ""
        held = f"; held by {who}" if (who := held_by(pool)) else ""
        facts["pool"] = (
            f"{sized(pool.in_use)} in use, {sized(pool.reserved)} taken of {sized(pool.limit)}; "
            f"waited for {pool.waits} times{now}{held}"
        )
    if e.holds or e.copied:
        holds = ", ".join(map(str, e.holds)) or "nothing"
        facts["holds of others"] = f"{holds}; {e.loans} payloads at most, {e.copied} copied"
    return facts


def _waiting(count: int, oldest: float | None) -> str:
    return str(count) if oldest is None else f"{count}, the oldest for {duration(oldest)}"


def _grant(e: EndpointInfo, grant: Grant) -> dict[str, str]:
    """What it may do, and what it tried beyond that."""
    rights = {right: " ".join(patterns) or "nothing" for right, patterns in asdict(grant).items()}
    last = f", last: {e.last_forbidden}" if e.last_forbidden else ""
    return {f"may {right}": what for right, what in rights.items()} | {
        "forbidden": f"{e.forbidden}{last}"
    }


def _overdue(e: EndpointInfo) -> str:
    return ", ".join(
        f"{one.type} for {duration(one.seconds)} of {one.limit:g} s" for one in e.overdue
    )


def _ring(ring: Ring) -> str:
    high = f", at most {sized(ring.high)}" if ring.high else ""
    return f"{sized(ring.depth)} of {sized(ring.capacity)}{high}"
