"""A front-end without a bus: it has a core of its own, and one view of it.

It is what :class:`~xi_bridge.front_end.FrontEnd` is on a bus, without anybody to share the view
with, and without what outlives a death.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from .core import COMMAND
from .core_process import CoreProcess
from .errors import CoreDown, FileChanged
from .journal import InnerEdit
from .lines import LineCache
from .positions import Position
from .rpc import Malformed, RpcError
from .stamp import changed, stamp

PATIENCE = 5.0
"""Seconds in which the core is to answer."""
LOOK = 2.0
"""Seconds in which a core that is well says so."""
ALL = 1 << 30
"""More lines than any file has."""


class Direct:
    """A file in a core of its own; use it in `async with`."""

    def __init__(self, path: str | None = None, command: Sequence[str] = COMMAND) -> None:
        self.path = path
        self.author = ""
        self.view = ""
        self.cache = LineCache()
        self.carets: dict[str, list[Position]] = {}
        self.styles: list[Any] = []
        self.on_change: Callable[[], object] = lambda: None
        """Called after each update."""
        self.pending: list[InnerEdit] = []  # a pipe takes what is typed at once
        self.dropped = 0
        self.alerts: list[str] = []
        self.width: Callable[[str], float] = len
        """How wide a text is shown, which the core may ask."""
        self._command = command

    async def __aenter__(self) -> Self:
        self._core = await CoreProcess.start(self._command, self)
        self._core.notify("client_started", {})
        self._stamp = None if self.path is None else stamp(self.path)
        file = {} if self.path is None else {"file_path": self.path}
        try:
            self.view = await self._core.request("new_view", file, PATIENCE)
        except BaseException:
            await self._core.close()
            raise
        self.press("scroll", [0, ALL])
        await self.flush()
        return self

    @property
    def stderr(self) -> str:
        """What the core said last on standard error."""
        return self._core.stderr

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when the core has ended, with the reason."""
        return self._core.ended

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._core.close()

    def press(self, method: str, params: Any = None) -> None:
        """Do an edit that has no answer."""
        self._core.notify("edit", self._edit(method, params))

    async def flush(self) -> None:
        """Wait until the core has done what it was told."""
        await self._core.request("get_config", {"view_id": self.view}, PATIENCE)

    async def look(self) -> str:
        """How the core is, in a few words."""
        try:
            async with asyncio.timeout(LOOK):
                await self.flush()
        except TimeoutError:
            return "core does not answer"
        except CoreDown:
            return "core down"
        return "core up"

    async def click(self, line: int, column: int) -> None:
        to = {"select": {"granularity": "point", "multi": False}}
        self.press("gesture", {"line": line, "col": column, "ty": to})

    async def do(self, method: str, params: Any = None) -> Any:
        """Do an edit that has an answer, such as `copy`."""
        return await self._core.request("edit", self._edit(method, params), PATIENCE)

    async def save(self, path: str | None = None, *, overwrite: bool = False) -> None:
        """Raises `OSError` where it could not be saved, with what the core said, and `FileChanged`
        where another program has changed it since, unless it is to be overwritten."""
        own = self.path if path in (None, self.path) else None
        if own is not None and not overwrite and changed(own, self._stamp):
            raise FileChanged(own)
        self.alerts.clear()
        self._core.notify("save", {"view_id": self.view, "file_path": path or self.path})
        await self.flush()
        if own is not None:
            self._stamp = stamp(own)
        if self.alerts:
            raise OSError(self.alerts[0])

    def _edit(self, method: str, params: Any) -> dict[str, Any]:
        return {"view_id": self.view, "method": method, "params": {} if params is None else params}

    # What the core says --------------------------------------------------------------------------

    def notified(self, core: CoreProcess, method: str, params: Any) -> None:
        if method == "update":
            self.cache.apply(params["update"])
            carets = [Position(*caret) for _, caret in self.cache.selections]
            self.carets = {self.author: carets}
            self.on_change()
        elif method == "def_style":
            self.styles.append(params)
        elif method == "alert":
            self.alerts.append(params["msg"])

    def requested(self, core: CoreProcess, id: int, method: str, params: Any) -> None:
        if method != "measure_width":
            raise RpcError(-32601, f"no front-end answers {method!r}")
        core.peer.answer(id, [[self.width(text) for text in of["strings"]] for of in params])

    def malformed(self, core: CoreProcess, error: Malformed) -> None:
        core.kill(f"malformed line: {error}")
