"""One life of a core: a subprocess that speaks JSON-RPC on its standard streams."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, cast

from .errors import CoreDown, CoreRefused
from .rpc import Malformed, Peer, RpcError

STDERR_KEPT = 4096
"""Bytes of what it said last on standard error."""
LINE_LIMIT = 64 << 20
"""Bytes of a line; the core's lines carry whole files."""
LAST_WORDS = 0.2
"""Seconds in which what an ended core has written is read, where somebody else holds its pipes."""

OTHERS = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP}
"""Exit statuses of a core that somebody else ended."""

Answered = Callable[[Any, Exception | None], object]


class Owner(Protocol):
    """Who gets what a core says."""

    def notified(self, core: CoreProcess, method: str, params: Any) -> None: ...
    def requested(self, core: CoreProcess, id: int, method: str, params: Any) -> None: ...
    def malformed(self, core: CoreProcess, error: Malformed) -> None: ...


class CoreProcess(asyncio.SubprocessProtocol):
    """Made by :meth:`start`; `ended` is done when it has ended, with the reason."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self.peer = Peer(
            self._write,
            lambda method, params: owner.notified(self, method, params),
            lambda id, method, params: owner.requested(self, id, method, params),
        )
        self._line = bytearray()
        self._stderr = bytearray()
        self._why = ""
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, command: Sequence[str], owner: Owner) -> Self:
        """Raises `OSError` where there is no such program. It has a session of its own, so Ctrl-C
        does not reach it; it ends with its standard input."""
        transport, core = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(owner), *command, start_new_session=True
        )
        core._transport = transport
        core._stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        return core

    _transport: asyncio.SubprocessTransport
    _stdin: asyncio.WriteTransport

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    @property
    def exit(self) -> int | None:
        """Its exit status; negative, the signal that killed it."""
        return self._transport.get_returncode()

    @property
    def by_itself(self) -> bool:
        """Whether it ended by what it did, or hung: not by a signal that somebody else sent."""
        return self._why != "" or self.exit not in OTHERS

    @property
    def stderr(self) -> str:
        """What it said last on standard error."""
        return self._stderr.decode(errors="replace").strip()

    def notify(self, method: str, params: object) -> None:
        self.peer.notify(method, params)

    def ask(self, method: str, params: object, patience: float, answered: Answered) -> None:
        """Call `answered` with its answer, before anything is looked at that it said afterwards. A
        core that does not answer within `patience` seconds, from its answer to what it was asked
        before, hangs, and is killed.

        The error is :class:`CoreRefused` or :class:`CoreDown`."""

        def told(result: Any, error: RpcError | None) -> None:
            self._time(patience)
            if error is None:
                answered(result, None)
            elif self.ended.done():
                answered(None, CoreDown(self.ended.result()))
            else:
                answered(None, CoreRefused(method, error.code, str(error)))

        self.peer.request(method, params, told)
        if self._timer is None:
            self._time(patience)

    def _time(self, patience: float) -> None:
        """Wait from now for the answer that comes next, if there is one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for method in self.peer.open.values():
            hung = f"it hung: no answer to {method!r} within {patience:g} s"
            self._timer = self._loop.call_later(patience, self.kill, hung)
            return

    async def request(self, method: str, params: object, patience: float) -> Any:
        """Its answer. Raises what :meth:`ask` has as errors, with what the core said beside."""
        answer: asyncio.Future[Any] = self._loop.create_future()

        def answered(result: Any, error: Exception | None) -> None:
            if answer.done():
                return  # whoever asked was cancelled
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        self.ask(method, params, patience, answered)
        try:
            return await answer
        except CoreRefused as error:
            await asyncio.sleep(0)  # standard error is another pipe, and is read now
            error.said(self.stderr)
            raise

    def kill(self, why: str) -> None:
        """End it at once."""
        if not self.ended.done():
            self._why = self._why or why
            self._transport.kill()

    async def close(self, patience: float = 1.0) -> None:
        """Let it end by itself, at the end of its input; kill it after `patience` seconds."""
        self._stdin.close()
        timer = self._loop.call_later(patience, self.kill, "it did not end with its input")
        try:
            await asyncio.shield(self.ended)
        finally:
            timer.cancel()
            self._transport.close()  # ends it, where this was cancelled; closes what is open of it

    def _write(self, line: bytes) -> None:
        if not self._stdin.is_closing():
            self._stdin.write(line)

    # What asyncio calls --------------------------------------------------------------------------

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._stderr += data
            del self._stderr[:-STDERR_KEPT]
            return
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        self._line += rest
        for line in lines:
            self._receive(line)
        if len(self._line) > LINE_LIMIT:
            self.kill(f"it wrote a line of more than {LINE_LIMIT} bytes")
            self._line.clear()

    def _receive(self, line: bytes) -> None:
        try:
            self.peer.receive(line)
        except Malformed as error:
            self._owner.malformed(self, error)
        except Exception as error:  # whatever it makes of a line, it gets those behind it
            reason = f"{type(error).__name__}: {error}"
            self._owner.malformed(self, Malformed(line, reason))

    def process_exited(self) -> None:
        self._loop.call_later(LAST_WORDS, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self.ended.done():
            return
        status = self.exit
        if status is not None and status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        else:
            how = f"ended with exit status {status}"
        why = f": {self._why}" if self._why else ""
        said = f". It said on standard error: {self.stderr}" if self.stderr else ""
        reason = f"the core (process {self.pid}) {how}{why}{said}"
        self.ended.set_result(reason)
        self.peer.close(RpcError(-32000, reason))
        self._transport.close()
