"""The bus's health and the table of endpoints."""

from __future__ import annotations

from collections.abc import Iterable

from textual import on
from textual.widget import Widget
from textual.widgets import Input

from shmtop import columns, keys, lines, rows
from shmtop.keys import Key
from shmtop.sampler import Sample

from .deaths import DeathsPage
from .endpoint import EndpointPage
from .line import Line
from .links import LinksPage
from .page import Page
from .pools import PoolsPage
from .prompt import Prompt
from .routes import RoutesPage
from .table import EndpointTable
from .tail import TailPage

REASONS = 3
"""Lines for them above the table."""


class BusPage(Page):
    """The bus's health and the table of endpoints."""

    KEYS = keys.BUS

    def __init__(self) -> None:
        super().__init__()
        self.sorted_by, self.reversed = columns.BY_TROUBLE, False
        self._worst = -1

    def body(self) -> Iterable[Widget]:
        yield Line(id="traffic")
        yield Line(id="rate")
        yield Line(id="sites")
        yield Line(id="reasons")
        yield Line(id="backlogs")
        yield EndpointTable()
        yield Line(id="nobody")
        prompt = Prompt(placeholder="words of a name, state, pid, pattern or group", spaces=True)
        prompt.display = False
        yield prompt

    def on_mount(self) -> None:
        self.set_focus(self.table)

    @property
    def table(self) -> EndpointTable:
        return self.query_one(EndpointTable)

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def keys_now(self) -> list[Key]:
        known = super().keys_now()
        if not self.top.sample.look.sites:
            known = [key for key in known if key is not keys.LINKS]
        return known if self.typing else [keys.CURSOR[0], *known]

    def show(self, sample: Sample) -> None:
        health = sample.look.health
        self.query_one("#traffic", Line).put(lines.traffic(health))
        rate = lines.rate(self.top.sampler.history, self.size.width - 2)
        self.query_one("#rate", Line).put(rate)
        self.query_one("#sites", Line).put(*lines.sites(sample.sites))
        self.query_one("#reasons", Line).put(*lines.reasons(health, REASONS))
        self.query_one("#backlogs", Line).put(*lines.backlogs(sample.look.backlogs))
        words = self.prompt.value
        found = [row for row in sample.rows if rows.matches(row, words)]
        self.table.put(
            columns.order(found, self.sorted_by, self.reversed), self.sorted_by, self.reversed
        )
        self.query_one("#nobody", Line).put(*([] if found else [lines.nobody(sample, words)]))

    # The cursor -----------------------------------------------------------------------------------

    @on(EndpointTable.Opened)
    def open_endpoint(self, event: EndpointTable.Opened) -> None:
        self.app.push_screen(EndpointPage(event.key))

    def action_worst(self) -> None:
        """To the worst; from one that was reached so, to the next in trouble."""
        shown = {row.key: at for at, row in enumerate(self.table.rows)}
        worst = [
            shown[row.key]
            for row in columns.order(self.table.rows, columns.BY_TROUBLE)
            if row.severity
        ]
        if not worst:
            self.notify("no endpoint is in trouble", timeout=2)
            return
        here = self.table.cursor
        onward = self._worst == here and here in worst
        at = (worst.index(here) + 1) % len(worst) if onward else 0
        self._worst = worst[at]
        self.table.follow(worst[at])

    # Sorting --------------------------------------------------------------------------------------

    def action_sort(self, step: int) -> None:
        titles = [column.title for column in self.table.columns]
        at = titles.index(self.sorted_by.title) if self.sorted_by.title in titles else 0
        self._sort(titles[(at + step) % len(titles)])

    def _sort(self, title: str) -> None:
        self.sorted_by, self.reversed = columns.BY_TITLE[title], False
        self.show(self.top.sample)

    def action_reverse(self) -> None:
        self.reversed = not self.reversed
        self.show(self.top.sample)

    @on(EndpointTable.Titled)
    def sort_by_title(self, event: EndpointTable.Titled) -> None:
        if event.title == self.sorted_by.title:
            self.action_reverse()
        else:
            self._sort(event.title)

    # Filtering ------------------------------------------------------------------------------------

    def action_prompt(self) -> None:
        self.prompt.display = True
        self.set_focus(self.prompt)

    def action_take(self) -> None:
        self.set_focus(self.table)
        self.prompt.end(take=True)

    def action_back(self) -> None:
        self.set_focus(self.table)
        self.prompt.end(take=False)

    @on(Input.Changed)
    def filter_changed(self) -> None:
        self.show(self.top.sample)

    @on(Prompt.Taken)
    def filter_done(self, event: Prompt.Taken) -> None:
        self.prompt.display = bool(event.value)

    # Other pages ----------------------------------------------------------------------------------

    async def action_routes(self) -> None:
        await self.app.push_screen(RoutesPage())

    async def action_deaths(self) -> None:
        await self.app.push_screen(DeathsPage())

    async def action_pools(self) -> None:
        await self.app.push_screen(PoolsPage())

    async def action_links(self) -> None:
        await self.app.push_screen(LinksPage())

    async def action_tail(self) -> None:
        await self.app.push_screen(TailPage())
