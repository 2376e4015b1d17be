"""What a process gets from the bus: messages, and news of other endpoints."""

from __future__ import annotations

from enum import IntEnum
from typing import Any
from uuid import UUID

import msgspec

from . import errors
from ._kernel import Message

__all__ = ["Death", "Message", "Tap"]


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an endpoint, as far as it is known."""

    name: str
    pid: int | None
    """None where it was not attached in the first place."""
    reason: str
    """detached (in good order), killed, exited without detaching, exec, evicted, quarantined, died
    (more is not known), or absent."""


class Tap(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message that a tap saw."""

    kind: str
    """event, send, request, reply or error."""
    outcome: str
    """delivered, nobody (that was there for it), lost (where it was to go), or dropped (late,
    second or forged)."""
    target: str | None
    """The endpoint that it went to; an event to several is seen once for each."""
    sent_ns: int
    """When it was sent, by CLOCK_MONOTONIC."""
    forwarded_ns: int
    """When the dispatcher dealt with it."""


OUTCOMES = ("delivered", "nobody", "lost", "dropped")
"""By the number that stands in the copy."""

REASONS = (
    "alive",
    "detached",
    "killed",
    "exited without detaching",
    "exec",
    "evicted",
    "quarantined",
    "died",
)
"""By the number that stands in a slot's row."""


class _Fault(IntEnum):
    NO_ROUTE = 1
    ENDPOINT_DIED = 2
    REPLY_LOST = 3
    TOO_LARGE = 4
    COLLISION = 5
    REFUSED = 6
    EXPIRED = 8


HANDLER_FULL = 9
"""The one fault whose account needs a look at its endpoint."""


def fault(
    type: str, code: int, pid: int, limit: int, name: bytes, size: int, correlation: bytes
) -> errors.BusError:
    """The error that the dispatcher answered a request with."""
    endpoint = name.split(b"\0", 1)[0].decode("ascii", "replace")
    match code:
        case _Fault.NO_ROUTE:
            return errors.NoRoute(type=type)
        case _Fault.ENDPOINT_DIED:
            reason = REASONS[limit] if 0 < limit < len(REASONS) else "died"
            return errors.EndpointDied(type=type, endpoint=endpoint, pid=pid or None, reason=reason)
        case _Fault.TOO_LARGE:
            return errors.MessageTooLarge(type=type, size=size, limit=limit, endpoint=endpoint)
        case _Fault.COLLISION:
            return errors.CorrelationCollision(type=type, correlation_id=UUID(bytes=correlation))
        case _Fault.EXPIRED:
            return errors.ReplyLost(
                type=type, endpoint=endpoint, reason="its deadline had passed already"
            )
        case _Fault.REPLY_LOST:
            reason = f"{limit} bytes were free for it here" if limit else "it did not fit here"
        case _:
            reason = f"the bus answered with code {code}"
    return errors.ReplyLost(type=type, endpoint=endpoint, reason=reason)


_account: Any = msgspec.msgpack.Decoder(tuple[str, str, str]).decode


def remote(type: str, endpoint: str, raw: bytes) -> errors.RemoteError:
    """The error that a handler answered with."""
    try:
        error, message, traceback = _account(raw)
    except msgspec.MsgspecError as why:
        error, message, traceback = "?", f"(its account cannot be read: {why})", ""
    return errors.RemoteError(
        type=type, endpoint=endpoint, error=error, message=message, traceback=traceback
    )
