"""The sites that links join this bus to: how far they are, what crosses, and what was lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text
from shmbus_console.text import one_line
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from shmbus.views import SiteInfo
from shmtop import figures, lines
from shmtop.sampler import Sample
from shmtop.sites import SiteRow

from .line import Line
from .page import Page

WIDE = 118
"""Columns of a terminal in which all of the table fits."""


class LinksPage(Page):
    """Every site that a link sees."""

    def body(self) -> Iterable[Widget]:
        yield Line(classes="title", id="title")
        with VerticalScroll(id="detail"):
            yield Static(id="facts")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#detail"))

    def show(self, sample: Sample) -> None:
        own = [site for site in sample.look.sites if site.state == "here"]
        self.query_one("#title", Line).put(title(own))
        self.query_one("#facts", Static).update(facts(sample.sites, self.size.width >= WIDE))


def title(own: Sequence[SiteInfo]) -> Text:
    """Which site this bus is, for each of its links."""
    here = (f"{site.link} joins it to {site.space}, as {site.name}" for site in own)
    return Text.assemble(("Links", "bold"), "  ", "; ".join(here))


def facts(rows: Sequence[SiteRow], wide: bool) -> Group | Text:
    """A line for each site; below them what is wrong with some."""
    if not rows:
        return Text("no link has told of another site", "dim")
    table = Table(box=None, padding=(0, 2 if wide else 1, 0, 0), pad_edge=False)
    table.add_column("SITE", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    heads = ["LINK", "FOR", "TRIP", "CLOCK", "TO/S", "FROM/S", "BYTES TO/S", "BYTES FROM/S"]
    heads += ["WAITING", "LOST TO", "LOST FROM", "GARBAGE"]
    left_out = () if wide else ("LINK", "FOR", "CLOCK", "BYTES TO/S", "BYTES FROM/S", "GARBAGE")
    shown = [head for head in heads if head not in left_out]
    for head in shown:
        table.add_column(head, justify="left" if head == "LINK" else "right", no_wrap=True)
    for row in rows:
        cells = dict(zip(heads, _cells(row), strict=True))
        name = Text(row.info.name, "bold", overflow="ellipsis")
        table.add_row(name, lines.site_state(row.info), *(cells[head] for head in shown))
    wrong = [f"! {row.info.name}: {one_line(row.info.reason)}" for row in rows if row.info.reason]
    return Group(table, Text(), *(Text(each, "yellow") for each in wrong))


def _cells(row: SiteRow) -> list[str | Text]:
    info, rates = row.info, row.rates
    known = info.clock_error_ns
    lost = ((info.lost_to, "bold red"), (info.lost_from, "bold red"), (info.garbage, "yellow"))
    return [
        info.link,
        figures.since(info.since),
        figures.duration(info.round_trip),
        "-" if known is None else f"±{figures.duration(known / 1e9)}",
        figures.number(rates.sent),
        figures.number(rates.received),
        figures.size(rates.sent_bytes),
        figures.size(rates.received_bytes),
        figures.size(info.waiting_bytes),
        *(Text(figures.number(count), style if count else "dim") for count, style in lost),
    ]
