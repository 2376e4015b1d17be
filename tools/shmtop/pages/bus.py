"""The bus's health and the table of endpoints."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Input, Sparkline, Static

from shmtop import cells
from shmtop.cells import COLUMNS, Row
from shmtop.sampler import Sample

from .deaths import DeathsPage
from .endpoint import EndpointPage
from .page import Page
from .routes import RoutesPage
from .tail import TailPage


class EndpointTable(DataTable[Text]):
    """The table of endpoints; enter opens the page of one."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Endpoint")]


class BusPage(Page):
    """The bus's health and the table of endpoints."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "unfilter", "Clear", show=False),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", "Sort back", show=False),
        Binding("v", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter"),
        Binding("r", "routes", "Routes"),
        Binding("d", "deaths", "Deaths"),
        Binding("t", "tail", "Tail"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.sorted_by, self.reversed = COLUMNS[0], False
        self._columns: list[cells.Column] = []
        self._shown: dict[str, list[Text]] = {}
        self._layout: tuple[int, str, bool] | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="headline")
        with Horizontal(id="pulse"):
            yield Static(id="traffic")
            yield Sparkline([], id="spark")
        yield Static(id="reasons")
        yield Static(id="backlogs")
        yield EndpointTable(cursor_type="row", cell_padding=0)
        yield Static(id="nobody")
        yield Input(placeholder="words of a name, state, pid, pattern or group", id="filter")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.table.focus()

    @property
    def table(self) -> EndpointTable:
        return self.query_one(EndpointTable)

    def show(self, sample: Sample) -> None:
        health = sample.look.health
        remark = "PAUSED" if self.top.paused else ""
        headline = cells.headline(health, remark, slots(sample), self.size.width - 2)
        self.query_one("#headline", Static).update(headline)
        self.query_one("#traffic", Static).update(cells.traffic(health))
        self.query_one(Sparkline).data = list(self.top.sampler.history)
        reasons = self.query_one("#reasons", Static)
        reasons.display = bool(health.reasons)
        reasons.update(Text("\n").join(self._cut(Text(reason)) for reason in health.reasons))
        waiting = self.query_one("#backlogs", Static)
        lines = cells.backlogs(sample.look.backlogs)
        waiting.display = bool(lines)
        waiting.update(Text("\n").join(self._cut(line) for line in lines))
        words = self.query_one("#filter", Input).value
        found = [row for row in cells.rows(sample) if cells.matches(row, words)]
        self._fill(cells.order(found, self.sorted_by, self.reversed))
        self.table.set_class(not found, "empty")
        nobody = self.query_one("#nobody", Static)
        nobody.display = not found
        nobody.update(cells.nobody(sample, words))

    def _cut(self, line: Text) -> Text:
        line.truncate(max(self.size.width - 2, 1), overflow="ellipsis")
        return line

    def _fill(self, found: list[Row]) -> None:
        table, width = self.table, self.size.width
        key = self.selected
        if self._layout != (width, self.sorted_by.title, self.reversed):
            self._layout = (width, self.sorted_by.title, self.reversed)
            self._columns, self._shown = cells.columns(width), {}
            table.clear(columns=True)
            for column in self._columns:
                sorts = column.title == self.sorted_by.title
                style = "reverse" if sorts else ""
                label = Text(cells.title(column), style)
                table.add_column(label, width=column.width, key=column.title)
        new = {row.key: [cells.cell(column, row) for column in self._columns] for row in found}
        if list(new) == list(self._shown):
            for row_key, values in new.items():
                for column, value, old in zip(
                    self._columns, values, self._shown[row_key], strict=True
                ):
                    if value != old:
                        table.update_cell(row_key, column.title, value)
        else:
            scroll = table.scroll_offset
            table.clear()
            for row_key, values in new.items():
                table.add_row(*values, key=row_key)
            if key in new:
                table.move_cursor(row=list(new).index(key), animate=False, scroll=False)
            table.scroll_to(scroll.x, scroll.y, animate=False)
        self._shown = new

    @property
    def selected(self) -> str | None:
        """The key of the row under the cursor."""
        table = self.table
        if not table.is_valid_coordinate(table.cursor_coordinate):
            return None
        return table.coordinate_to_cell_key(Coordinate(table.cursor_row, 0)).row_key.value

    @on(DataTable.RowSelected)
    def open_endpoint(self, event: DataTable.RowSelected) -> None:
        if event.row_key.value is not None:
            self.app.push_screen(EndpointPage(event.row_key.value))

    def action_sort(self, step: int) -> None:
        titles = [column.title for column in self._columns]
        at = titles.index(self.sorted_by.title) if self.sorted_by.title in titles else 0
        self._sort(titles[(at + step) % len(titles)])

    def _sort(self, title: str) -> None:
        self.sorted_by = next(column for column in COLUMNS if column.title == title)
        self.reversed = False
        self.show(self.top.sample)

    def action_reverse(self) -> None:
        self.reversed = not self.reversed
        self.show(self.top.sample)

    @on(DataTable.HeaderSelected)
    def sort_by_header(self, event: DataTable.HeaderSelected) -> None:
        title = event.column_key.value
        if title == self.sorted_by.title:
            self.action_reverse()
        elif title is not None:
            self._sort(title)

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()

    def action_unfilter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        field.remove_class("open")
        self.table.focus()

    @on(Input.Changed, "#filter")
    def filter_changed(self) -> None:
        self.show(self.top.sample)

    @on(Input.Submitted, "#filter")
    def filter_done(self, event: Input.Submitted) -> None:
        event.input.set_class(bool(event.value), "open")
        self.table.focus()

    def action_routes(self) -> None:
        self.app.push_screen(RoutesPage())

    def action_deaths(self) -> None:
        self.app.push_screen(DeathsPage())

    def action_tail(self) -> None:
        self.app.push_screen(TailPage())


def slots(sample: Sample) -> str:
    """How many of the bus's slots are in use."""
    return f"{len(sample.look.endpoints)}/{sample.look.info.slots} endpoints"
