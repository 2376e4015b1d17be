"""Mailboxes: what a subscription with ``overflow="drop_oldest"`` or ``"latest"`` may ask for, and
what the dispatcher has made for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ringbuf import RingbufError, Segment
from shmbus import errors
from shmbus.limits import MAILBOXES, MAX_DEPTH, OWN_MAILBOXES
from shmbus.shared import layout, patterns

if TYPE_CHECKING:
    from ringbuf._kernel import Mapping
    from shmbus.shared.names import BusNames

DEPTHS: dict[patterns.Overflow, int] = {"drop_oldest": 64, "latest": 256}
"""How many messages, or types, may wait unless a subscription says so."""


def check_overflow(overflow: patterns.Overflow, depth: int | None, *, group: str | None) -> int:
    """The depth of its mailbox; 0: it has none. Raises `InvalidSetting`."""
    if overflow not in tuple(patterns.OVERFLOWS):
        raise errors.InvalidSetting(
            setting="overflow",
            value=overflow,
            reason="there is no such policy",
            remedy=f"Give {' or '.join(map(repr, patterns.OVERFLOWS))}",
        )
    if overflow not in DEPTHS:
        if depth is not None:
            raise errors.InvalidSetting(
                setting="depth",
                value=depth,
                reason=f"with overflow={overflow!r} messages wait in the ring of the endpoint, "
                "which has a size in bytes",
                remedy="Leave it out and set attach(settings=Settings(in_bytes=...)), or give "
                "overflow='drop_oldest' or 'latest'",
            )
        return 0
    if group is not None:
        raise errors.InvalidSetting(
            setting="overflow",
            value=overflow,
            reason="a message for a group waits until a member is free, and is not written over",
            remedy="Leave out group=, or give overflow='block' or 'drop_newest'",
        )
    if depth is None:
        return DEPTHS[overflow]
    if isinstance(depth, bool) or not isinstance(depth, int):
        reason = f"it is of type {type(depth).__name__}"
    elif 1 <= depth <= MAX_DEPTH:
        return depth
    else:
        reason = f"it is not between 1 and {MAX_DEPTH}"
    what = "types" if overflow == "latest" else "messages"
    raise errors.InvalidSetting(
        setting="depth",
        value=depth,
        reason=reason,
        remedy=f"Give the number of {what} that may wait, or leave it out",
    )


def open_mailbox(bus: BusNames, slot: int, generation: int) -> Mapping | None:
    """The memory of this one; None: its name is gone."""
    try:
        return Segment.attach(
            bus.mailbox(slot, generation),
            kind=layout.SegmentKind.MAILBOX,
            layout=layout.LAYOUT,
        ).memory
    except RingbufError:
        return None


def none_left(endpoint: str, pattern: str) -> errors.TooManyMailboxes:
    """The error of an endpoint that has as many as it may."""
    return errors.TooManyMailboxes(
        endpoint=endpoint, pattern=pattern, limit=OWN_MAILBOXES, what="endpoint"
    )


def not_made(why: int, endpoint: str, pattern: str) -> errors.BusError:
    """The error where there is none: `NoMailbox`; 0: it cannot be mapped."""
    if why == layout.NoMailbox.TOO_MANY:
        return errors.TooManyMailboxes(
            endpoint=endpoint, pattern=pattern, limit=MAILBOXES, what="bus"
        )
    return errors.SegmentError(
        name=f"mailbox of {endpoint} for {pattern}",
        reason="not enough shared memory"
        if why == layout.NoMailbox.NO_MEMORY
        else "it cannot be opened",
        remedy="Set a smaller mailbox_bytes or depth, or free /dev/shm (shmbus doctor)"
        if why == layout.NoMailbox.NO_MEMORY
        else "See shmbus doctor",
    )
