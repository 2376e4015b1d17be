"""Errors that travel: what an error record carries instead of a reply."""

from __future__ import annotations

from enum import IntEnum
from uuid import UUID

import msgspec

from shmbus.errors import (
    BusError,
    CorrelationCollision,
    EndpointDied,
    MessageTooLarge,
    NoRoute,
    RemoteError,
    ReplyLost,
    RequestTimeout,
)


class ErrorCode(IntEnum):
    """Why a request ends with an error record. The numbers are part of the layout."""

    NO_ROUTE = 1
    ENDPOINT_DIED = 2
    REPLY_LOST = 3
    TOO_LARGE = 4
    COLLISION = 5
    REFUSED = 6  # the handler has been evicted or quarantined
    REMOTE = 7  # the handler raised: the payload is a RemoteFailure
    EXPIRED = 8  # its deadline was over before the handler began
    HANDLER_FULL = 9  # a QueueFull, which its requester works out: `shmbus.trouble`


class RemoteFailure(msgspec.Struct, array_like=True, frozen=True):
    """An exception on its way to the requester."""

    error: str
    message: str
    traceback: str = ""


def encode_failure(exception: BaseException, traceback: str = "", *, limit: int = 1 << 16) -> bytes:
    """The payload of a ``REMOTE`` error record, at most about ``limit`` bytes: a traceback is cut
    at its start."""
    kind = type(exception)
    error = (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        message = str(exception)
    except Exception as why:  # a broken __str__ must not leave the requester without an answer
        message = f"<no message: its __str__ raised {type(why).__name__}>"
    message = _clean(message)[: max(limit // 8, 1)]  # a character takes at most four bytes
    traceback = _clean(traceback)
    room = max(limit // 4 - len(error) - len(message), 0)
    if len(traceback) > room:
        traceback = traceback[len(traceback) - room :]
    return msgspec.msgpack.encode(RemoteFailure(error, message, traceback))


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def from_code(
    code: int,
    *,
    type: str,
    endpoint: str = "?",
    pid: int | None = None,
    reason: str = "",
    size: int = 0,
    limit: int = 0,
    seconds: float = 0.0,
    correlation_id: UUID | None = None,
    payload: bytes | memoryview = b"",
) -> BusError:
    """The error that an error record stands for. What another process wrote may be garbage: it
    never raises."""
    match code:
        case ErrorCode.NO_ROUTE:
            return NoRoute(type=type)
        case ErrorCode.ENDPOINT_DIED:
            return EndpointDied(type=type, endpoint=endpoint, pid=pid, reason=reason or "died")
        case ErrorCode.REFUSED:
            return EndpointDied(
                type=type, endpoint=endpoint, pid=pid, reason=reason or "taken off the bus"
            )
        case ErrorCode.REPLY_LOST:
            most = f" (at most {limit} bytes do)" if limit else ""
            why = f"it did not fit{most}, or this endpoint was too slow"
            return ReplyLost(type=type, endpoint=endpoint, reason=reason or why)
        case ErrorCode.TOO_LARGE:
            return MessageTooLarge(type=type, size=size, limit=limit, endpoint=endpoint)
        case ErrorCode.COLLISION:
            return CorrelationCollision(type=type, correlation_id=correlation_id)
        case ErrorCode.EXPIRED:
            return RequestTimeout(
                type=type,
                seconds=seconds,
                endpoint=None if endpoint == "?" else endpoint,
                hint=reason or "its time was over before the handler began",
            )
        case ErrorCode.REMOTE:
            try:
                failure = msgspec.msgpack.decode(payload, type=RemoteFailure)
            except Exception:  # garbage
                failure = RemoteFailure(
                    "an exception", f"{len(payload)} bytes that are no error message"
                )
            return RemoteError(
                type=type,
                endpoint=endpoint,
                error=failure.error,
                message=failure.message,
                traceback=failure.traceback,
            )
        case _:
            return RemoteError(
                type=type, endpoint=endpoint, error="an error", message=f"unknown error code {code}"
            )
