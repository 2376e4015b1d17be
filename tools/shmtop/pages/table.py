"""The table of endpoints. Only the rows that are seen are made, and only those drawn that have
changed: a bus may have hundreds of endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from shmtop import columns, keys
from shmtop.columns import Column
from shmtop.figures import Pieces
from shmtop.rows import Row

from .bindings import bindings


class EndpointTable(ScrollView, can_focus=True):
    """Rows below their titles, with a cursor that stays with its endpoint once it was moved."""

    BINDINGS: ClassVar[list[BindingType]] = bindings(keys.CURSOR, first=False)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--cursor"}
    DEFAULT_CSS = """
    EndpointTable { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; }
    EndpointTable > .table--cursor { background: $primary; color: $text; }
    """

    class Opened(Message):
        """Somebody wants to see all about this endpoint."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class Titled(Message):
        """Somebody has clicked on the title of this column."""

        def __init__(self, title: str) -> None:
            super().__init__()
            self.title = title

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.cursor = 0
        self._followed: str | None = None
        self._columns: list[Column] = []
        self._sorted: tuple[Column, bool] | None = None
        self._lines: list[Strip] = []

    def put(self, rows: list[Row], sorted_by: Column, reverse: bool) -> None:
        """Show these rows, in this order."""
        self.rows, self._sorted = rows, (sorted_by, reverse)
        self._columns = columns.columns(self.size.width)
        at = next((i for i, row in enumerate(rows) if row.key == self._followed), None)
        self.cursor = max(min(self.cursor if at is None else at, len(rows) - 1), 0)
        size = Size(self.size.width, len(rows) + 1)
        if self.virtual_size != size:
            self.virtual_size = size
        self._draw()

    @property
    def columns(self) -> list[Column]:
        """Those that are shown."""
        return self._columns

    @property
    def selected(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if self.rows else None

    def follow(self, at: int) -> None:
        """Put the cursor on this row, and let it stay with that endpoint."""
        if not self.rows:
            return
        self.cursor = max(min(at, len(self.rows) - 1), 0)
        self._followed = self.rows[self.cursor].key
        top, shown = int(self.scroll_y), max(self.size.height - 1, 1)
        if not top <= self.cursor < top + shown:
            to = self.cursor if self.cursor < top else self.cursor - shown + 1
            self.scroll_to(y=to, animate=False, force=True)
        self._draw()

    # Drawing --------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Draw the lines that have changed."""
        before, self._lines = self._lines, [self._line(y) for y in range(self.size.height)]
        changed = [y for y, line in enumerate(self._lines) if y >= len(before) or line != before[y]]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        return self._lines[y] if y < len(self._lines) else self._line(y)

    def on_resize(self) -> None:
        self._lines = []
        if self._sorted is not None:
            self.put(self.rows, *self._sorted)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._lines = []

    def _line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        if y == 0:
            titles = [columns.title(column, *self._sorted or ()) for column in self._columns]
            return _strip(titles, base, width)
        at = int(self.scroll_y) + y - 1
        if at >= len(self.rows):
            return Strip.blank(width, base)
        if at == self.cursor:
            base += self.get_component_rich_style("table--cursor")
        row = self.rows[at]
        return _strip([columns.cell(column, row) for column in self._columns], base, width)

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        self._lines = []
        self.refresh()

    # Keys and clicks ------------------------------------------------------------------------------

    def action_open(self) -> None:
        if (row := self.selected) is not None:
            self.post_message(self.Opened(row.key))

    def action_move(self, by: int) -> None:
        self.follow(self.cursor + by)

    def action_page(self, way: int) -> None:
        self.follow(self.cursor + way * max(self.size.height - 2, 1))

    def action_edge(self, way: int) -> None:
        self.follow(0 if way < 0 else len(self.rows) - 1)

    def on_click(self, event: events.Click) -> None:
        if event.y > 0:
            at = int(self.scroll_y) + event.y - 1
            if at < len(self.rows):
                again = at == self.cursor
                self.follow(at)
                if again:
                    self.action_open()
            return
        edge = 0
        for column in self._columns:
            edge += column.width
            if event.x < edge:
                self.post_message(self.Titled(column.title))
                return


def _strip(cells: Sequence[Pieces], base: Style, width: int) -> Strip:
    pieces = [piece for cell in cells for piece in cell]
    segments = [
        Segment(text, base + Style.parse(style) if style else base)
        for text, style in pieces
        if text
    ]
    return Strip(segments).adjust_cell_length(width, base)
