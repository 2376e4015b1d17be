"""JSON-RPC as XI's core and front-ends speak it: one JSON object a line, calls in both directions.

It is JSON-RPC 2 without the member `jsonrpc`, without batches, and without a server: either side
notifies the other and asks it. A :class:`Peer` is one end of the conversation. It reads and writes
nothing itself, so that it serves threads, event loops and tests alike: whoever has it passes in the
lines that come, and gives it a function that takes the lines that go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603


class Malformed(ValueError):
    """A line that is no message: not JSON, no object, or an object that means nothing here."""

    def __init__(self, line: bytes, reason: str) -> None:
        super().__init__(f"{reason}: {line[:200].decode(errors='backslashreplace').rstrip()}")
        self.line = line
        self.reason = reason


class RpcError(Exception):
    """The other side could not do what it was asked, or has ended before it answered."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message if data is None else f"{message}: {data}")
        self.code = code
        self.message = message
        self.data = data


class _Message(msgspec.Struct):
    """Every message that there is; which one it is shows in what is set."""

    id: int | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Any = UNSET
    result: Any = UNSET
    error: Any = UNSET


class _Error(msgspec.Struct, omit_defaults=True):
    code: int
    message: str
    data: Any = None


_decode = msgspec.json.Decoder(_Message).decode
_encode = msgspec.json.Encoder().encode

Answered = Callable[[Any, RpcError | None], object]
"""Called with the result of a request, or with None and what was wrong."""


class Peer:
    """One end of the conversation.

    `write` takes a line, with the line feed at its end. `notified` is called with method and
    parameters. `requested` is called with id, method and parameters: it calls `answer` or
    `refuse`, at once or later, or raises :class:`RpcError`.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        notified: Callable[[str, Any], object],
        requested: Callable[[int, str, Any], object],
    ) -> None:
        self._write = write
        self._notified = notified
        self._requested = requested
        self._next = 0
        self._open: dict[int, tuple[str, Answered]] = {}
        self._ended: RpcError | None = None

    def notify(self, method: str, params: object) -> None:
        """Tell the other side; nobody answers."""
        self._send(_Message(method=method, params=params))

    def request(self, method: str, params: object, answered: Answered) -> int:
        """Ask the other side, and return the number of the request. `answered` is called once."""
        number = self._next
        self._next += 1
        if self._ended is not None:
            answered(None, self._ended)
        else:
            self._open[number] = method, answered
            self._send(_Message(id=number, method=method, params=params))
        return number

    def answer(self, number: int, result: object) -> None:
        self._send(_Message(id=number, result=result))

    def refuse(self, number: int, error: RpcError) -> None:
        self._send(_Message(id=number, error=_Error(error.code, error.message, error.data)))

    def receive(self, line: bytes) -> None:
        """Take a line of the other side's. Raises :class:`Malformed`, and then nothing was done."""
        try:
            message = _decode(line)
        except msgspec.MsgspecError as error:
            raise Malformed(line, str(error)) from None
        except UnicodeDecodeError:
            raise Malformed(line, "this is not UTF-8") from None
        params = None if message.params is UNSET else message.params
        if message.method is UNSET:
            self._take_answer(line, message)
        elif message.id is UNSET:
            self._notified(message.method, params)
        else:
            try:
                self._requested(message.id, message.method, params)
            except RpcError as error:
                self.refuse(message.id, error)

    def close(self, error: RpcError) -> None:
        """The other side has ended: what is open ends with this error, and so does what follows."""
        self._ended = error
        open_, self._open = self._open, {}
        for _, answered in open_.values():
            answered(None, error)

    def forget(self, number: int) -> None:
        """Nobody waits for that request any more; an answer that still comes is passed over."""
        if number in self._open:
            self._open[number] = self._open[number][0], lambda result, error: None

    @property
    def open(self) -> dict[int, str]:
        """The methods of the requests that are not answered yet, by number, oldest first."""
        return {number: method for number, (method, _) in self._open.items()}

    def _take_answer(self, line: bytes, message: _Message) -> None:
        if message.id is UNSET:
            raise Malformed(line, "neither a method nor an id")
        if (message.result is UNSET) == (message.error is UNSET):
            raise Malformed(line, "an answer has either a result or an error")
        error = None if message.error is UNSET else _error_of(message.error)
        try:
            _, answered = self._open.pop(message.id)
        except KeyError:
            raise Malformed(line, f"no request {message.id} is open") from None
        answered(None if error else message.result, error)

    def _send(self, message: _Message) -> None:
        self._write(_encode(message) + b"\n")


def _error_of(value: object) -> RpcError:
    """What was sent as an error, which need not be the object that it should be."""
    try:
        error = msgspec.convert(value, _Error)
    except msgspec.ValidationError:
        return RpcError(INTERNAL_ERROR, str(value))
    return RpcError(error.code, error.message, error.data)
