"""The terminal application: a table of endpoints, a page for each, routes, and a live tail."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, ClassVar

from msgspec.structs import asdict
from rich.console import Group
from rich.table import Table
from rich.text import Text
from shmbus_console.messages import shown
from textual import on
from textual.app import App, ComposeResult, ScreenStackError
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.coordinate import Coordinate
from textual.css.query import NoMatches
from textual.message import Message
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, RichLog, Sparkline, Static

from shmbus.errors import BusError
from shmbus.views import Backlog, Counts, EndpointInfo, Latency, PendingRequest, Ring

from . import cells
from .cells import COLUMNS, Row
from .sampler import Sample, Sampler


class ShmTop(App[None]):
    """Samples a bus at intervals, and shows the last sample on the page in front."""

    CSS_PATH = "shmtop.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("space", "pause", "Pause"),
        Binding("plus", "faster(0.5)", "Faster", show=False),
        Binding("minus", "faster(2)", "Slower", show=False),
    ]

    def __init__(self, sampler: Sampler, interval: float = 1.0) -> None:
        super().__init__()
        self.sampler, self.interval = sampler, interval
        self.sample = sampler.sample()
        self.paused = False

    def on_mount(self) -> None:
        self._timer = self.set_interval(self.interval, self.look)
        self.push_screen(BusPage())

    def look(self) -> None:
        """Look at the bus now, and show it."""
        if not self.paused:
            self.sample = self.sampler.sample()
        self.show()

    def show(self) -> None:
        """Show the last look on the page in front."""
        with suppress(ScreenStackError):  # at the end there may be no page any more
            if isinstance(self.screen, Page):
                self.screen.bring_up()

    def action_pause(self) -> None:
        self.paused = not self.paused
        self.show()

    def action_faster(self, factor: float) -> None:
        self.interval = min(max(self.interval * factor, 0.05), 60.0)
        self._timer.stop()
        self._timer = self.set_interval(self.interval, self.look)
        self.notify(f"a look every {cells.duration(self.interval)}", timeout=2)


class Page(Screen[None]):
    """A page that shows the last look."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.pop_screen", "Back")]

    @property
    def top(self) -> ShmTop:
        assert isinstance(self.app, ShmTop)
        return self.app

    def bring_up(self) -> None:
        """Show the last sample, if the page is complete: it may just be made or removed."""
        with suppress(NoMatches):
            self.show(self.top.sample)

    def on_mount(self) -> None:
        self.bring_up()

    def on_screen_resume(self) -> None:
        self.bring_up()

    def on_resize(self) -> None:
        self.bring_up()

    def show(self, sample: Sample) -> None:
        """Show this sample."""
        raise NotImplementedError


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


def slots(sample: Sample) -> str:
    """How many of the bus's slots are in use."""
    return f"{len(sample.look.endpoints)}/{sample.look.info.slots} endpoints"


