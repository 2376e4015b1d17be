"""The host: it keeps a core running, and translates between the core and the bus.

What the core tells becomes events, what the bus requests of it becomes its requests and
notifications, matched by number in both directions. Every request on the bus ends: with the core's
answer, or with what was wrong, in `errors`. Edits are in a journal before the core gets them, so
neither the core's death nor the host's own loses what was accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import sys
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import MsgspecError

import shmbus.aio
from shmbus import BusError, Message

from .core_process import CoreProcess
from .editing import Editing, send
from .errors import CoreDown, CoreRefused, FileChanged, NoSuchView, NotSaved
from .journal import Base, InnerEdit, Journal
from .keeper import Keeper
from .lines import CachedLine, OutOfStep
from .messages import Accepted, Edit, State
from .methods import ANSWERED, KEPT, PASSED
from .outbox import Outbox
from .restoring import Restoring
from .rpc import Malformed, RpcError
from .stamp import changed, stamp
from .view import View

STAND_IN = [sys.executable, str(Path(__file__).with_name("core"))]
"""The command of the core where none is given: a stand-in in Python."""
PATIENCE = 5.0
"""Seconds in which the core is to answer; else it hangs, and is killed."""
AGAIN = 1.0
"""Seconds until it is tried again to open a view in a core, where that failed."""
CHUNK = 16 << 10
"""Bytes of text in a part of a view's lines."""

T = TypeVar("T")


