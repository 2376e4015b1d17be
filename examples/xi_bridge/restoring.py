"""Bringing a view to a core: opened anew, or as its journal has it after the death of another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .core_process import CoreProcess
from .editing import send
from .errors import CoreDown, CoreRefused
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
            if error is None and not isinstance(core_id, str):
                error = CoreRefused("new_view", 0, f"{core_id!r} is the name of no view")
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
        """Open it with the base of its journal, and do the edits since: one by one, so that it
        shows which of them a core does not survive. Raises `CoreDown`."""
        await self.open(core, view, _file_with(view))
        author = view.journal.base.author
        await self._do(core, view, view.selecting(author))
        view.author = author
        for entry in list(view.journal.entries):
            view.author = entry.author
            try:
                await self._do(core, view, entry.edits)
            except CoreDown:
                if core.by_itself:
                    self._suspect(view, entry)
                raise
            self._deaths.pop((view.id, entry.author, entry.n), None)

    async def _do(self, core: CoreProcess, view: View, edits: list[InnerEdit]) -> None:
        send(core, view, edits)
        with contextlib.suppress(CoreRefused):  # it has an answer all the same
            await core.request("get_config", {"view_id": view.core_id}, self._patience)

    def _suspect(self, view: View, entry: Entry) -> None:
        """The core ended at this edit."""
        key = view.id, entry.author, entry.n
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= DEATHS:
            view.journal.drop(entry)
            del self._deaths[key]
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