class EndpointPage(Page):
    """All facts about one endpoint."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self._row: Row | None = None

    def compose(self) -> ComposeResult:
        yield Static(classes="title", id="title")
        with VerticalScroll(id="detail"):
            yield Static(id="facts")
        yield Footer(compact=True, show_command_palette=False)

    def show(self, sample: Sample) -> None:
        row = next((row for row in cells.rows(sample) if row.key == self.key), None)
        gone = row is None
        row = self._row = row or self._row
        if row is None:
            return
        info = row.info
        title = Text.assemble(
            (info.name, "bold"),
            "  ",
            ("gone", cells.STYLES["dead"]) if gone else cells.state(info),
            f"  process {info.pid}  slot {info.slot}  generation {info.generation}",
            f"  attached {cells.since(info.since)} ago",
        )
        self.query_one("#title", Static).update(title)
        view, recent = self.top.sampler.view, sample.look.health.recent_latency
        requests = [] if gone else view.requests(info.name)
        waiting = None if gone else view.waiting(info.name)
        self.query_one("#facts", Static).update(
            facts(row, requests, waiting, recent, self.size.width - 4, sample.look.backlogs)
        )


def facts(
    row: Row,
    requests: list[PendingRequest],
    waiting: Latency | None,
    routing: Latency,
    width: int,
    backlogs: list[Backlog],
) -> Group:
    """An endpoint's page."""
    info = row.info
    parts: list[Any] = []
    if info.note:
        parts.append(Text(info.note, "red"))
    parts += [rings(info, width), Text()]
    nobody = "  its messages are not taken" if info.interests and not info.receivers else ""
    busy = f" for {cells.duration(info.in_hand_seconds)}" if info.in_hand else ""
    age = "" if info.oldest is None else f", the oldest for {cells.duration(info.oldest)}"
    parts += [
        Text.assemble(
            f"waiting {info.untouched}{age}  in hand {info.in_hand}{busy}  held {info.held}",
            f"  receiving threads {info.receivers}",
            (nobody, "bold yellow"),
            f"  last progress {cells.since(info.last_progress)} ago"
            if info.last_progress is not None
            else "  no message taken yet",
        ),
        *cells.backlogs([b for b in backlogs if info.name in b.takers]),
        Text(),
        counters(row),
        Text(),
        Text.assemble(("Patterns", "bold"), "" if info.routed else "  (not all routed yet)"),
        *interests(info),
        Text(),
        Text(f"Requests under way: {info.pending} of {info.pending_limit}", "bold"),
        *(
            Text(
                f"  {request.correlation_id}  {request.handler or '(none chosen yet)'}"
                f"  deadline in {cells.duration(max(request.deadline, 0.0))}"
            )
            for request in requests[:20]
        ),
        Text(),
        Text.assemble(("Waiting", "bold"), " for this endpoint: how long since they were sent"),
        *histogram(waiting, width, "nothing waits"),
        Text(),
        Text.assemble(
            ("Routing latency", "bold"),
            " of the whole bus, not of this endpoint, since the look before",
        ),
        *histogram(routing, width, "nothing routed"),
    ]
    return Group(*parts)


def rings(info: EndpointInfo, width: int) -> Table:
    """The four rings of an endpoint."""
    result = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("RING", "", "FULL", "BYTES", "OF", "HIGH"):
        result.add_column(name, justify="left" if name in ("RING", "") else "right")
    four: list[tuple[str, Ring]] = [
        ("in: messages", info.incoming),
        ("in: replies", info.incoming_replies),
        ("out: messages", info.outgoing),
        ("out: replies", info.outgoing_replies),
    ]
    for name, ring in four:
        result.add_row(
            name,
            cells.bar(ring.fill, max(min(width - 50, 40), 10)),
            cells.percent(ring.fill),
            cells.size(ring.depth),
            cells.size(ring.capacity),
            cells.size(ring.high),
        )
    return result


def counters(row: Row) -> Table:
    """What an endpoint has sent, received, and lost."""
    info, rates = row.info, row.rates
    result = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("", "EVENTS", "SENDS", "REQUESTS", "REPLIES", "A SECOND"):
        result.add_column(name, justify="left" if not name else "right")
    rows: list[tuple[str, Counts, float]] = [
        ("sent", info.sent, rates.sent),
        ("received", info.received, rates.received),
    ]
    for name, counts, rate in rows:
        kinds = (counts.events, counts.sends, counts.requests, counts.replies)
        result.add_row(name, *(str(count) for count in kinds), cells.number(rate))
    pairs = [
        ("lost", info.lost),
        *((f"lost: {word.replace('_', ' ')}", n) for word, n in asdict(info.lost_by).items() if n),
        ("redelivered", info.redelivered),
        ("undeliverable", info.undeliverable),
        ("unrouted", info.unrouted),
        ("orphans", info.orphans),
        ("expired", info.expired),
        ("handler errors", info.handler_errors),
        ("decode errors", info.decode_errors),
        ("timeouts", info.timeouts),
        ("let go", info.let_go),
    ]
    bad = {"lost", "handler errors", "decode errors", "let go", "undeliverable"}
    text = Text()
    for name, count in pairs:
        style = "bold red" if count and name in bad else "" if count else "dim"
        text.append(f"{name} {count}  ", style)
    grid = Table.grid()
    grid.add_row(result)
    grid.add_row(text)
    return grid


