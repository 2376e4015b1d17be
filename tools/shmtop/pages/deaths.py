"""What is wrong and what went wrong: reasons in full, deaths, losses, and the bus's own events."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from shmbus_console.messages import shown
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

import shmbus
from shmbus.errors import BusError
from shmbus.views import Health
from shmtop import figures, keys, lines
from shmtop.sampler import Sample

from .attached import AttachedPage, Log
from .line import Line


class DeathsPage(AttachedPage):
    """Of the past from shared memory, which costs the bus nothing; the bus's events as they come,
    to an endpoint of its own."""

    KEYS = keys.DEATHS

    def parts(self) -> Iterable[Widget]:
        with VerticalScroll(id="past"):
            yield Static(id="facts")

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Log))

    def show(self, sample: Sample) -> None:
        health = sample.look.health
        counts = ", ".join(f"{count} {word}" for word, count in health.deaths.items())
        self.query_one("#title", Line).put(
            Text(f"Ended, but not in good order, since the bus was made: {counts or 'none'}")
        )
        self.query_one("#facts", Static).update(past(health))

    def ask_for(self, endpoint: shmbus.Endpoint) -> str:
        endpoint.subscribe("$bus.>", overflow="drop_newest")
        return "to see the bus's events; all above costs it nothing"

    def line(self, message: shmbus.Message[Any]) -> Text:
        return event_line(message)


def past(health: Health) -> Group:
    """What shared memory tells of what is wrong and what went wrong."""
    parts: list[Any] = [Text(f"! {reason}") for reason in health.reasons]
    if health.last_deaths:
        table = _table("DIED", "PID", "HOW", "AGO", "LEFT UNDONE")
        for death in health.last_deaths:
            ago, undone = figures.since(death.at), lines.undone(death)
            table.add_row(death.name, str(death.pid), death.reason, ago, undone)
        parts += [Text(), table]
    if health.last_losses:
        table = _table("LOST AT", "PID", "MESSAGES", "WHY", "AGO", "LAST", "FROM")
        for loss in health.last_losses:
            table.add_row(
                loss.name,
                str(loss.pid or "-"),
                str(loss.count),
                loss.reason.replace("_", " "),
                figures.since(loss.at),
                loss.type or "-",
                loss.source or "-",
            )
        parts += [Text(), table]
    return Group(*(parts or [Text("nothing is wrong, nothing died, nothing was lost", "dim")]))


def _table(*heads: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head in ("PID", "AGO", "MESSAGES") else "left")
    return table


BAD = {
    "down": "bold yellow",
    "stalled": "bold magenta",
    "overdue": "bold magenta",
    "forbidden": "bold red",
}


def event_line(message: shmbus.Message[Any]) -> Text:
    """One of the bus's events, on one line."""
    what = message.type.removeprefix("$bus.")
    line = Text(time.strftime("%H:%M:%S "), no_wrap=True, overflow="ellipsis")
    if message.lost:
        line.append(f"({message.lost} missed) ", "bold red")
    line.append(f"{what:17} ", BAD.get(what.rpartition(".")[2], "bold"))
    try:
        facts = message.payload
    except BusError as problem:
        return line.append(str(problem))
    if not isinstance(facts, dict):
        return line.append(shown(message))
    if "name" in facts:
        line.append(f"{facts['name']} (process {facts['pid']}) ", "cyan")
    elif "site" in facts:
        line.append(f"{facts['site']}  ", "cyan")
    left_out = {"name", "pid", "generation", "payload", "format", "site", "run"}
    told = [f"{key} {value}" for key, value in facts.items() if key not in left_out]
    return line.append("  ".join(told))
