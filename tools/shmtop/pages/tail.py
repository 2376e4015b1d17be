"""What passes on the bus, as it comes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.text import Text
from shmbus_console.messages import shown, since_sent
from textual import on
from textual.widget import Widget

import shmbus
from shmbus.errors import BusError
from shmtop import keys
from shmtop.sampler import Sample

from .attached import AttachedPage, Log
from .line import Line
from .prompt import Prompt


class TailPage(AttachedPage):
    """What passes between other endpoints, as it comes: a tap."""

    KEYS = keys.TAIL

    def __init__(self) -> None:
        super().__init__()
        self._pattern = ">"
        self._tap: tuple[shmbus.Endpoint, Any] | None = None

    def parts(self) -> Iterable[Widget]:
        yield Prompt(self._pattern, placeholder="a pattern, as in buffer.*.changed or >")

    def on_mount(self) -> None:
        self.action_prompt()

    def show(self, sample: Sample) -> None:
        title = Text("What passes between others, as it comes", "bold")
        if self.top.paused:
            title.append("  what comes now is not kept")
        self.query_one("#title", Line).put(title)

    def ask_for(self, endpoint: shmbus.Endpoint) -> str:
        fresh = endpoint.tap(self._pattern)
        if self._tap is not None and self._tap[0] is endpoint:
            self._tap[1].close()
        self._tap = endpoint, fresh
        return (
            f"a lossy observer of {self._pattern}: it gets copies, delays nobody, and loses what "
            "it does not read in time"
        )

    def line(self, message: shmbus.Message[Any]) -> Text:
        return tail_line(message)

    def action_prompt(self) -> None:
        self.set_focus(self.query_one(Prompt))

    def action_take(self) -> None:
        self.set_focus(self.query_one(Log))
        self.query_one(Prompt).end(take=True)

    @on(Prompt.Taken)
    def take(self, event: Prompt.Taken) -> None:
        if pattern := event.value.strip():
            self._pattern = pattern
            self.ask()


OUTCOMES = {"nobody": "yellow", "lost": "bold red", "dropped": "magenta", "forbidden": "bold red"}


def tail_line(message: shmbus.Message[Any]) -> Text:
    """A tapped message, on one line."""
    tap = message.tap
    assert tap is not None
    line = Text(no_wrap=True, overflow="ellipsis")
    if message.lost:
        line.append(f"({message.lost} missed) ", "bold red")
    line.append(f"{tap.kind:7} ", "red" if tap.kind == "error" else "")
    line.append(f"{message.type} ", "bold")
    line.append(f"{message.source} -> {tap.target or '-'} ", "cyan")
    if message.site is not None:
        line.append(f"in {since_sent(message, (tap.forwarded_ns - tap.sent_ns) / 1e9)} ", "dim")
    if tap.outcome != "delivered":
        line.append(f"{tap.outcome} ", OUTCOMES[tap.outcome])
    try:
        text = shown(message)
    except BusError as problem:
        text = str(problem)
    line.append(text if len(text) <= 500 else text[:499] + "…")
    return line
