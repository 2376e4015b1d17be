"""A front-end without a process: the stand-in core is called, and what it says is taken here."""

from __future__ import annotations

from typing import Any

from xi_bridge.core.core import Core
from xi_bridge.lines import LineCache
from xi_bridge.rpc import Peer, RpcError


class Front:
    """Has one view, of which it keeps the lines. `told` is everything that the core notified."""

    def __init__(self, file_path: str | None = None) -> None:
        self.log: list[str] = []
        self.told: list[tuple[str, Any]] = []
        self.cache = LineCache()
        self.width = 8.0
        self.core = Core(lambda line: self.peer.receive(line), self.log.append)
        self.peer = Peer(self.core.receive, self._notified, self._requested)
        self.peer.notify("client_started", {})
        self.view = self.ask("new_view", {} if file_path is None else {"file_path": file_path})

    def ask(self, method: str, params: Any) -> Any:
        """The result of a request. Raises what the core answers as an error."""
        got: list[tuple[Any, RpcError | None]] = []
        self.peer.request(method, params, lambda *answer: got.append(answer))
        ((result, error),) = got
        if error is not None:
            raise error
        return result

    def edit(self, method: str, params: Any = None) -> None:
        self.peer.notify("edit", {"view_id": self.view, "method": method, "params": params})

    def edit_request(self, method: str) -> Any:
        return self.ask("edit", {"view_id": self.view, "method": method, "params": []})

    def type(self, text: str) -> None:
        self.edit("insert", {"chars": text})

    def select(
        self, line: int, col: int, *, multi: bool = False, granularity: str = "point"
    ) -> None:
        kind = {"select": {"granularity": granularity, "multi": multi}}
        self.edit("gesture", {"line": line, "col": col, "ty": kind})

    def extend(self, line: int, col: int) -> None:
        kind = {"select_extend": {"granularity": "point"}}
        self.edit("gesture", {"line": line, "col": col, "ty": kind})

    @property
    def contents(self) -> str:
        return str(self.ask("debug_get_contents", {"view_id": self.view}))

    def heard(self, method: str) -> list[Any]:
        return [params for name, params in self.told if name == method]

    def is_pristine(self) -> bool:
        return self.cache.pristine

    @property
    def styles(self) -> list[tuple[int, ...]]:
        return [line.styles for line in self.cache.lines if line is not None]

    @property
    def selected(self) -> list[list[int]]:
        """What is selected, as the last update has it: lines and bytes of begin and end."""
        ranges: list[list[int]] = self.cache.annotations[0]["ranges"]
        return ranges

    def _notified(self, method: str, params: Any) -> None:
        self.told.append((method, params))
        if method == "update":
            self.cache.apply(params["update"])

    def _requested(self, number: int, method: str, params: Any) -> None:
        if method != "measure_width" or not self.width:
            raise RpcError(1, "no window")
        widths = [[self.width * len(text) for text in of["strings"]] for of in params]
        self.peer.answer(number, widths)