class Host:
    """A core on the bus, for as long as :meth:`run` runs. `state` is a directory for the journals,
    which nobody else may use."""

    def __init__(
        self,
        ep: shmbus.aio.Endpoint,
        state: Path,
        command: Sequence[str] = STAND_IN,
        *,
        patience: float = PATIENCE,
    ) -> None:
        self.ep, self.state, self.patience = ep, state, patience
        self.id = secrets.token_hex(4)
        self.views: dict[str, View] = {}
        self.outbox = Outbox(ep, self._not_published)
        self.keeper = Keeper(command, self, self._restore, self.outbox.put, patience)
        self.editing = Editing(self.keeper)
        self._restoring = Restoring(self._opened, self._dropped, patience)
        self._by_core: dict[str, View] = {}
        self._opening = asyncio.Lock()
        self._preferences: dict[str, tuple[str, Any]] = {}
        self._styles: dict[int, Any] = {}
        self._alerts: deque[str] = deque(maxlen=10)
        self._malformed = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Until cancelled, or the endpoint is closed."""
        self._read_journals()
        self.ep.handle("xi.new_view", self._new_view)
        self.ep.handle("xi.close_view", self._close_view)
        self.ep.handle("xi.save", self._save)
        self.ep.handle("xi.*.edit", self._edit)
        self.ep.handle("xi.*.lines", self._lines)
        for method in PASSED:
            self.ep.handle(f"xi.{method}", self._pass)
        await self.ep.subscribe("$bus.endpoint.down", self._went)
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self.keeper.run())
                publishing = group.create_task(self.outbox.run())
                try:
                    await self.ep.run()
                finally:
                    keeping.cancel()
                    publishing.cancel()
        finally:
            for view in self.views.values():
                view.journal.close()

    def _read_journals(self) -> None:
        for path in sorted(self.state.glob("*/journal")):
            try:
                journal = Journal.read(path)
            except (OSError, MsgspecError) as error:
                self._alert(f"{path} cannot be read, and is left alone: {error}")
                continue
            view = View(path.parent.name, self.id, journal)
            if journal.base.opened:
                self.views[view.id] = view
            else:  # its host was killed as it opened it
                self._forget(view)

    # To a new core -------------------------------------------------------------------------------

    async def _restore(self, core: CoreProcess) -> None:
        self._by_core.clear()
        self._styles.clear()
        core.notify("client_started", {})
        for method, params in self._preferences.values():
            core.notify(method, params)
        for view in list(self.views.values()):
            view.lost = ""
            await self._open_again(core, view)

    async def _open_again(self, core: CoreProcess, view: View) -> None:
        """Where that fails, no core has the view, and it is tried again and again."""
        try:
            await self._restoring.restore(core, view)
        except (CoreRefused, OSError) as error:
            if str(error) != view.lost:
                self._alert(f"{view.id} could not be opened again: {error}")
            view.lose(str(error))
            self._spawn(self._open_later(core, view))
        else:
            self.outbox.put(f"xi.{view.id}.update", view.announce())

    async def _open_later(self, core: CoreProcess, view: View) -> None:
        await asyncio.sleep(AGAIN)
        async with view.turn:
            if core is self.keeper.core and view.id in self.views:
                with contextlib.suppress(CoreDown):  # the next core gets it
                    await self._open_again(core, view)

    def _opened(self, view: View) -> None:
        self._by_core[view.core_id] = view

    def _dropped(self, view: View, entry: object) -> None:
        self.outbox.put(f"xi.{view.id}.edit_dropped", entry)

    def _alert(self, text: str) -> None:
        self.outbox.put("xi.alert", {"msg": text})

    # From the core -------------------------------------------------------------------------------

    def notified(self, core: CoreProcess, method: str, params: Any) -> None:
        if core is not self.keeper.core:
            return  # the last words of one that has ended
        view_id = params.get("view_id") if isinstance(params, dict) else None
        if view_id is None:
            self._keep(method, params)
            self.outbox.put(f"xi.{method}", params)
        elif (view := self._by_core.get(view_id)) is not None:
            if method == "update":
                self._update(core, view, params.get("update"))
            else:
                self.outbox.put(f"xi.{view.id}.{method}", params | {"view_id": view.id})

    def _keep(self, method: str, params: Any) -> None:
        if method == "def_style" and isinstance(params, dict):
            self._styles[params.get("id", 0)] = params
        elif method == "alert":
            self._alerts.append(str(params))

    def _update(self, core: CoreProcess, view: View, update: Any) -> None:
        try:
            changed = view.take(update)
        except (OutOfStep, MsgspecError, LookupError, TypeError, AttributeError) as error:
            core.kill(f"its update does not fit the lines that it sent before: {error}")
            return
        if any(op["op"] == "invalidate" for op in update["ops"]):
            for first, last in view.cache.missing():
                send(core, view, [InnerEdit("request_lines", [first, last])])
        if not view.restoring:
            self.outbox.put(f"xi.{view.id}.update", changed)

    def requested(self, core: CoreProcess, id: int, method: str, params: Any) -> None:
        """A front-end answers what the core asks."""
        if method in PASSED | {"new_view", "close_view", "save"}:
            raise RpcError(-32601, f"no front-end answers {method!r}")

        async def ask() -> None:
            try:
                reply = await self.ep.request(f"xi.{method}", params, timeout=self.patience)
            except BusError as error:
                core.peer.refuse(id, RpcError(-32000, f"{type(error).__name__}: {error}"))
            else:
                core.peer.answer(id, reply.payload)

        self._spawn(ask())

    def malformed(self, core: CoreProcess, error: Malformed) -> None:
        self._tell_malformed(error.reason, error.line[:200].decode(errors="backslashreplace"))

    def _not_published(self, type: str, error: BusError) -> None:
        """The core's method is no type, or what it says is no payload."""
        if type != "xi.core.malformed":
            self._tell_malformed(f"{error}"[:200], type[:200])

    def _tell_malformed(self, reason: str, line: str) -> None:
        self._malformed += 1
        told = {"count": self._malformed, "reason": reason, "line": line}
        self.outbox.put("xi.core.malformed", told)

    # From the bus --------------------------------------------------------------------------------

    def _view(self, id: str) -> View:
        view = self.views.get(id)
        if view is None:
            raise NoSuchView(f"there is no view {id!r}; there are {sorted(self.views)}")
        return view

    async def _new_view(self, message: Message[dict[str, Any] | None]) -> str:
        path = (message.payload or {}).get("file_path")
        file = None if path is None else str(Path(path).resolve())
        # It has to come to its end, though nobody waits for it any more.
        return await asyncio.shield(self._spawn(self._new(file)))

    async def _new(self, file: str | None) -> str:
        async with self._opening:
            for view in self.views.values():
                if file is not None and view.journal.base.file == file:
                    return view.id
            core = await self.keeper.running()
            id = f"view-{secrets.token_hex(4)}"  # who still has a closed one hits no other
            base = Base(file, "", stamp=None if file is None else stamp(file), opened=False)
            journal = Journal.create(self.state / id / "journal", base)
            view = View(id, self.id, journal)
            try:
                await self._restoring.open(core, view, file)
                await self.editing.rebase(core, view)
            except BaseException:
                self._forget(view)
                raise
            view.restoring = False
            self.views[id] = view
            return id

    def _forget(self, view: View) -> None:
        self.views.pop(view.id, None)
        self._by_core = {id: one for id, one in self._by_core.items() if one is not view}
        view.lose("it was closed")
        view.journal.close()
        shutil.rmtree(view.journal.path.parent)

    async def _close_view(self, message: Message[dict[str, Any]]) -> None:
        view = self._view(message.payload["view_id"])
        async with view.turn:
            core = await self.keeper.running()
            core.notify("close_view", {"view_id": view.core_id})
            self._forget(view)
            self.outbox.put(f"xi.{view.id}.update", view.announce())  # there are no lines to ask

    async def _save(self, message: Message[dict[str, Any]]) -> None:
        """XI's protocol has no errors for that, so the host looks at the file."""
        view = self._view(message.payload["view_id"])
        async with view.turn:
            core = await self.keeper.running()
            path = message.payload.get("file_path") or view.journal.base.file
            if path is None:
                raise NotSaved(f"{view.id} has no file yet: say file_path")
            own = str(Path(path).resolve()) == view.journal.base.file
            if own and not message.payload.get("overwrite"):
                await self._look_at_file(core, view, path)
            self._alerts.clear()
            core.notify("save", {"view_id": view.core_id, "file_path": path})
            confirming = {"view_id": view.core_id}
            text = await core.request("debug_get_contents", confirming, self.patience)
            if own:
                view.journal.base.stamp = stamp(path)
            try:
                saved = _read(path)
            except (OSError, UnicodeDecodeError) as error:
                raise NotSaved(f"{view.id} was not saved to {path}: {error}") from None
            if saved not in (text, text + "\n"):  # a core may end files with a line feed
                said = "; ".join(self._alerts) or core.stderr or "the core said nothing"
                raise NotSaved(f"{path} does not have what {view.id} has: {said}")
            view.saved(str(Path(path).resolve()), text)

    async def _look_at_file(self, core: CoreProcess, view: View, path: str) -> None:
        """Raises `FileChanged`, but not where it has the same text, as after the death of a host
        that was saving it."""
        if changed(path, view.journal.base.stamp):
            target = {"view_id": view.core_id}
            text = await core.request("debug_get_contents", target, self.patience)
            with contextlib.suppress(OSError, UnicodeDecodeError):
                if _read(path) in (text, text + "\n"):
                    return
            raise FileChanged(path)

    async def _pass(self, message: Message[Any]) -> Any:
        method, params = message.type.removeprefix("xi."), message.payload
        core = await self.keeper.running()
        if isinstance(params, dict) and "view_id" in params:
            params = params | {"view_id": self._view(params["view_id"]).core_id}
        if method in ANSWERED:
            return await core.request(method, params, self.patience)
        if method in KEPT:
            domain = params.get("domain") if isinstance(params, dict) else None
            self._preferences[f"{method} {domain}"] = method, params
        core.notify(method, params)
        return None

    async def _edit(self, message: Message[Edit]) -> Accepted:
        view = self._view(message.type.split(".")[1])
        view.came(message.payload.author, message.source)
        return await self.editing.do(view, message.payload)

    def _went(self, message: Message[dict[str, Any]]) -> None:
        for view in self.views.values():
            if view.went(message.payload["name"]):
                self._tell_carets(view)

    def _tell_carets(self, view: View) -> None:
        if not view.restoring:  # else they come with the rest
            self.outbox.put(f"xi.{view.id}.update", view.unchanged())

    async def _lines(self, message: Message[Any]) -> AsyncIterator[State | list[CachedLine | None]]:
        view = self._view(message.type.split(".")[1])
        await self.keeper.running()
        _ = view.core_id  # or there are no lines
        author = (message.payload or {}).get("from")
        if author is not None and view.came(author, message.source):
            self._tell_carets(view)
        cache = view.cache
        lines = list(cache.lines)
        yield State(
            run=self.id,
            seq=view.seq,
            pristine=cache.pristine,
            annotations=cache.annotations,
            carets=view.carets,
            styles=list(self._styles.values()),
        )
        chunk: list[CachedLine | None] = []
        size = 0
        for line in lines:
            chunk.append(line)
            size += 16 if line is None else 16 + len(line.text)
            if size > CHUNK:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _read(path: str) -> str:
    return Path(path).read_bytes().decode().replace("\r\n", "\n")
