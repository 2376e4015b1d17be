"""The lines of a view in a terminal, with carets in them, and keys that edit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rich.color import Color
from rich.style import Style
from rich.text import Text
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from .journal import InnerEdit
from .lines import CachedLine, LineCache
from .positions import Position
from .row import Row


class Front(Protocol):
    """What a person types into: a view on a bus, or that of a core alone."""

    author: str
    view: str
    cache: LineCache
    carets: dict[str, list[Position]]
    styles: list[Any]
    dropped: int
    on_change: Callable[[], object]

    @property
    def pending(self) -> list[InnerEdit]: ...

    def press(self, method: str, params: Any = None) -> None: ...
    async def click(self, line: int, column: int) -> None: ...
    async def do(self, method: str, params: Any = None) -> Any: ...
    async def flush(self) -> None: ...
    async def look(self) -> str: ...
    async def save(self, path: str | None = None, *, overwrite: bool = False) -> None: ...


KEYS = {
    "enter": "insert_newline",
    "tab": "insert_tab",
    "shift+tab": "outdent",
    "backspace": "delete_backward",
    "delete": "delete_forward",
    "ctrl+w": "delete_word_backward",
    "ctrl+delete": "delete_word_forward",
    "ctrl+k": "delete_to_end_of_paragraph",
    "ctrl+y": "redo",
    "ctrl+z": "undo",
    "ctrl+a": "select_all",
    "ctrl+d": "duplicate_line",
    "ctrl+t": "transpose",
    "ctrl+home": "move_to_beginning_of_document",
    "ctrl+end": "move_to_end_of_document",
    "pageup": "scroll_page_up",
    "pagedown": "scroll_page_down",
    "shift+pageup": "page_up_and_modify_selection",
    "shift+pagedown": "page_down_and_modify_selection",
    "alt+up": "add_selection_above",
    "alt+down": "add_selection_below",
    "escape": "collapse_selections",
    **{
        modifier + key: f"move_{method}{selects}"
        for modifier, selects in (("", ""), ("shift+", "_and_modify_selection"))
        for key, method in (
            ("up", "up"),
            ("down", "down"),
            ("left", "left"),
            ("right", "right"),
            ("home", "to_left_end_of_line"),
            ("end", "to_right_end_of_line"),
        )
    },
    **{
        f"ctrl+{modifier}{key}": f"move_word_{key}{selects}"
        for modifier, selects in (("", ""), ("shift+", "_and_modify_selection"))
        for key in ("left", "right")
    },
}
"""The edit that a key does."""

GUTTER = 6
"""Cells of a line's number."""
NUMBER = Style(dim=True)
CARET = Style(reverse=True)
SELECTED = Style(bgcolor="grey30")
OTHERS = [Style(color="black", bgcolor=name) for name in ("cyan", "magenta", "yellow", "green")]


