"""Other sites and the endpoints there in words, as several commands show them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shmbus_console.text import columns, duration, one_line

from shmbus.options import sized
from shmbus.views import EndpointInfo, SiteInfo


def here(endpoints: Sequence[EndpointInfo]) -> list[EndpointInfo]:
    """Those of the bus itself."""
    return [e for e in endpoints if e.site is None]


def elsewhere(sites: Sequence[SiteInfo], endpoints: Sequence[EndpointInfo]) -> list[str]:
    """A line for each link and a table of the sites that it sees, then one of the endpoints there;
    each after an empty line, where there are any."""
    lines = []
    for own in sites:
        if own.state == "here":
            lines += ["", f"  {own.link} joins this bus to space {own.space}, as site {own.name}"]
    tables = (_sites(sites), _endpoints(endpoints))
    return lines + [line for table in tables if table for line in ("", *table)]


def _sites(sites: Sequence[SiteInfo]) -> list[str]:
    heads = ["SITE", "LINK", "STATE", "FOR", "ROUND TRIP", "SENT", "RECEIVED", "WAITING"]
    heads += ["LOST TO IT", "FROM IT", "GARBAGE", "CLOCK", "WHY"]
    rows = [
        [
            s.name,
            s.link,
            s.state,
            duration(max(time.time() - s.since, 0.0)),
            duration(s.round_trip),
            str(s.sent),
            str(s.received),
            sized(s.waiting_bytes),
            str(s.lost_to),
            str(s.lost_from),
            str(s.garbage),
            _clock(s),
            one_line(s.reason),
        ]
        for s in sites
        if s.state != "here"
    ]
    return columns(heads, rows, "  ") if rows else []


def _clock(site: SiteInfo) -> str:
    """How well the times of messages from there are known."""
    known = site.clock_error_ns
    return "-" if known is None else f"+-{duration(known / 1e9)}"


def _endpoints(endpoints: Sequence[EndpointInfo]) -> list[str]:
    rows = [
        [e.name, str(e.pid), one_line(e.host) or "-", " ".join(e.patterns)]
        for e in endpoints
        if e.site is not None
    ]
    return columns(["ENDPOINT ELSEWHERE", "PID", "HOST", "PATTERNS"], rows, "  ") if rows else []
