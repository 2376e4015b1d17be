"""A front-end: it follows a view and types into it.

What is typed goes to the host in numbered edits, one request after the other; what is typed while
one is under way goes with the next. Where the host or the core dies, the same edit is sent again
under the same number, so it is done once.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from types import TracebackType
from typing import Any, Self

from msgspec import convert

import shmbus.aio
from shmbus import BusDown, BusError, EndpointDied, NoRoute, RemoteError, RequestTimeout

from .errors import CORE_DOWN, OutOfOrder
from .follower import Follower
from .journal import InnerEdit
from .messages import Accepted, Edit

PATIENCE = 30.0
"""Seconds for which an edit is sent again."""
ANSWER = 6.0
"""Seconds until an edit that nobody answers is sent again."""
LOOK = 2.0
"""Seconds in which a core that is well says so."""
NO_ANSWER = "core does not answer"
AT_ONCE = 16
"""Keys in one edit."""


class FrontEnd(Follower):
    """A view that is typed into; use it in `async with`."""

    def __init__(self, ep: shmbus.aio.Endpoint, view: str, *, patience: float = PATIENCE) -> None:
        super().__init__(ep, view)
        self.author = f"{ep.name}-{secrets.token_hex(2)}"
        self.patience = patience
        self.retries = 0
        """How often an edit was sent again."""
        self._n = 0
        self._open: Edit | None = None
        """Sent, and nobody knows yet whether it was accepted: it goes before all others."""
        self._typed: deque[InnerEdit] = deque()
        self._batch: list[InnerEdit] = []
        """Of what was typed, what goes with the next edit."""
        self.dropped = 0
        """Keys that were given up."""
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed: BaseException | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._sending = asyncio.create_task(self._send_typed())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sending.cancel()
        with contextlib.suppress(asyncio.CancelledError, BusError):
            await self._sending
        await super().__aexit__(kind, error, trace)

    @property
    def pending(self) -> list[InnerEdit]:
        """What nobody has accepted yet."""
        sent = [] if self._open is None or self._open.edits is self._batch else self._open.edits
        return [*sent, *self._batch, *self._typed]

    def type(self, text: str) -> None:
        """Press a key for each character."""
        for key in text:
            if key == "\n":
                self.press("insert_newline")
            else:
                self.press("insert", {"chars": key})

    def press(self, method: str, params: Any = None) -> None:
        """Do an edit that has no answer. Returns at once; :meth:`flush` says how it went."""
        self._typed.append(InnerEdit(method, params))
        self._idle.clear()
        self._more.set()

    async def flush(self) -> None:
        """Wait until all that was typed is accepted. Raises what went wrong; then what was not
        sent by then is given up. What was sent may be done still: it is sent again before the next
        edit."""
        await self._idle.wait()
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    async def click(self, line: int, column: int) -> None:
        """Go to a place in the lines as they are here. Raises `RemoteError` where the host is
        another one since, or has gone on too far: look again."""
        to = {"select": {"granularity": "point", "multi": False}}
        await self.do("gesture", {"line": line, "col": column, "ty": to})

    async def do(self, method: str, params: Any = None) -> Any:
        """Do one edit, behind what was typed, and return its answer. Where it is cancelled, the
        edit may be done still."""
        state = self.seq, self.run
        await self.flush()
        return (await self._send([InnerEdit(method, params)], *state)).result

    async def look(self) -> str:
        """How the core is, in a few words."""
        try:
            await self.ep.request("xi.get_config", {"view_id": self.view}, timeout=LOOK)
        except (NoRoute, EndpointDied, BusDown):
            return "no host"
        except RequestTimeout:
            return NO_ANSWER
        except RemoteError as error:
            return "core down" if error.error == CORE_DOWN else "view closed"
        return "core up"

    async def save(
        self, path: str | None = None, *, overwrite: bool = False, timeout: float = 30.0
    ) -> None:
        """Save the view. Raises `RemoteError` where the file has something else then, and where
        another program has changed it since, unless it is to be overwritten."""
        await self.flush()
        params: dict[str, Any] = {"view_id": self.view, "overwrite": overwrite}
        params |= {} if path is None else {"file_path": path}
        await self.ep.request("xi.save", params, timeout=timeout)

    async def _send_typed(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._typed:
                count = min(len(self._typed), AT_ONCE)
                edits = self._batch = [self._typed.popleft() for _ in range(count)]
                try:
                    await self._send(edits)
                except Exception as error:  # `flush` raises it
                    self._failed = error
                    again = self._open is not None and self._open.edits is edits
                    self.dropped += len(self._typed) + (0 if again else count)
                    self._typed.clear()
                self._batch = []
            self._idle.set()

    async def _send(
        self, edits: list[InnerEdit], seq: int | None = None, run: str = ""
    ) -> Accepted:
        async with self._turn:
            if self._open is not None:
                with contextlib.suppress(RemoteError):  # it was not done
                    await self._settle(self._open)
            self._open = Edit(self.author, self._n + 1, edits, seq, run)
            return await self._settle(self._open, first=True)

    async def _settle(self, edit: Edit, first: bool = False) -> Accepted:
        """Send it until it is accepted or refused."""
        deadline = asyncio.get_running_loop().time() + self.patience
        pause = 0.01
        while True:
            try:
                reply = await self.ep.request(f"xi.{self.view}.edit", edit, timeout=ANSWER)
            except (NoRoute, EndpointDied, BusDown, RequestTimeout, RemoteError) as error:
                if isinstance(error, RemoteError) and error.error != CORE_DOWN:
                    self._open = None
                    raise
                if asyncio.get_running_loop().time() > deadline:
                    raise
            except BusError:  # it did not go
                self._open = None if first else edit
                raise
            else:
                self._open = None
                accepted = convert(reply.payload, Accepted)
                self._n = accepted.n
                if accepted.again and first:
                    raise OutOfOrder(f"number {edit.n} of {self.author!r} was another edit's")
                return accepted
            first = False
            self.retries += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)


async def open_view(ep: shmbus.aio.Endpoint, path: str | None, *, timeout: float = 30.0) -> str:
    """The view of that file, which is the same for all who open it."""
    retry = shmbus.Retry(attempts=100, on=(NoRoute, EndpointDied, BusDown), backoff=0.02)
    params = {} if path is None else {"file_path": path}
    reply = await ep.request("xi.new_view", params, timeout=timeout, retry=retry)
    return str(reply.payload)
