"""The memory for what is too large for rings, and who holds how much of whose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from shmbus.views import BusInfo, Pool
from shmtop import figures
from shmtop.sampler import Sample

from .line import Line
from .page import Page


class PoolsPage(Page):
    """Every pool, and below each who looks at what of it."""

    def body(self) -> Iterable[Widget]:
        yield Line(classes="title", id="title")
        with VerticalScroll(id="detail"):
            yield Static(id="facts")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#detail"))

    def show(self, sample: Sample) -> None:
        self.query_one("#title", Line).put(title(sample.look.info))
        there = self.top.sampler.view.pools(untaken=True)
        used = (pool for pool in there if pool.reserved or pool.waits)
        found = sorted(used, key=lambda p: (-p.in_use, p.endpoint or ""))
        self.query_one("#facts", Static).update(facts(found))


def title(info: BusInfo) -> Text:
    """What all pools may take."""
    return Text.assemble(
        ("Pools", "bold"),
        f"  for what is too large for rings: {figures.size(info.pools_granted)} granted of ",
        f"{figures.size(info.pool_total_bytes)}",
        f", {info.pools_left} of endpoints that have gone" if info.pools_left else "",
    )


def facts(pools: Sequence[Pool]) -> Group | Text:
    """A line for each pool, and one for each of its holders."""
    if not pools:
        return Text("nothing was too large for a ring so far", "dim")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("POOL OF", no_wrap=True)
    table.add_column("")
    for head in ("IN USE", "OF", "TAKEN", "PAYLOADS", "WAITS"):
        table.add_column(head, justify="right")
    for pool in pools:
        table.add_row(
            Text(pool.endpoint or "one that has gone", "bold" if pool.endpoint else "yellow"),
            Text.assemble(*figures.bar(pool.fill, 10)),
            figures.size(pool.in_use),
            figures.size(pool.limit),
            figures.size(pool.reserved),
            str(sum(holder.count for holder in pool.holders)),
            Text.assemble(
                figures.number(pool.waits), (", now" if pool.waiting else "", "bold yellow")
            ),
        )
        has = [(holder, "holds") for holder in pool.holders]
        has += [(holder, "not taken") for holder in pool.untaken]
        for holder, how in has:
            table.add_row(
                f"  {holder.endpoint or 'one that has gone'}",
                Text(how, "dim"),
                figures.size(holder.bytes),
                "",
                "",
                str(holder.count),
            )
        if pool.kept:
            table.add_row("  values that are kept", "", figures.size(pool.kept))
    return Group(table)
