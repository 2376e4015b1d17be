"""Bringing a view to a core: opened anew, or as its journal has it after the death of another."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .core_process import CoreProcess
from .editing import send
from .errors import CoreDown
from .journal import Entry, InnerEdit
from .view import View

ALL = 1 << 30
DEATHS = 2
"""Cores that may end at the same edit; then it is left out."""


class Restoring:
    """`opened` is called with a view as soon as a core has it; `dropped` with an edit that is left
    out, since no core survives it."""

    def __init__(
        self,
        opened: Callable[[View], object],
        dropped: Callable[[View, Entry], object],
        patience: float,
    ) -> None:
        self._opened, self._dropped, self._patience = opened, dropped, patience
        self._deaths: dict[tuple[str, str, int], int] = {}

    async def open(self, core: CoreProcess, view: View, path: str | None) -> None:
        """Open it in the core, which sends all lines."""
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def answered(core_id: Any, error: Exception | None) -> None:
            if error is None:
                view.begin(core_id)
                view.unsaved = path not in (None, view.journal.base.file)
                self._opened(view)  # before the core says anything about it
                opened.set_result(None)
            else:
                opened.set_exception(error)

        params = {} if path is None else {"file_path": path}
        core.ask("new_view", params, self._patience, answered)
        await asyncio.shield(opened)
        send(core, view, [InnerEdit("scroll", [0, ALL])])

    async def restore(self, core: CoreProcess, view: View) -> None:
        """Open it with the base of its journal, and do the edits since. Raises `CoreDown`."""
        await self.open(core, view, _file_with(view))
        author = view.journal.base.author
        left = deque([Entry(author, 0, view.selecting(author)), *view.journal.entries])
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def confirmed(_: Any, error: Exception | None) -> None:
            if done.done():
                return
            if isinstance(error, CoreDown):
                self._suspect(view, left[0])
                done.set_exception(error)
                return
            entry = left.popleft()
            self._deaths.pop((view.id, entry.author, entry.n), None)
            view.author = left[0].author if left else entry.author
            if not left:
                done.set_result(None)

        for entry in list(left):
            send(core, view, entry.edits)
            core.ask("get_config", {"view_id": view.core_id}, self._patience, confirmed)
        await asyncio.shield(done)

    def _suspect(self, view: View, entry: Entry) -> None:
        """The core ended at this edit."""
        if entry.n == 0:
            return  # it is none
        key = view.id, entry.author, entry.n
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= DEATHS:
            del self._deaths[key]
            view.journal.drop(entry)
            self._dropped(view, entry)


def _file_with(view: View) -> str | None:
    """A file with the text of the journal's base, for a core to open."""
    base = view.journal.base
    if base.file is not None and base.pristine:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if Path(base.file).read_bytes().decode() == base.text:
                return base.file
    if base.file is None and not base.text:
        return None
    copy = view.journal.path.parent / "copy" / Path(base.file or "untitled.txt").name
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(base.text.encode())
    return str(copy)
