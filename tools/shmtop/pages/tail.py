"""What passes on the bus, as it comes."""

from __future__ import annotations

import os
import threading
from typing import Any, ClassVar

from rich.text import Text
from shmbus_console.messages import shown
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Footer, Input, RichLog, Static

from shmbus.errors import BusError
from shmtop.sampler import Sample

from .page import Page


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
