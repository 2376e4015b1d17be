"""Which endpoints would get a message of a type, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual import on
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Input, Static

from shmbus.errors import BusError
from shmbus.views import Route
from shmtop import keys
from shmtop.sampler import Sample

from .line import Line
from .page import Page
from .prompt import Prompt


class RoutesPage(Page):
    """Which endpoints would get a message of a type, and why."""

    KEYS = keys.ROUTES

    def body(self) -> Iterable[Widget]:
        yield Line(classes="title", id="title")
        yield Prompt(placeholder="a message type, as in buffer.3.changed")
        with VerticalScroll(id="detail"):
            yield Static(id="facts")

    def on_mount(self) -> None:
        self.action_prompt()

    def action_prompt(self) -> None:
        self.set_focus(self.query_one(Prompt))

    def action_take(self) -> None:
        self.set_focus(self.query_one("#detail"))

    @on(Input.Changed)
    def changed(self) -> None:
        self.show(self.top.sample)

    def show(self, sample: Sample) -> None:
        title = Text("Who would get a message of this type, and why?", "bold")
        self.query_one("#title", Line).put(title)
        type = self.query_one(Prompt).value.strip()
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
        members, handlers = (waited_for(route, role) for role in ("subscribe", "handle"))
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


def waited_for(route: Route, role: str) -> list[str]:
    """The endpoints for one of which a message would wait."""
    return [r.endpoint for r in route.receivers if r.waits and r.role == role]
