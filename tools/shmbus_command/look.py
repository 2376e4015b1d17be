"""Commands that observe buses, read-only: ls, describe, route, health, top."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click
import msgspec
from shmbus_console.options import (
    bus_argument,
    bus_option,
    complete_endpoint,
    complete_type,
    json_option,
)
from shmbus_console.output import print_json
from shmbus_console.text import columns, duration, size

from shmbus import BusError, BusView, buses, observe
from shmbus.views import Backlog, BusInfo, EndpointInfo, Health, Losses, PastDeath, PastLoss, Ring

_Seen = tuple[list[EndpointInfo], list[Backlog], tuple[PastLoss, ...]]


@click.command(short_help="List the buses of this user, and the endpoints on them.")
@bus_argument
@json_option
def ls(bus: str | None, as_json: bool) -> None:
    """List the buses of this user and the endpoints on them, or those of BUS alone."""
    if bus is not None:
        with observe(bus) as view:
            found = [(view.info(), *_seen(view))]
    else:
        found = [(info, *on) for info in buses() if (on := _on(info)) is not None]
    if as_json:
        print_json(
            [
                {
                    **_fields(info),
                    "endpoints": list(map(_fields, of)),
                    "backlogs": backlogs,
                    "last_losses": losses,
                }
                for info, of, backlogs, losses in found
            ]
        )
        return
    if not found:
        click.echo("no bus runs on this machine; start one: shmbus serve NAME", err=True)
    for info, endpoints, backlogs, losses in found:
        click.echo(_headline(info))
        if endpoints:
            click.echo("\n".join(columns(_HEADS, list(map(_row, endpoints)), "  ")))
        for lines in (_backlogs(backlogs), _last_losses(losses)):
            if lines:
                click.echo("\n".join(["", *lines]))


def _seen(view: BusView) -> _Seen:
    return view.endpoints(), view.backlogs(), view.losses()


def _on(info: BusInfo) -> _Seen | None:
    """What is on a bus that was found; None where it has ended meanwhile."""
    if info.state == "unreadable":
        return [], [], ()
    try:
        with observe(info.name) as view:
            return _seen(view)
    except BusError:
        return None


def _fields(struct: Any) -> dict[str, Any]:
    """A struct as a document, with its computed condition."""
    document: dict[str, Any] = msgspec.to_builtins(struct)
    if isinstance(struct, EndpointInfo):
        document["condition"] = struct.condition
    return document


def _headline(info: BusInfo) -> str:
    if info.state == "unreadable":
        return f"{info.name}  {info.note}"
    up = duration(time.time() - info.since) if info.since is not None else "-"
    state = info.state if info.alive or info.state != "serving" else "dead"
    return (
        f"{info.name}  {state}  process {info.pid}  since {up}  "
        f"{info.endpoints} of {info.slots} endpoints  {_limits(info)}"
    )


def _limits(info: BusInfo) -> str:
    """What an endpoint can send and get, unless it has settings of its own."""
    return f"messages up to {size(info.record_limit)}, replies up to {size(info.reply_limit)}"


_HEADS = ["NAME", "STATE", "PID", "IN", "OUT", "WAITING", "OLDEST", "IN HAND"]
_HEADS += ["SENT", "RECEIVED", "LOST", "REDELIVERED", "PATTERNS"]


def _row(e: EndpointInfo) -> list[str]:
    return [
        e.name,
        e.condition,
        str(e.pid),
        f"{e.incoming.fill:.0%}",
        f"{e.outgoing.fill:.0%}",
        str(e.untouched),
        duration(e.oldest),
        str(e.in_hand),
        str(e.sent.total),
        str(e.received.total),
        str(e.lost) + (f" ({e.lost_by.too_large} too large)" if e.lost_by.too_large else ""),
        str(e.redelivered),
        " ".join(e.patterns),
    ]


def _backlogs(backlogs: Sequence[Backlog]) -> list[str]:
    """A table of those in which messages wait, or were lost."""
    heads = ["BACKLOG OF", "WAITING", "OLDEST", "FULL", "SIZE", "LOST", "FOR WHOM OF THESE IS FREE"]
    rows = [
        [
            b.what,
            str(b.waiting),
            duration(b.oldest),
            f"{b.ring.fill:.0%}",
            size(b.ring.capacity),
            str(b.lost),
            " ".join(b.takers) or "nobody is attached",
        ]
        for b in backlogs
        if b.waiting or b.lost
    ]
    return columns(heads, rows, "  ") if rows else []


@click.command(short_help="Show all facts about a bus or an endpoint.")
@click.argument("endpoint", required=False, shell_complete=complete_endpoint)
@bus_option
@json_option
def describe(endpoint: str | None, bus: str | None, as_json: bool) -> None:
    """Show all facts about a bus, or about one ENDPOINT on it."""
    with observe(bus) as view:
        look = view.look()
    if endpoint is None:
        if as_json:
            found = {"endpoints": list(map(_fields, look.endpoints))}
            deaths = {"deaths": look.health.deaths, "last_deaths": look.health.last_deaths}
            backlogs = {"backlogs": look.backlogs, "last_losses": look.health.last_losses}
            print_json({**_fields(look.info), **found, **backlogs, **deaths})
        else:
            click.echo("\n".join(_describe_bus(look.info, look.endpoints, look.health)))
        return
    info = next((e for e in look.endpoints if e.name == endpoint), None)
    if info is None:
        there = ", ".join(e.name for e in look.endpoints) or "none"
        raise click.ClickException(
            f"no endpoint {endpoint!r} on bus {look.info.name!r}; attached: {there}"
        )
    if as_json:
        print_json(_fields(info))
    else:
        click.echo("\n".join(_describe_endpoint(info, look.backlogs)))


def _describe_bus(info: BusInfo, endpoints: list[EndpointInfo], health: Health) -> list[str]:
    facts = {
        "state": info.state,
        "dispatcher": f"process {info.pid}, {'alive' if info.alive else 'dead'}",
        "since": _when(info.since),
        "dispatchers so far": info.serial,
        "package, layout": f"{info.package}, {info.layout}",
        "endpoints": f"{info.endpoints} of {info.slots}",
        "rings": f"{size(info.in_bytes)} in, {size(info.out_bytes)} out, {size(info.reply_bytes)} "
        f"each for replies; {_limits(info)}",
        "prefetch, backlogs": f"{info.prefetch} messages, {size(info.backlog_bytes)} each",
        "last heartbeat": _ago(info.heartbeat_age),
        "control plane ran": _ago(info.control_age),
        "deaths": _deaths(health),
    }
    lines = [info.name, *_facts(facts)]
    rows = [
        [i.pattern, i.role, i.group or "-", i.overflow if i.role == "subscribe" else "-", e.name]
        for e in endpoints
        for i in e.interests
    ]
    if rows:
        heads = ["PATTERN", "ROLE", "GROUP", "OVERFLOW", "ENDPOINT"]
        lines += ["", *columns(heads, sorted(rows), "  ")]
    if waiting := _backlogs(health.backlogs):
        lines += ["", *waiting]
    if gone := _last_losses(health.last_losses):
        lines += ["", *gone]
    if health.last_deaths:
        lines += ["", *_last_deaths(health.last_deaths)]
    return lines


def _last_losses(losses: Sequence[PastLoss]) -> list[str]:
    """A table of what was lost last and nobody had chosen so."""
    heads = ["LOST AT", "PID", "MESSAGES", "WHY", "LAST", "FROM", "WHEN"]
    rows = [
        [
            p.name,
            str(p.pid or "-"),
            str(p.count),
            _LOSSES.get(p.reason, p.reason),
            p.type or "-",
            p.source or "-",
            _when(p.at),
        ]
        for p in losses
    ]
    return columns(heads, rows, "  ") if rows else []


def _deaths(health: Health) -> str:
    return ", ".join(f"{n} {word}" for word, n in health.deaths.items()) or "none"


def _last_deaths(deaths: tuple[PastDeath, ...]) -> list[str]:
    """A table of the last endpoints that died."""
    heads = ["DIED", "PID", "HOW", "WHEN", "IN HAND", "UNTOUCHED", "REQUESTS"]
    rows = [
        [
            d.name,
            str(d.pid),
            d.reason,
            _when(d.at),
            str(d.in_hand),
            str(d.untouched),
            str(d.pending),
        ]
        for d in deaths
    ]
    return columns(heads, rows, "  ")


def _describe_endpoint(e: EndpointInfo, backlogs: Sequence[Backlog]) -> list[str]:
    counts = [f"{n} {kind}" for kind, n in msgspec.structs.asdict(e.sent).items() if n]
    received = [f"{n} {kind}" for kind, n in msgspec.structs.asdict(e.received).items() if n]
    hand = f", without a break for {duration(e.in_hand_seconds)}" if e.in_hand else ""
    facts: dict[str, Any] = {
        "state": f"{e.state}, {e.condition}" + (f" ({e.reason})" if e.reason else ""),
        "process": e.pid,
        "slot, generation": f"{e.slot}, {e.generation}",
        "since": _when(e.since),
        "last took a message": _when(e.last_progress),
        "threads that receive": e.receivers,
        "prefetch": f"{e.prefetch} messages",
        "incoming": _ring(e.incoming),
        "incoming replies": _ring(e.incoming_replies),
        "outgoing": _ring(e.outgoing),
        "outgoing replies": _ring(e.outgoing_replies),
        "waiting": _waiting(e.untouched, e.oldest),
        **{
            f"in the backlog of {b.what}": _waiting(b.waiting, b.oldest)
            for b in backlogs
            if b.waiting and e.name in b.takers
        },
        "in hand": f"{e.in_hand}{hand}",
        **({"overdue": _overdue(e)} if e.overdue else {}),
        "held for handing on": e.held,
        "not yet forwarded": _waiting(e.unforwarded, e.oldest_unforwarded),
        "requests under way": f"{e.pending} of {e.pending_limit}",
        "sent": ", ".join(counts) or "nothing",
        "received": ", ".join(received) or "nothing",
        "lost": _lost(e.lost, e.lost_by),
        "redelivered": e.redelivered,
    }
    for name in (
        "undeliverable",
        "unrouted",
        "orphans",
        "expired",
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
    lines = [e.name, *_facts(facts)]
    for i in e.interests:
        group = f", group {i.group}" if i.group else ""
        lossy = ", drops the newest" if i.overflow == "drop_newest" else ""
        lines.append(f"  {i.role}s {i.pattern}{group}{lossy}")
    return lines


def _waiting(count: int, oldest: float | None) -> str:
    return str(count) if oldest is None else f"{count}, the oldest for {duration(oldest)}"


def _overdue(e: EndpointInfo) -> str:
    return ", ".join(
        f"{one.type} for {duration(one.seconds)} of {one.limit:g} s" for one in e.overdue
    )


_LOSSES = {
    "dropped": "dropped as chosen",
    "slow": "while a ring was full",
    "too_large": "too large for a ring",
    "ended": "as the receiver ended",
    "abandoned": "as the sender was quarantined",
}


def _lost(count: int, by: Losses) -> str:
    """What was lost, and why."""
    reasons = msgspec.structs.asdict(by).items()
    why = ", ".join(f"{number} {_LOSSES[word]}" for word, number in reasons if number)
    return f"{count}: {why}" if why else str(count)


def _facts(facts: dict[str, Any]) -> list[str]:
    width = max(map(len, facts))
    return [f"  {name:{width}}  {value}" for name, value in facts.items()]


def _ring(ring: Ring) -> str:
    high = f", at most {size(ring.high)}" if ring.high else ""
    return f"{size(ring.depth)} of {size(ring.capacity)}{high}"


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{clock}, {duration(max(time.time() - seconds, 0.0))} ago"


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"{duration(seconds)} ago"


@click.command()
@click.argument("type", shell_complete=complete_type)
@bus_option
@json_option
def route(type: str, bus: str | None, as_json: bool) -> None:
    """Show which endpoints would get a message of TYPE now, and why.

    Exit code 1 if none would."""
    with observe(bus) as view:
        found = view.route(type)
    if as_json:
        print_json(found)
    elif found.receivers:
        rows = [
            [
                "yes" if r.chosen else "if free first" if r.waits else "no",
                r.endpoint,
                r.role,
                r.pattern,
                r.reason,
            ]
            for r in found.receivers
        ]
        click.echo("\n".join(columns(["GETS IT", "ENDPOINT", "ROLE", "PATTERN", "WHY"], rows)))
    if not found.receivers:
        if not as_json:
            click.echo(
                f"no endpoint on bus {view.name} subscribes to {type} or handles it", err=True
            )
        click.get_current_context().exit(1)


@click.command()
@bus_argument
@click.option(
    "--over",
    type=click.FloatRange(0.0, 3600.0),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="What rates and CPU are measured over.",
)
@click.option(
    "--late",
    type=click.FloatRange(0.0),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="For how long a message may wait before the bus counts as degraded.",
)
@json_option
def health(bus: str | None, over: float, late: float, as_json: bool) -> None:
    """Show whether a bus is healthy, degraded or unhealthy, and why. Exit code 1 if it is not
    healthy."""
    with observe(bus) as view:
        view.look()
        time.sleep(over)
        found = view.health(late=late)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(_health(found)))
    if not found.healthy:
        click.get_current_context().exit(1)


def _health(h: Health) -> list[str]:
    lines = [f"{h.bus}: {h.state}"]
    lines += [f"  ! {reason}" for reason in h.reasons]
    cpu = f", {h.cpu:.0f} % CPU, {size(h.memory or 0)}" if h.cpu is not None else ""
    facts = {
        "dispatcher": f"process {h.pid}, {h.bus_state}, up {duration(h.uptime)}{cpu}",
        "dispatchers so far": h.serial,
        "last heartbeat": _ago(h.heartbeat_age),
        "delivered": f"{h.routed:,}, now {h.rate:,.0f} a second",
        "routing latency": f"average {duration(h.latency.mean)}, p50 {duration(h.latency.p50)}, "
        f"p99 {duration(h.latency.p99)}, at most {duration(h.latency.max)}"
        if h.latency.count
        else "nothing routed yet",
        "oldest message": "none waits" if h.oldest is None else f"waits for {duration(h.oldest)}",
        "requests under way": h.pending,
        "lost": _lost(h.lost, h.lost_by),
        "redelivered": h.redelivered,
        "without route": f"{h.unrouted} events, {h.no_route} requests and commands",
        "dead letters": h.dead_letters,
        "deaths": _deaths(h),
    }
    lines += _facts(facts)
    if h.endpoints:
        heads = ["ENDPOINT", "STATE", "PID", "CPU", "MEMORY", "WAITING", "OLDEST"]
        heads += ["IN HAND", "SENT", "RECEIVED", "LOST"]
        rows = [
            [
                e.name,
                e.state,
                str(e.pid),
                "-" if e.cpu is None else f"{e.cpu:.0f} %",
                "-" if e.memory is None else size(e.memory),
                str(e.untouched),
                duration(e.oldest),
                str(e.in_hand),
                str(e.sent),
                str(e.received),
                str(e.lost),
            ]
            for e in h.endpoints
        ]
        lines += ["", *columns(heads, rows, "  ")]
    if waiting := _backlogs(h.backlogs):
        lines += ["", *waiting]
    if gone := _last_losses(h.last_losses[:5]):
        lines += ["", *gone]
    if h.last_deaths:
        lines += ["", *_last_deaths(h.last_deaths[:5])]
    return lines


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def top(arguments: tuple[str, ...]) -> None:
    """Watch a bus live: what shmtop shows."""
    from shmtop import command

    with command.shmtop.make_context("shmbus top", list(arguments)) as context:
        command.shmtop.invoke(context)
