"""How the links of a bus are: a table of sites for each, and a line."""

from __future__ import annotations

import click
from shmbus_console.run import Failure
from shmbus_console.text import columns, duration, one_line

from shmbus import Endpoint
from shmbus.errors import NoRoute, NoSuchSite
from shmbus.links import LinkStatus, PeerStatus, ask_ping, ask_status
from shmbus.options import sized

_HEADS = ["SITE", "STATE", "ROUND TRIP", "CLOCK", "SENT", "RECEIVED", "LOST THERE", "LOST HERE"]
_HEADS += ["BUFFERED", "UNDER WAY", "UNCONFIRMED", "ENDPOINTS"]
_COLOURS = {"up": "green", "joining": "yellow", "refused": "red"}


def asked(endpoint: Endpoint) -> list[LinkStatus]:
    """How the links of its bus say that they are. Ends the command where there is none."""
    try:
        found = ask_status(endpoint)
    except NoRoute:
        raise _no_link(endpoint) from None
    if not found:
        bus = endpoint.bus.name
        raise Failure(f"no link of bus {bus!r} has answered in time", bus=bus)
    return found


def pinged(endpoint: Endpoint, site: str, timeout: float) -> float | None:
    """Seconds to a site and back; None: no answer came. Raises `NoSuchSite`. Ends the command where
    there is no link."""
    try:
        found = ask_ping(endpoint, site, timeout)
    except NoRoute:
        raise _no_link(endpoint) from None
    times = [one.seconds for one in found if one.seconds is not None]
    if not times and found:
        there = tuple(sorted({name for one in found for name in one.there}))
        raise NoSuchSite(space=found[0].space, site=site, there=there)
    return min(times, default=None)


def _no_link(endpoint: Endpoint) -> Failure:
    bus = endpoint.bus.name
    told = f"nothing links bus {bus!r} to others: start a link with shmbus link {bus}"
    return Failure(told, bus=bus)


def is_well(status: LinkStatus) -> bool:
    """Whether it has reached another site, and refuses none."""
    return any(peer.up for peer in status.peers) and not status.refused


def summary(status: LinkStatus) -> str:
    """One line about a link that has begun."""
    listening = f", listening at {' '.join(status.listening)}" if status.listening else ""
    return f"bus {status.bus} is site {status.site} of space {status.space}{listening}"


def table(status: LinkStatus) -> list[str]:
    """Lines for people."""
    states = ["up" if peer.up else "joining" for peer in status.peers]
    rows = [_row(peer, state) for peer, state in zip(status.peers, states, strict=True)]
    for site, version in sorted(status.refused.items()):
        states.append("refused")
        why = f"speaks version {version} of the protocol"
        rows.append([one_line(site), "refused", one_line(why), *[""] * (len(_HEADS) - 3)])
    lines = [summary(status)]
    if rows:
        head, *others = columns(_HEADS, rows, "  ")
        lines += [head, *map(_coloured, others, states)]
    else:
        lines.append("  no other site is up")
    for address, why in sorted(status.unreached.items()):
        lines.append(f"  {one_line(address)} is not reached: {one_line(why)}")
    if garbage := _garbage(status):
        lines.append(f"  {garbage}")
    return lines


def _row(peer: PeerStatus, state: str) -> list[str]:
    return [
        one_line(peer.site),
        state,
        duration(peer.round_trip),
        _clock(peer),
        str(peer.sent),
        str(peer.received),
        str(peer.lost_there),
        str(peer.lost_here),
        sized(peer.buffered),
        sized(peer.under_way),
        str(peer.unconfirmed),
        str(peer.endpoints),
    ]


def _clock(peer: PeerStatus) -> str:
    """By how much it is ahead, and how well that is known."""
    if peer.ahead is None or peer.ahead_error is None:
        return "-"
    sign = "-" if peer.ahead < 0 else "+"
    return f"{sign}{duration(abs(peer.ahead))} ±{duration(peer.ahead_error)}"


def _garbage(status: LinkStatus) -> str:
    """What came that no link sends, or was late."""
    found = [
        (status.garbage, "frames that no link sends"),
        (status.stale, "frames of links that have ended"),
        (status.overrun, "frames that came faster than anybody may send"),
    ]
    told = ", ".join(f"{count} {what}" for count, what in found if count)
    return f"dropped: {told}" if told else ""


def _coloured(line: str, state: str) -> str:
    before, found, after = line.partition(f" {state}")
    return f"{before}{click.style(found, fg=_COLOURS[state])}{after}"
