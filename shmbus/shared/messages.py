"""What users get beside a message: how an endpoint ended, what became of a tapped message."""

from __future__ import annotations

import msgspec

from .layout import Reason, words

_REASONS = words(Reason)


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """The end of an endpoint, as far as it is known."""

    name: str
    """The endpoint's."""
    pid: int | None
    """Its process; None where it was not attached in the first place."""
    reason: str
    """detached (in good order), killed (by a signal), exited (without detaching), exec (the process
    runs another program), evicted (`Bus.evict`), quarantined (its rings held what no endpoint
    writes), died (for an unknown reason), or absent (it was not attached in the first place)."""


class Tap(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message of which a tap got a copy."""

    kind: str
    """event, send, request, reply or error."""
    outcome: str
    """delivered, nobody (no receiver matched), lost (the receiver's ring was full),
    dropped (a late, second or forged reply), or forbidden (its sender may not send it)."""
    target: str | None
    """The endpoint that it went to; an event to several is seen once for each."""
    sent_ns: int
    """When it was sent, by CLOCK_MONOTONIC."""
    forwarded_ns: int
    """When the dispatcher forwarded or dropped it."""


def reason_word(reason: int) -> str:
    """How an endpoint ended, from the number in its row; "died" where that is unknown."""
    return _REASONS.get(reason or Reason.DIED, "died")
