"""How the processes are: as a table, and in one line."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
from shmbus_console.text import columns, duration, one_line

from shmbus.supervisor import ProcessStatus

_HEADS = ["NAME", "STATE", "PID", "FOR", "RESTARTS", "LAST END", "ENDPOINTS", "WHY"]
_COLOURS = {"running": "green", "failed": "red", "restarting": "yellow", "stopping": "yellow"}
_NOTABLE = ("failed", "restarting", "stopping", "waiting")
"""States in which somebody may want to know the names, from the worst on."""


def table(found: Sequence[ProcessStatus], now: float | None = None) -> list[str]:
    """Lines for people; `now`: seconds since 1970."""
    rows = [_row(one, time.time() if now is None else now) for one in found]
    head, *lines = columns(_HEADS, rows)
    return [head, *map(_coloured, lines, found)]


def summary(found: Sequence[ProcessStatus]) -> str:
    """One line: ``1 failed (web), 3 running``, the worst first."""
    by_state: dict[str, list[str]] = {}
    for one in sorted(found, key=lambda one: _rank(one.state)):
        by_state.setdefault(one.state, []).append(one.name)
    told = [
        f"{len(names)} {state}" + (f" ({', '.join(names)})" if state in _NOTABLE else "")
        for state, names in by_state.items()
    ]
    return one_line(", ".join(told))


def has_failed(one: ProcessStatus) -> bool:
    """Whether it is given up, or has ended for good otherwise than with 0."""
    badly = one.code not in (0, None) or one.signal != ""
    return one.state == "failed" or (one.state == "ended" and badly)


def _rank(state: str) -> int:
    return _NOTABLE.index(state) if state in _NOTABLE else len(_NOTABLE)


def _row(one: ProcessStatus, now: float) -> list[str]:
    return [
        one.name,
        f"{one.state}, adopted" if one.adopted and one.state == "running" else one.state,
        "-" if one.pid is None else str(one.pid),
        _for(max(0.0, now - one.since)),
        str(one.restarts),
        one.signal or ("-" if one.code is None else f"exit {one.code}"),
        " ".join(one.attached) or "-",
        one_line(one.reason),
    ]


def _for(seconds: float) -> str:
    return f"{int(seconds)} s" if seconds < 120 else duration(seconds)


def _coloured(line: str, one: ProcessStatus) -> str:
    colour = _COLOURS.get(one.state)
    if colour is None:
        return line
    before, found, after = line.partition(f" {one.state}")
    return f"{before}{click.style(found, fg=colour)}{after}"