class Sheet(ScrollView, can_focus=True):
    """Shows the front-end's lines, as often as they change, and types into it."""

    @dataclass
    class Clicked(Message):
        """Somebody wants to go there."""

        line: int
        column: int

    def __init__(self, front: Front) -> None:
        super().__init__()
        self.front = front
        self._styles: dict[int, Style] = {}
        self._width = 0

    def on_mount(self) -> None:
        self.changed()

    def changed(self) -> None:
        """The front-end has other lines, carets or styles."""
        self._styles = {style["id"]: _style(style) for style in self.front.styles}
        self.virtual_size = Size(self._width, len(self.front.cache.lines))
        self.refresh()
        if self.caret is not None:
            line, column = self.caret
            at = Region(GUTTER + self._row(line).cell(column), line, 1, 1)
            self.scroll_to_region(at, animate=False, force=True)

    @property
    def caret(self) -> Position | None:
        """Where the one who types here is."""
        carets = self.front.carets.get(self.front.author)
        return carets[-1] if carets else None

    def others(self) -> dict[str, list[Position]]:
        """Where everybody else is."""
        return {name: at for name, at in self.front.carets.items() if name != self.front.author}

    # Showing -------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        number = y + self.scroll_offset.y
        if number >= len(self.front.cache.lines):
            return Strip.blank(self.size.width)
        text = self._text(number)
        drawn = Strip(text.render(self.app.console), text.cell_len)
        if drawn.cell_length + GUTTER + 1 > self._width:
            self._width = drawn.cell_length + GUTTER + 1
            self.call_later(self.changed)
        shown = drawn.crop_extend(
            self.scroll_offset.x, self.scroll_offset.x + self.size.width - GUTTER, None
        )
        gutter = Text(f"{number + 1:>{GUTTER - 1}} ", NUMBER)
        return Strip.join([Strip(gutter.render(self.app.console), GUTTER), shown])

    def _text(self, number: int) -> Text:
        line = self.front.cache.lines[number]
        if line is None:
            return Text("…", NUMBER, end="")
        row = self._row(number)
        text = Text(row.shown + " ", end="")  # a caret may be behind the last character
        self._colour(text, row, line)
        for begin, end in self._selected(number):
            text.stylize(SELECTED, row.index(begin), len(text) if end is None else row.index(end))
        for style, (_, carets) in zip(OTHERS * 8, self.others().items(), strict=False):
            _mark(text, row, number, carets, style)
        _mark(text, row, number, self.front.carets.get(self.front.author, []), CARET)
        return text

    def _colour(self, text: Text, row: Row, line: CachedLine) -> None:
        end = 0
        for skipped, length, style in zip(*[iter(line.styles)] * 3, strict=True):
            begin, end = end + skipped, end + skipped + length
            if style in self._styles:
                text.stylize(self._styles[style], row.index(begin), row.index(end))

    def _selected(self, number: int) -> list[tuple[int, int | None]]:
        """What is selected of a line, in bytes, if it is the one who types here who has it."""
        found: list[tuple[int, int | None]] = []
        mine = self.front.carets.get(self.front.author, [])
        for annotation in self.front.cache.annotations:
            if annotation["type"] != "selection":
                continue
            for first, start, last, end in annotation["ranges"]:
                if first <= number <= last and ((first, start) in mine or (last, end) in mine):
                    found.append((start if number == first else 0, end if number == last else None))
        return found

    def _row(self, number: int) -> Row:
        lines = self.front.cache.lines
        line = lines[number] if number < len(lines) else None
        return Row.of("" if line is None else line.text)

    def on_resize(self, event: events.Resize) -> None:
        size = {"width": event.size.width - GUTTER, "height": event.size.height}
        self.front.press("resize", size)

    # Typing --------------------------------------------------------------------------------------

    def on_key(self, event: events.Key) -> None:
        if event.key in KEYS:
            self.front.press(KEYS[event.key])
        elif event.is_printable and event.character:
            self.front.press("insert", {"chars": event.character})
        else:
            return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        self.front.press("paste", {"chars": event.text})
        event.stop()

    def on_mouse_down(self, event: events.MouseDown) -> None:
        line = min(event.y + self.scroll_offset.y, len(self.front.cache.lines) - 1)
        cell = event.x + self.scroll_offset.x - GUTTER
        if line >= 0:
            self.post_message(self.Clicked(line, self._row(line).byte(max(cell, 0))))


def _mark(text: Text, row: Row, number: int, carets: list[Position], style: Style) -> None:
    for line, column in carets:
        if line == number:
            text.stylize(style, row.index(column), row.index(column) + 1)


def _style(defined: dict[str, Any]) -> Style:
    """What `def_style` says of a style, as the terminal has it."""
    colour = defined.get("fg_color")
    triplet = None if colour is None else (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    return Style(
        color=None if triplet is None else Color.from_rgb(*triplet),
        bold=defined.get("weight", 400) >= 600,
        italic=defined.get("italic", False),
        underline=defined.get("underline", False),
    )
