"""A page that attaches to the bus: what comes to an endpoint of its own, as it comes."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text
from textual.message import Message
from textual.widget import Widget
from textual.widgets import RichLog

import shmbus
from shmbus.errors import BusError

from .line import Line
from .page import Page

EVERY = 0.25
"""Seconds between two turns of taking what has come."""
AT_ONCE = 50_000
"""Messages taken in one turn."""


class Log(RichLog):
    """The last lines of what came."""

    DEFAULT_CSS = "Log { scrollbar-size-vertical: 1; padding: 0 1; }"

    def __init__(self) -> None:
        super().__init__(max_lines=5000, wrap=False, highlight=False)


class AttachedPage(Page):
    """Attaches while it is open. What comes is taken a few times a second; of what came meanwhile,
    the last screenful is shown and the rest counted."""

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
        self._lines = 50
        self.endpoint: Any = None
        """While it is attached."""

    def ask_for(self, endpoint: shmbus.Endpoint) -> str:
        """Ask for what is to come; returns what that means for the bus. May raise a ``BusError``
        that is shown."""
        raise NotImplementedError

    def line(self, message: shmbus.Message[Any]) -> Text:
        """One message."""
        raise NotImplementedError

    def parts(self) -> Iterable[Widget]:
        """What stands above the lines, as parts of the body."""
        return ()

    def body(self) -> Iterable[Widget]:
        yield Line(classes="title", id="title")
        yield from self.parts()
        yield Line(id="notice")
        yield Log()

    def on_mount(self) -> None:
        self._say("attaching ...")
        thread = threading.Thread(
            target=contextvars.copy_context().run,  # textual finds the application by it
            args=(self._stay, self.top.attached),
            name="shmtop",
            daemon=True,
        )
        self.top.attached = thread
        thread.start()

    def on_unmount(self) -> None:
        self._stop.set()

    def on_resize(self) -> None:
        self._lines = max(self.size.height, 10)

    def action_clear(self) -> None:
        self.query_one(Log).clear()

    def ask(self) -> None:
        """Ask for what is to come, anew."""
        if self.endpoint is None:
            return
        try:
            self._say(f"attached as {self.endpoint.name}, {self.ask_for(self.endpoint)}")
        except BusError as problem:
            self._say(str(problem), "bold red")

    def _say(self, text: str, style: str = "") -> None:
        self.query_one("#notice", Line).put(Text(text, style))

    def on_attached_page_attached(self) -> None:
        self.ask()

    def on_attached_page_failed(self, message: Failed) -> None:
        self._say(message.problem, "bold red")

    def on_attached_page_came(self, message: Came) -> None:
        log = self.query_one(Log)
        if message.lines and not self.top.paused:
            log.write(Text("\n").join(message.lines))
        self._shown.set()

    # In a thread of its own -----------------------------------------------------------------------

    def _stay(self, before: threading.Thread | None) -> None:
        """Attach, and show what comes until the page is left. A bus that has died or ended may be
        served again."""
        if before is not None:
            before.join()
        while not self._stop.is_set():
            try:
                self._attend()
            except BusError as problem:
                self.post_message(self.Failed(str(problem)))
            finally:
                self.endpoint = None
            self._stop.wait(1.0)

    def _attend(self) -> None:
        name = f"shmtop-{os.getpid()}"
        with shmbus.attach(self.top.sampler.name, name=name, timeout=2.0) as endpoint:
            self.endpoint = endpoint
            self.post_message(self.Attached())
            while not self._stop.is_set():
                messages = endpoint.receive_many(AT_ONCE, timeout=EVERY)
                if not messages:
                    continue
                self._shown.clear()
                self.post_message(self.Came(self._shorten(messages)))
                # Until they are shown: with a slow terminal, lose messages instead of memory.
                while not self._shown.wait(EVERY) and not self._stop.is_set():
                    pass
                self._stop.wait(EVERY)

    def _shorten(self, messages: Sequence[shmbus.Message[Any]]) -> list[Text]:
        last = messages[-self._lines :]
        lines = [self.line(message) for message in last]
        if more := len(messages) - len(last):
            lines.insert(0, Text(f"... {more} more came at once", "dim"))
        return lines
