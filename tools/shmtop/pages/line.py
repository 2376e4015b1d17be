"""Lines of text that are drawn anew only where they have changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual import events
from textual.widget import Widget

from shmtop.keys import Key


class Line(Widget):
    """A few lines, each cut at the edge; not there while there are none."""

    DEFAULT_CSS = "Line { height: 1; padding: 0 1; }"

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._text = Text()

    def put(self, *lines: Text) -> None:
        """Show these lines."""
        for line in lines:
            line.truncate(max(self.screen.size.width - 2, 1), overflow="ellipsis")
        text = Text("\n").join(lines)
        if self.display != bool(lines):
            self.display = bool(lines)
        if text == self._text:
            return
        if len(lines) != self._text.plain.count("\n") + 1:
            self.styles.height = max(len(lines), 1)
        self._text = text
        self.refresh()

    def render(self) -> Text:
        return self._text


class KeyLine(Line):
    """The keys of a page; a click does what the key does."""

    DEFAULT_CSS = "KeyLine { dock: bottom; }"
    _keys: list[Key]

    def show(self, keys: Sequence[Key]) -> None:
        left = self.screen.size.width - 1
        self._keys = []
        for key in keys:
            room = len(f"{key.shown} {key.label} ")
            if key.label and room <= left:
                left -= room
                self._keys.append(key)
        parts = [Text.assemble((key.shown, "bold"), f" {key.label}") for key in self._keys]
        self.put(Text(" ").join(parts))

    async def on_click(self, event: events.Click) -> None:
        edge = 1
        for key in self._keys:
            edge += len(f"{key.shown} {key.label} ")
            if event.x < edge:
                await self.app.run_action(key.action, self.screen)
                return