def interests(info: EndpointInfo) -> list[Text]:
    """What an endpoint subscribes to and handles, a line each."""
    if not info.interests:
        return [Text("  none", "dim")]
    lines = []
    for interest in info.interests[:200]:
        role = {"handle": "handles", "tap": "taps"}.get(interest.role, "subscribes")
        line = Text.assemble(f"  {role:11}", (interest.pattern, "bold"))
        if interest.group is not None:
            line.append(f"  group {interest.group}", "cyan")
        if interest.overflow == "drop_newest":
            line.append("  drops the newest", "yellow")
        lines.append(line)
    if len(info.interests) > 200:
        lines.append(Text(f"  and {len(info.interests) - 200} more", "dim"))
    return lines


def histogram(latency: Latency | None, width: int, nothing: str) -> list[Text]:
    """A latency histogram, an octave a line."""
    if latency is None or not latency.count:
        return [Text(f"  {nothing}", "dim")]
    most = max(count for _, count in latency.histogram)
    longest = max(width - 26, 10)
    lines = [
        Text.assemble(
            f"  from {cells.duration(floor):>7} ",
            (cells.bar(count / most, longest).plain.rstrip("·"), "green"),
            f" {cells.number(count)}",
        )
        for floor, count in latency.histogram
    ]
    summary = f"  p50 {cells.duration(latency.p50)}  p99 {cells.duration(latency.p99)}"
    return [*lines, Text(f"{summary}  most {cells.duration(latency.max)}")]


class RoutesPage(Page):
    """Which endpoints would get a message of a type, and why."""

    def compose(self) -> ComposeResult:
        yield Static("Who would get a message of this type, and why?", classes="title")
        yield Input(placeholder="a message type, as in buffer.3.changed", id="type")
        with VerticalScroll(id="detail"):
            yield Static(id="facts")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    @on(Input.Changed)
    def changed(self) -> None:
        self.show(self.top.sample)

    def show(self, sample: Sample) -> None:
        type = self.query_one(Input).value.strip()
        self.query_one("#facts", Static).update(self.answer(type) if type else "")

    def answer(self, type: str) -> Group | Text:
        """The page for one type."""
        try:
            route = self.top.sampler.view.route(type)
        except BusError as problem:
            return Text(str(problem), "red")
        events, handler = route.subscribers, route.handler
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for name in ("", "ENDPOINT", "PATTERN", "AS", "WHY"):
            table.add_column(name)
        for receiver in route.receivers:
            role = "handler" if receiver.role == "handle" else "subscriber"
            table.add_row(
                Text("✓", "bold green")
                if receiver.chosen
                else Text("?", "bold yellow")
                if receiver.waits
                else Text("·", "dim"),
                Text(receiver.endpoint, "bold" if receiver.chosen else "dim"),
                receiver.pattern,
                role if receiver.group is None else f"member of {receiver.group}",
                Text(receiver.reason, "" if receiver.chosen else "dim"),
            )
        members, handlers = (cells.waited_for(route, role) for role in ("subscribe", "handle"))
        return Group(
            goes("published", events, members, "counted as unrouted"),
            goes("sent or requested", [handler] if handler else [], handlers, "NoRoute"),
            Text(),
            table,
        )


def goes(done: str, to: Sequence[str], waited_for: list[str], else_: str) -> Text:
    """Whom a message goes to, now and once one of some is free."""
    line = Text(f"{done}, it goes to ")
    line.append(", ".join(to), "bold")
    if waited_for:
        line.append(" and " if to else "").append("whoever is free first of ", "bold yellow")
        line.append(", ".join(waited_for), "bold")
    elif not to:
        line.append("nobody", "bold yellow").append(f" ({else_})")
    return line


