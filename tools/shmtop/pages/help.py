"""All keys, columns and states."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from shmtop.help import sections
from shmtop.sampler import Sample

from .line import Line
from .page import Page


class HelpPage(Page):
    """All keys, columns and states."""

    def body(self) -> Iterable[Widget]:
        yield Line(classes="title", id="title")
        with VerticalScroll(id="detail"):
            yield Static(answer())

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#detail"))

    def show(self, sample: Sample) -> None:
        self.query_one("#title", Line).put(Text("Keys, columns and states", "bold"))

    def action_help(self) -> None:
        """This is it."""


def answer() -> Group:
    """The help."""
    parts: list[RenderableType] = []
    for title, facts in sections():
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
        table.add_column(width=10, no_wrap=True)
        table.add_column()
        for word, meaning in facts:
            table.add_row(Text(word, "bold"), meaning)
        parts += [Text(title, "bold underline"), table, Text()]
    return Group(*parts)
