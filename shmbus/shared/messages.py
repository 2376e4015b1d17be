"""What a process gets from the bus: messages, and news of other endpoints."""

from __future__ import annotations

import msgspec

from .layout import Reason, words

_REASONS = words(Reason)


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an endpoint, as far as it is known."""

    name: str
    pid: int | None
    """None where it was not attached in the first place."""
    reason: str
    """detached (in good order), killed (by a signal), exited (without detaching), exec (the process
    runs another program), evicted (`Bus.evict`), quarantined (its rings held what no endpoint
    writes), died (more is not known), or absent (it was not attached in the first place)."""


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


def reason_word(reason: int) -> str:
    """How an endpoint ended, of the number that stands in its row; "died" where that says less."""
    return _REASONS.get(reason or Reason.DIED, "died")