class PatternInput(Input):
    """The field for a pattern, which has no spaces in it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "Watch"),
        Binding("space", "app.pause", "Pause", priority=True),
    ]


class TailPage(Page):
    """What passes between other endpoints, as it comes: a tap. The one page that attaches to the
    bus."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+l", "clear", "Clear")]
    LINES = 200
    """Lines shown of what came at once; the rest is counted."""

    class Attached(Message):
        """The bus has admitted us."""

    class Failed(Message):
        """The bus has not admitted us, or it is gone."""

        def __init__(self, problem: str) -> None:
            super().__init__()
            self.problem = problem

    class Came(Message):
        """Messages came."""

        def __init__(self, lines: list[Text]) -> None:
            super().__init__()
            self.lines = lines

    def __init__(self) -> None:
        super().__init__()
        self._stop = threading.Event()
        self._shown = threading.Event()
        self._endpoint: Any = None
        self._tap: Any = None

    def compose(self) -> ComposeResult:
        yield Static(classes="title", id="title")
        yield Static("attaching ...", id="notice")
        yield PatternInput(">", placeholder="a pattern, as in buffer.*.changed or >", id="pattern")
        yield RichLog(max_lines=5000, wrap=False, highlight=False)
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Input).focus()
        self.run_worker(self._tail, thread=True)

    def on_unmount(self) -> None:
        self._stop.set()

    def show(self, sample: Sample) -> None:
        title = Text("What passes between others, as it comes  ")
        if self.top.paused:
            title.append("PAUSED", "reverse").append("  what comes now is not kept")
        self.query_one("#title", Static).update(title)

    def action_clear(self) -> None:
        self.query_one(RichLog).clear()

    def on_tail_page_attached(self) -> None:
        self._watch()

    def on_tail_page_failed(self, message: Failed) -> None:
        self._show_status(message.problem, "bold red")

    def on_tail_page_came(self, message: Came) -> None:
        log = self.query_one(RichLog)
        for line in message.lines if not self.top.paused else ():
            log.write(line)
        self._shown.set()

    @on(Input.Submitted)
    def submitted(self) -> None:
        self._watch()

    def _show_status(self, text: str, style: str = "") -> None:
        self.query_one("#notice", Static).update(Text(text, style))

    def _watch(self) -> None:
        pattern = self.query_one(Input).value.strip()
        if self._endpoint is None or not pattern:
            return
        try:
            fresh = self._endpoint.tap(pattern)
        except BusError as problem:
            self._show_status(str(problem), "bold red")
            return
        if self._tap is not None:
            self._tap.close()
        self._tap = fresh
        self._show_status(
            f"attached to the bus as {self._endpoint.name}, a lossy observer of {pattern}: it gets "
            "copies, delays nobody, and loses what it does not read in time"
        )

    def _tail(self) -> None:
        """In a thread of its own: attach, and show what comes until the page is left. A bus that
        has died or ended may be served again."""
        while not self._stop.is_set():
            try:
                self._follow()
            except BusError as problem:
                self.post_message(self.Failed(str(problem)))
            finally:
                self._endpoint = self._tap = None
            self._stop.wait(1.0)

    def _follow(self) -> None:
        import shmbus

        name = f"shmtop-{os.getpid()}"
        with shmbus.attach(self.top.sampler.name, name=name, timeout=2.0) as endpoint:
            self._endpoint = endpoint
            self.post_message(self.Attached())
            while not self._stop.is_set():
                messages = endpoint.receive_many(10_000, timeout=0.2)
                if not messages:
                    continue
                lines = [tail_line(message) for message in messages[: self.LINES]]
                if len(messages) > self.LINES:
                    more = len(messages) - self.LINES
                    lines.append(Text(f"... {more} more came at once", "dim"))
                self._shown.clear()
                self.post_message(self.Came(lines))
                # Wait until they are shown: with a slow terminal, lose messages instead of memory.
                while not self._shown.wait(0.1) and not self._stop.is_set():
                    pass


OUTCOMES = {"nobody": "yellow", "lost": "bold red", "dropped": "magenta"}


def tail_line(message: Any) -> Text:
    """A tapped message, on one line."""
    tap = message.tap
    line = Text(no_wrap=True, overflow="ellipsis")
    if message.lost:
        line.append(f"({message.lost} missed) ", "bold red")
    line.append(f"{tap.kind:7} ", "red" if tap.kind == "error" else "")
    line.append(f"{message.type} ", "bold")
    line.append(f"{message.source} -> {tap.target or '-'} ", "cyan")
    if tap.outcome != "delivered":
        line.append(f"{tap.outcome} ", OUTCOMES[tap.outcome])
    try:
        text = shown(message)
    except BusError as problem:
        text = str(problem)
    line.append(text if len(text) <= 500 else text[:499] + "…")
    return line
