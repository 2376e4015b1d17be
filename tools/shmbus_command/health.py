"""``shmbus health``."""

from __future__ import annotations

import time

import click
from shmbus_console.options import bus_argument, json_option, seconds_option
from shmbus_console.output import print_json
from shmbus_console.text import columns, duration

from shmbus import observe
from shmbus.options import sized
from shmbus.views import Health, Latency, SiteInfo

from .facts import ago, deaths, facts_of, fields, lost, trouble
from .sites import elsewhere
from .tables import below


@click.command()
@bus_argument
@seconds_option("--over", "500ms", most="1h", help="What rates, CPU and recent latency are of.")
@seconds_option(
    "--late",
    "5s",
    help="For how long a message may wait before the bus counts as degraded.",
)
@json_option
def health(bus: str | None, over: float, late: float, as_json: bool) -> None:
    """Show whether a bus is healthy, degraded or unhealthy, and why, and its endpoints, those in
    trouble first. Exit code 1 if it is not healthy."""
    with observe(bus) as view:
        view.look()
        time.sleep(over)
        look = view.look(late=late, untaken=True)
    found = look.health
    if as_json:
        print_json({**fields(found), "sites": look.sites})
    else:
        click.echo("\n".join(_health(found, over, look.sites)))
    if not found.healthy:
        click.get_current_context().exit(1)


def _health(h: Health, over: float, sites: list[SiteInfo]) -> list[str]:
    lines = [f"{h.bus}: {h.state}"]
    lines += [f"  ! {reason}" for reason in h.reasons]
    cpu = f", {h.cpu:.0f} % CPU, {sized(h.memory or 0)}" if h.cpu is not None else ""
    facts = {
        "dispatcher": f"process {h.pid}, {h.bus_state}, up {duration(h.uptime)}{cpu}",
        "dispatchers so far": h.serial,
        "last heartbeat": ago(h.heartbeat_age),
        "delivered": f"{h.routed:,}, now {h.rate:,.0f} a second",
        f"routing, last {duration(over)}": _latency(h.recent_latency),
        "routing, from the beginning": _latency(h.latency),
        "oldest message": "none waits" if h.oldest is None else f"waits for {duration(h.oldest)}",
        "requests under way": h.pending,
        "lost": lost(h.lost, h.lost_by),
        "redelivered": h.redelivered,
        "without route": f"{h.unrouted} events, {h.no_route} requests and commands",
        "dead letters": h.dead_letters,
        "forbidden by grants": h.forbidden,
        "withdrawn": f"servers were told of {h.cancels} requests",
        "deaths": deaths(h),
    }
    lines += facts_of(facts)
    if h.endpoints:
        heads = ["ENDPOINT", "STATE", "PID", "CPU", "MEMORY", "WAITING", "OLDEST"]
        heads += ["IN HAND", "SENT", "RECEIVED", "LOST"]
        rows = [
            [
                e.name,
                e.state,
                str(e.pid),
                "-" if e.cpu is None else f"{e.cpu:.0f} %",
                "-" if e.memory is None else sized(e.memory),
                str(e.untouched),
                duration(e.oldest),
                str(e.in_hand),
                str(e.sent),
                str(e.received),
                str(e.lost),
            ]
            for e in sorted(h.endpoints, key=lambda e: trouble(e.state))
        ]
        lines += ["", *columns(heads, rows, "  ")]
    lines += elsewhere(sites, ())
    return lines + below(h.backlogs, h.pools, h.last_losses[:5], h.last_deaths[:5])


def _latency(of: Latency) -> str:
    if not of.count:
        return "nothing"
    return (
        f"average {duration(of.mean)}, p50 {duration(of.p50)}, p99 {duration(of.p99)}, "
        f"at most {duration(of.max)}"
    )
