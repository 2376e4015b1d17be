"""Errors in records: what a requester gets instead of a reply."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from shmbus.errors import (
    BusError,
    CorrelationCollision,
    EndpointDied,
    Forbidden,
    HandlerTimeout,
    InvalidArguments,
    MessageTooLarge,
    NoRoute,
    QueueFull,
    RemoteError,
    ReplyLost,
    RequestTimeout,
)

from .layout import FaultCode


class Mismatch(TypeError):
    """Raised by the handler of a method whose arguments it cannot take: `InvalidArguments` to its
    caller."""


class RemoteFailure(msgspec.Struct, array_like=True, frozen=True):
    """An exception on its way to the requester."""

    error: str
    message: str
    traceback: str = ""
    passed: dict[str, Any] | None = None
    """The facts of an error of ours, `error`, which a request has ended with on another bus."""


class Passed(Exception):
    """Raised by a handler that asked another bus: its requester gets this error as it is, one of
    `PASSED`, of any other class a ``RemoteError``."""

    def __init__(self, error: BusError) -> None:
        super().__init__(str(error))
        self.error = error


PASSED: dict[str, type[BusError]] = {
    kind.__name__: kind
    for kind in (
        EndpointDied,
        Forbidden,
        HandlerTimeout,
        InvalidArguments,
        MessageTooLarge,
        NoRoute,
        QueueFull,
        RemoteError,
        ReplyLost,
        RequestTimeout,
    )
}
"""Errors that a handler may pass on, by name: those with which a request ends at its handler."""


def _name(kind: type[BaseException]) -> str:
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


_MISMATCH = _name(Mismatch)


def encode_failure(exception: BaseException, traceback: str = "", *, limit: int = 1 << 16) -> bytes:
    """The payload of an error record that a handler answers with, at most about ``limit`` bytes:
    a traceback is cut at its start."""
    if isinstance(exception, Passed):
        passed = exception.error
        if type(passed).__name__ in PASSED:
            return _encode_passed(passed, limit)
        exception, traceback = passed, ""
    error = _name(type(exception))
    try:
        message = str(exception)
    except Exception as why:  # a broken __str__ must not leave the requester without an answer
        message = f"<no message: its __str__ raised {type(why).__name__}>"
    message = _clean(message)[: max(limit // 8, 1)]  # a character takes at most four bytes
    traceback = _clean(traceback)
    space = max(limit // 4 - len(error) - len(message), 0)
    if len(traceback) > space:
        traceback = traceback[len(traceback) - space :]
    return msgspec.msgpack.encode(RemoteFailure(error, message, traceback))


def _encode_passed(error: BusError, limit: int) -> bytes:
    """Its longest texts are cut: of a traceback the beginning, of others the end."""
    facts = error.data
    for name, value in facts.items():
        if isinstance(value, str):
            text, most = _clean(value), max(limit // 16, 1)
            facts[name] = text[-most:] if name == "traceback" else text[:most]
    return msgspec.msgpack.encode(RemoteFailure(type(error).__name__, "", "", facts))


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def from_code(
    code: int,
    *,
    type: str,
    endpoint: str = "?",
    pid: int | None = None,
    reason: str = "",
    begun: bool = True,
    size: int = 0,
    limit: int = 0,
    correlation_id: UUID | None = None,
) -> BusError:
    """The error that the dispatcher answered with; also for a code that it never sends."""
    match code:
        case FaultCode.NO_ROUTE:
            return NoRoute(type=type)
        case FaultCode.ENDPOINT_DIED:
            return EndpointDied(
                type=type, endpoint=endpoint, pid=pid, reason=reason or "died", begun=begun
            )
        case FaultCode.FORBIDDEN:
            return Forbidden(type=type, endpoint=endpoint, right="request")
        case FaultCode.HANDLER_TIMEOUT:
            return HandlerTimeout(type=type, endpoint=endpoint, pid=pid, seconds=limit / 1e9)
        case FaultCode.REPLY_LOST:
            most = f" (at most {limit} bytes do)" if limit else ""
            why = f"it did not fit{most}, or this endpoint was too slow"
            return ReplyLost(type=type, endpoint=endpoint, reason=reason or why)
        case FaultCode.TOO_LARGE:
            return MessageTooLarge(
                type=type, size=size, limit=limit, endpoint=endpoint, setting="in_bytes"
            )
        case FaultCode.COLLISION:
            return CorrelationCollision(type=type, correlation_id=correlation_id)
        case _:
            return RemoteError(
                type=type, endpoint=endpoint, error="an error", message=f"unknown error code {code}"
            )


def _passed(name: str, facts: dict[str, Any]) -> BusError | None:
    """None: it is no such error."""
    kind = PASSED.get(name)
    try:
        return None if kind is None else msgspec.convert(facts, kind)
    except Exception:  # garbage
        return None


def remote_error(type: str, endpoint: str, payload: bytes) -> BusError:
    """The error that a handler raised, or passed on, from what `encode_failure` made there; also
    from garbage."""
    try:
        failure = msgspec.msgpack.decode(payload, type=RemoteFailure)
    except Exception:  # garbage
        failure = RemoteFailure("an exception", f"{len(payload)} bytes that are no error message")
    if failure.passed is not None:
        found = _passed(failure.error, failure.passed | {"type": type})
        return found or RemoteError(
            type=type, endpoint=endpoint, error="an error", message=f"garbage of {failure.error!r}"
        )
    if failure.error == _MISMATCH:  # whoever asked is at fault, not the code there
        return InvalidArguments(
            type=type, endpoint=endpoint, error=failure.error, message=failure.message
        )
    return RemoteError(
        type=type,
        endpoint=endpoint,
        error=failure.error,
        message=failure.message,
        traceback=failure.traceback,
    )
