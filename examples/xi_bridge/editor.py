"""A small editor in a terminal, for a person: `python -m xi_bridge.editor BUS FILE`.

It is one more front-end of the view that others have, too, and shows where they are. `--alone`
starts a core for this editor, without a bus.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

if not __package__:  # started by its path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Static

import shmbus.aio
from shmbus import BusError, Message, RemoteError
from xi_bridge.direct import Direct
from xi_bridge.errors import FILE_CHANGED, CoreDown, CoreRefused, FileChanged, OutOfOrder
from xi_bridge.front_end import NO_ANSWER, FrontEnd, open_view
from xi_bridge.journal import InnerEdit
from xi_bridge.sheet import Front, Sheet

MARKS = {
    "insert_newline": "⏎",
    "insert_tab": "⇥",
    "delete_backward": "⌫",
    "delete_forward": "⌦",
}
"""How an edit is shown that was not accepted yet."""
ANSWER = 5.0
"""Seconds in which what is done at once is to be answered; no key does anything meanwhile."""
CONFIRM = 10.0
"""Seconds in which another Ctrl-S overwrites a file that another program has changed."""
SOON = 0.5
"""Seconds after which what was typed should have been accepted."""

FAILURES = (BusError, CoreDown, CoreRefused, OutOfOrder, OSError)
KEYS = "^S save  ^Z undo  ^Y redo  ^C copy  ^X cut  ^V paste  ^Q quit"
"""What a person has to know."""
T = TypeVar("T")


class Editor(App[None]):
    """Types into a front-end's view."""

    CSS = """
    Static { height: 1; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "save", priority=True),
        Binding("ctrl+c", "copy", "copy", priority=True),
        Binding("ctrl+x", "cut", "cut", priority=True),
        Binding("ctrl+v", "paste", "paste", priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, front: Front, name: str) -> None:
        super().__init__()
        self.front = front
        self.sheet = Sheet(front)
        self.core = "core up"
        """How the core is; it is looked at again and again."""
        self.waits = False
        """What was typed is not accepted yet, for longer than it should take."""
        self._name = name
        self._asked = -CONFIRM
        """When it was asked whether to overwrite the file."""

    def compose(self) -> ComposeResult:
        yield self.sheet
        yield Static(id="status", markup=False)
        yield Static(KEYS, markup=False)

    def on_mount(self) -> None:
        self.front.on_change = self.changed
        self.changed()
        self.sheet.focus()
        self.run_worker(self._watch())
        self.run_worker(self._look())

    def changed(self) -> None:
        """Show what the front-end has now."""
        if self.sheet.is_attached:
            self.sheet.changed()
        self._show_status()

    def _show_status(self) -> None:
        for foot in self.query("#status").results(Static):  # it is gone while the editor ends
            foot.update(self.status)

    @property
    def status(self) -> str:
        """The line at the foot: file, place, state of file and core, and who else is here."""
        sheet = self.sheet
        caret = sheet.caret
        place = "" if caret is None else f"{caret.line + 1}:{caret.column + 1}"
        front = self.front
        pending = "".join(map(_mark, front.pending))
        safe = front.cache.pristine and not pending and not front.dropped
        others = [f"{name} at {at[-1].line + 1}" for name, at in sheet.others().items() if at]
        waits = f"waiting for the host: {pending[-20:]}" if self.waits and pending else ""
        dropped = f"{front.dropped} keys lost" if front.dropped else ""
        saved = "saved" if safe else "modified"
        parts = (self._name, place, saved, self.core, dropped, waits, *others)
        return "  ".join(part for part in parts if part)

    def tell_core(self, state: str) -> None:
        self.core = state
        self._show_status()

    async def _watch(self) -> None:
        """Tell what becomes of what was typed, of which each key alone hears nothing."""
        while True:
            try:
                async with asyncio.timeout(SOON):
                    await self.front.flush()
                self.waits = False
            except TimeoutError:
                self.waits = True
            except FAILURES as error:
                self.notify(brief(error), severity="error", markup=False)
            self._show_status()
            await asyncio.sleep(SOON)

    async def _look(self) -> None:
        while True:
            state = await self.front.look()
            if (self.core, state) != ("core down", NO_ANSWER):  # it is known why
                self.tell_core(state)
            await asyncio.sleep(SOON)

    async def _attempt(self, doing: Coroutine[Any, Any, T]) -> T | None:
        """Do that; where it fails, tell why, and go on."""
        try:
            async with asyncio.timeout(ANSWER):
                return await doing
        except TimeoutError:
            self.notify(f"no answer in {ANSWER:g} s: look whether it was done", severity="error")
            return None
        except FAILURES as error:
            self.notify(brief(error), severity="error", markup=False)
            return None

    async def on_sheet_clicked(self, clicked: Sheet.Clicked) -> None:
        await self._attempt(self.front.click(clicked.line, clicked.column))

    async def action_save(self) -> None:
        await self._attempt(self._save())

    async def _save(self) -> None:
        """Where another program has changed the file, the next Ctrl-S overwrites it, if it comes
        soon."""
        now = asyncio.get_running_loop().time()
        overwrite, self._asked = now < self._asked + CONFIRM, -CONFIRM
        try:
            await self.front.save(overwrite=overwrite)
        except (RemoteError, FileChanged) as error:
            if isinstance(error, RemoteError) and error.error != FILE_CHANGED:
                raise
            self._asked = now
            told = f"{brief(error)}. Ctrl-S again overwrites it"
            self.notify(told, severity="warning", timeout=CONFIRM, markup=False)

    async def action_copy(self) -> None:
        self.copy_to_clipboard(await self._attempt(self.front.do("copy")) or self.clipboard)

    async def action_cut(self) -> None:
        self.copy_to_clipboard(await self._attempt(self.front.do("cut")) or self.clipboard)

    def action_paste(self) -> None:
        self.front.press("paste", {"chars": self.clipboard})


async def on_bus(bus: str, path: str) -> int:
    """Edit a file of which a host on that bus has the view."""
    async with shmbus.aio.attach(bus, name=f"editor-{os.getpid()}", reconnect="always") as ep:
        view = await open_view(ep, path)
        async with FrontEnd(ep, view, patience=math.inf) as front:  # a person may wait, or quit
            editor = Editor(front, Path(path).name)

            async def told(message: Message) -> None:
                if message.type == "xi.core.up":
                    editor.tell_core("core up")
                elif message.type == "xi.core.down":
                    editor.tell_core("core down")
                    editor.notify(message.payload["reason"], severity="warning", markup=False)

            async def dropped(message: Message) -> None:
                edits = message.payload["edits"]
                lost = [one["params"] or one["method"] for one in edits]
                text = (
                    f"an edit of {message.payload['from']} ends each core, and is left out: {lost}"
                )
                editor.notify(text, severity="error", markup=False)

            await ep.subscribe("xi.core.*", told)
            await ep.subscribe(f"xi.{view}.edit_dropped", dropped)
            ep.handle("xi.measure_width", _widths)
            ep.start()
            await editor.run_async()
            return editor.return_code or 0


async def alone(path: str) -> int:
    """Edit a file in a core of its own, which is not started again."""
    async with Direct(path) as front:
        front.width = cell_len
        editor = Editor(front, Path(path).name)
        front.ended.add_done_callback(lambda end: editor.exit(return_code=1, message=end.result()))
        await editor.run_async()
        return editor.return_code or 0


def brief(error: Exception) -> str:
    """What a person needs of it, in one line."""
    text = error.message if isinstance(error, RemoteError) else str(error)
    return next(iter(text.splitlines()), type(error).__name__)


def _mark(edit: InnerEdit) -> str:
    """How it is shown in a few characters, if it may change the text."""
    if edit.method in ("insert", "paste"):
        return str(edit.params["chars"]).replace("\n", "⏎")
    moves = edit.method.startswith(("move_", "scroll", "page_", "resize", "gesture", "add_", "sel"))
    return "" if moves else MARKS.get(edit.method, "·")


def _widths(message: Message) -> list[list[int]]:
    """What the core asks, in cells."""
    return [[cell_len(text) for text in of["strings"]] for of in message.payload]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m xi_bridge.editor", description=__doc__)
    parser.add_argument("bus", nargs="?", help="name of the bus")
    parser.add_argument("file")
    parser.add_argument("--alone", action="store_true", help="with a core of its own, and no bus")
    options = parser.parse_args()
    if options.alone == (options.bus is not None):
        parser.error("say the name of a bus, or --alone")
    doing = alone(options.file) if options.alone else on_bus(options.bus, options.file)
    try:
        sys.exit(asyncio.run(doing))
    except FAILURES as error:
        sys.exit(f"{parser.prog}: {brief(error)}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
