"""Edits on their way from the bus into the journal and the core."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from .core_process import CoreProcess
from .errors import CoreDown, CoreRefused, OutOfOrder
from .journal import Entry, InnerEdit
from .keeper import Keeper
from .messages import Accepted, Edit
from .methods import ANSWERED_EDITS, LOOKS, OWN, by_text
from .view import View

CONFIRM_AFTER = 0.1
"""Seconds after an edit until the core is asked whether it has done it."""
BEHIND = 16
"""Edits that a core may have to do still; so one that is slow does not seem to hang."""
COMPACT_AFTER = 256
"""Edits in a journal before it gets a new base."""
TRIES = 3
"""Cores that an edit waits for."""


class Editing:
    """Does the edits of all views."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._patience = keeper.patience
        self._settling: set[asyncio.Task[Accepted]] = set()

    async def do(self, view: View, edit: Edit) -> Accepted:
        """Raises `CoreDown`, `CoreRefused`, `OutOfOrder` and `StaleState`, and `OSError` where the
        journal cannot be written. Then it is not accepted."""
        edit.edits = [one for one in edit.edits if one.method not in OWN]
        methods = {one.method for one in edit.edits}
        if methods <= LOOKS:
            async with view.turn:
                return await self._look(view, edit)
        if all(map(by_text, methods)):
            async with view.turn:
                return await self._type(view, edit)
        # It has to come to its end, though nobody waits for it any more.
        task = asyncio.get_running_loop().create_task(self._settle(view, edit))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return await asyncio.shield(task)

    async def rebase(
        self,
        core: CoreProcess,
        view: View,
        finished: Entry | None = None,
        result: object = None,
    ) -> None:
        """Give the journal a new base, of what the core has, with `finished` and its result in it.
        Nothing may be sent to the core meanwhile."""
        text = await core.request("debug_get_contents", {"view_id": view.core_id}, self._patience)
        if finished is not None:
            view.finish(finished, result)
        try:
            view.rebase(text)
        except OSError as error:  # another core begins at what is written down
            why = f"what it has done cannot be written down: {error}"
            core.kill(why)
            view.lose(why)
            raise

    async def _type(self, view: View, edit: Edit) -> Accepted:
        """The common case: it is written down, sent, and accepted."""
        core = await self._ready(view, edit)
        if (before := _accepted_before(view, edit)) is not None:
            return before
        entry = Entry(edit.author, edit.n, view.placed(edit))
        view.journal.append(entry)
        view.sent(entry)
        send(core, view, entry.edits)
        self._confirm_soon(core, view)
        return Accepted(edit.n, view.seq)

    async def _settle(self, view: View, edit: Edit) -> Accepted:
        """What cannot be done again from the journal is in no journal: when the core has done it,
        there is a new base. Where the core ends before, it was not done."""
        async with view.turn:
            core = await self._ready(view, edit)
            if (before := _accepted_before(view, edit)) is not None:
                return before
            edits = view.placed(edit)
            view.looked(edit.author)
            try:
                result = await self._send_answered(core, view, edits)
            except CoreRefused:
                await self.rebase(core, view)  # the edits before it were done
                raise
            await self.rebase(core, view, edit, result)
            return Accepted(edit.n, view.seq, result=result)

    async def _look(self, view: View, edit: Edit) -> Accepted:
        core = await self._ready(view, edit)
        edits = view.placed(edit)
        view.looked(edit.author)
        result = await self._send_answered(core, view, edits)
        return Accepted(view.done.get(edit.author, 0), view.seq, result=result)

    async def _ready(self, view: View, edit: Edit) -> CoreProcess:
        """The core, for this edit. Where places count, or much is under way, it has done all that
        it was sent."""
        for _ in range(TRIES):
            core = await self._keeper.running()
            target = {"view_id": view.core_id}
            gestures = any(one.method == "gesture" for one in edit.edits)
            strange = edit.author != view.author or view.strayed or gestures
            if not strange and view.told - view.confirmed < BEHIND:
                return core
            with contextlib.suppress(CoreDown):
                await core.request("get_config", target, self._patience)
                view.confirmed = view.told
                return core
        raise CoreDown("the core ended again and again")

    async def _send_answered(self, core: CoreProcess, view: View, edits: list[InnerEdit]) -> Any:
        result = None
        for one in edits:
            if one.method in ANSWERED_EDITS:
                result = await core.request("edit", _call(view, one), self._patience)
            else:
                core.notify("edit", _call(view, one))
        return result

    def _confirm_soon(self, core: CoreProcess, view: View) -> None:
        """Ask the core, soon, whether it has done what it was sent: one that hangs is found so, and
        a long journal gets a new base."""
        if view.confirming is not core:
            view.confirming = core
            asyncio.get_running_loop().call_later(CONFIRM_AFTER, self._confirm, core, view)

    def _confirm(self, core: CoreProcess, view: View) -> None:
        if view.confirming is not core or core.ended.done():
            return
        end, told = view.journal.end, view.told
        long = len(view.journal.entries) >= COMPACT_AFTER

        def confirmed(text: Any, error: Exception | None) -> None:
            if view.confirming is not core:
                return  # it has the view no more
            view.confirming = None
            view.confirmed = max(view.confirmed, told)
            if error is None and long:
                with contextlib.suppress(OSError):  # the journal goes on as it is
                    view.rebase(text, end)
            if error is None and view.journal.end > end:
                self._confirm_soon(core, view)

        method = "debug_get_contents" if long else "get_config"
        core.ask(method, {"view_id": view.core_id}, self._patience, confirmed)


def send(core: CoreProcess, view: View, edits: list[InnerEdit]) -> None:
    for one in edits:
        core.notify("edit", _call(view, one))


def _call(view: View, edit: InnerEdit) -> dict[str, Any]:
    params = {} if edit.params is None else edit.params
    return {"method": edit.method, "params": params, "view_id": view.core_id}


def _accepted_before(view: View, edit: Edit) -> Accepted | None:
    """The answer that it had, where it is sent again."""
    last = view.done.get(edit.author, 0)
    if edit.n > last + 1:
        raise OutOfOrder(f"{edit.author!r} sent edit {edit.n} of {view.id} after {last}")
    if edit.n == last + 1:
        return None
    result = view.results.get(edit.author) if edit.n == last else None
    return Accepted(edit.n, view.seq, again=True, result=result)
