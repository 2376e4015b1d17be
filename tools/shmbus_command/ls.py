"""``shmbus ls``."""

from __future__ import annotations

import time
from typing import NamedTuple

import click
from shmbus_console.options import bus_argument, json_option
from shmbus_console.output import print_json
from shmbus_console.text import columns, duration

from shmbus import BusError, BusView, buses, observe
from shmbus.options import sized
from shmbus.views import Backlog, BusInfo, EndpointInfo, PastLoss, Pool, SiteInfo

from .facts import fields, trouble
from .sites import elsewhere, here
from .tables import below


class _Seen(NamedTuple):
    """What is on a bus."""

    endpoints: list[EndpointInfo]
    backlogs: list[Backlog]
    pools: list[Pool]
    losses: tuple[PastLoss, ...]
    sites: list[SiteInfo]


@click.command(short_help="List the buses of this user, and the endpoints on them.")
@bus_argument
@json_option
def ls(bus: str | None, as_json: bool) -> None:
    """List the buses of this user and the endpoints on them, or those of BUS alone; endpoints in
    trouble first. Where links join a bus to others, also these sites and the endpoints there."""
    if bus is not None:
        with observe(bus) as view:
            found = [(view.info(), _seen(view))]
    else:
        found = [(info, on) for info in buses() if (on := _on(info)) is not None]
    if as_json:
        print_json(
            [
                {
                    **fields(info),
                    "endpoints": list(map(fields, on.endpoints)),
                    "backlogs": on.backlogs,
                    "pools": on.pools,
                    "last_losses": on.losses,
                    "sites": on.sites,
                }
                for info, on in found
            ]
        )
        return
    if not found:
        click.echo("no bus runs on this machine; start one: shmbus serve NAME", err=True)
    for info, on in found:
        click.echo(_headline(info))
        if there := here(on.endpoints):
            worst_first = sorted(there, key=lambda e: trouble(e.condition))
            click.echo("\n".join(columns(_HEADS, list(map(_row, worst_first)), "  ")))
        for line in elsewhere(on.sites, on.endpoints):
            click.echo(line)
        for line in below(on.backlogs, on.pools, on.losses):
            click.echo(line)


def _seen(view: BusView) -> _Seen:
    pools, losses = view.pools(untaken=True), view.losses()
    return _Seen(view.endpoints(), view.backlogs(), pools, losses, view.sites())


def _on(info: BusInfo) -> _Seen | None:
    """What is on a bus that was found; None where it has ended meanwhile."""
    if info.state == "unreadable":
        return _Seen([], [], [], (), [])
    try:
        with observe(info.name) as view:
            return _seen(view)
    except BusError:
        return None


def _headline(info: BusInfo) -> str:
    if info.state == "unreadable":
        return f"{info.name}  {info.note}"
    up = duration(time.time() - info.since) if info.since is not None else "-"
    state = info.state if info.alive or info.state != "serving" else "dead"
    return (
        f"{info.name}  {state}  process {info.pid}  since {up}  "
        f"{info.endpoints} of {info.slots} endpoints  payloads up to {sized(info.payload_limit)}"
    )


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
        " ".join(e.patterns) + (f" ({e.forbidden} forbidden)" if e.forbidden else ""),
    ]
