"""The endpoints that did not end in good order."""

from __future__ import annotations

from rich.table import Table
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static

from shmtop import cells
from shmtop.sampler import Sample

from .page import Page


class DeathsPage(Page):
    """The last endpoints that did not end in good order, and what they left undone."""

    def compose(self) -> ComposeResult:
        yield Static(classes="title", id="title")
        with VerticalScroll(id="detail"):
            yield Static(id="facts")
        yield Footer(compact=True, show_command_palette=False)

    def show(self, sample: Sample) -> None:
        health = sample.look.health
        counts = ", ".join(f"{count} {word}" for word, count in health.deaths.items())
        self.query_one("#title", Static).update(
            f"Ended, but not in good order, since the bus was made: {counts or 'none'}"
        )
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for name in ("ENDPOINT", "PID", "HOW", "AGO", "LEFT UNDONE"):
            table.add_column(name, justify="right" if name in ("PID", "AGO") else "left")
        for death in health.last_deaths:
            ago = cells.since(death.at)
            table.add_row(death.name, str(death.pid), death.reason, ago, cells.undone(death))
        self.query_one("#facts", Static).update(table if health.last_deaths else "")
