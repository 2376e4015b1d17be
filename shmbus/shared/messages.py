"""What a process gets from the bus: messages, and news of other endpoints."""

from __future__ import annotations

import msgspec


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
