"""What the native half of an endpoint needs from the Python half: declared here, handed to it when
it is made (`Endpoint._seated`).

The calls are made with no native lock held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from shmbus import errors

if TYPE_CHECKING:
    from ringbuf._kernel import Mapping
    from shmbus.shared.grants import Right

    from ._kernel import Callbacks, Late, Message, PatternTable


class BadRing(NamedTuple):
    """A ring that holds what no dispatcher writes."""

    name: str
    position: int


class Fault(NamedTuple):
    """What the dispatcher answered to a request instead of a handler."""

    type: str
    endpoint: str
    """The endpoint that it is about; empty where there is none."""
    size: int
    """Bytes of the request's payload."""
    code: int = 0
    """`FaultCode`."""
    pid: int = 0
    number: int = 0
    """A limit, or the reason of a death."""
    correlation_id: bytes = b""


class Full(NamedTuple):
    """This endpoint's own ring, or its pool, which stayed full."""

    type: str
    """Of what was to be sent."""
    depth: int
    """Bytes in it; of the pool: in use."""
    capacity: int
    seconds: float
    setting: str
    """Its size."""
    number: int | None
    """Which message of a batch."""
    lent: int = 0
    """Of the pool: bytes that this endpoint itself fills, has lent, or still looks at."""
    payloads: int = 0
    """Of the pool: how many it has, where it can have no more; else 0."""
    largest: int = 0
    """Of the pool: bytes of its largest free piece."""


class Unanswered(NamedTuple):
    """A request whose time is over."""

    type: str
    seconds: float
    inherited: str | None
    """Whose deadline it was, as in `RequestTimeout`."""
    endpoint: str
    """Whom the dispatcher chose; empty: nobody, or it has gone."""
    generation: int
    waits: bool
    """It waits in a backlog, since nobody who handles it is free."""
    ours: bool
    """This endpoint handles it itself, and no thread of it is free to do so."""
    down: bool
    """The bus has no dispatcher."""
    correlation_id: bytes
    parts: int
    """Of a reply in parts: how many have come."""


class Upcalls(NamedTuple):
    """What the C kernel calls."""

    patterns: PatternTable
    """What the endpoint wants, by pattern."""
    late: dict[int, Late]
    """Its interests with history, by id."""
    callbacks: Callable[[tuple[int, ...]], Callbacks]
    """What to call for messages of a type, given what `patterns` finds for it. The answer
    is kept until an interest changes."""
    groups: Callable[[int], tuple[str, ...]]
    """The names of the groups with these bits."""
    explain_trouble: Callable[[int, BadRing | None], errors.BusError]
    """The error for what keeps calls from proceeding (bits of `Trouble`)."""
    explain_full: Callable[[Full], errors.QueueFull]
    """The error where its own ring stayed full."""
    explain_silence: Callable[[float, str], errors.BusError]
    """The error where the dispatcher has not taken its eventfd for so many seconds, and what it
    answered to that."""
    open_mailbox: Callable[[int, int], Mapping | None]
    """Map the mailbox of this slot and generation, if it is there."""
    explain_shortage: Callable[[int], errors.BusError]
    """The error where the system has no memory for its pool, by error number."""
    explain_unmapped: Callable[[int, str, str | None], errors.BusError]
    """The error where a pool cannot be mapped, by error number: of a message of this type, from
    this endpoint, which is not taken."""
    look_at_grant: Callable[[Right, str, int | None], None]
    """Raise the error where the endpoint lacks this right for this type, which was sent; with its
    number in a batch. Not to be called where it has no grant."""
    granted: bool
    """It has a grant."""
    explain_fault: Callable[[Fault], errors.BusError]
    """The error for what came instead of a reply."""
    explain_timeout: Callable[[Unanswered], errors.RequestTimeout]
    """The error for a reply that did not come in time."""
    find_holder: Callable[[str, int, bytes], tuple[int | None, bool | None]]
    """The pid of the endpoint of this name and generation, to which the request with this
    correlation id was given, and whether it has begun that; None: it is not there any more."""
    postpone: Callable[[Message, int, str, int], None]
    """Give a message back later: for which interests, why, and when by the monotonic clock."""
