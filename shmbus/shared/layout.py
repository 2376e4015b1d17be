"""The layout of shared memory as numpy sees it: the structures of native/layout.h, word for word.

Observers read a bus through these without touching its traffic. The header defines the layout, and
a test holds both equal.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringbuf._kernel import Mapping

from . import _kernel

MAGIC = 0x465542474E495253  # "SRINGBUF" in memory order
GROUPS = 32
HELD = 64
KEPT = 16
LATENCY_BUCKETS = 256
NOWHERE = 2**64 - 1  # no position; also: no need

Dtype = np.dtype[np.void]


class SegmentKind(IntEnum):
    """Which structure follows a segment's prefix."""

    BUS = 0x5301
    READY = 0x5302
    UP = 0x5303
    DOWN = 0x5304
    INTERESTS = 0x5305


class BusState(IntEnum):
    """What the dispatcher says of the bus."""

    STARTING = 0
    SERVING = 1
    CLOSING = 2
    ENDED = 3
    HANDOVER = 4


class RowState(IntEnum):
    """Where the endpoint of a slot is in its life."""

    FREE = 0
    LIVE = 1
    LEAVING = 2
    DYING = 3
    GONE = 4


class Reason(IntEnum):
    """Why an endpoint is dying or gone."""

    ALIVE = 0
    DETACHED = 1
    KILLED = 2
    EXITED = 3
    EXEC = 4
    EVICTED = 5
    QUARANTINED = 6
    DIED = 7


class Fitness(IntFlag):
    """Why an endpoint is not fit to be chosen."""

    FIT = 0
    STALLED = 1
    SLOW = 2


class UpState(IntEnum):
    """What an endpoint says of itself."""

    ATTACHING = 0
    ATTACHED = 1
    CLOSING = 2
    CLOSED = 3


class DownState(IntEnum):
    """What the dispatcher says to an endpoint."""

    LIVE = 1
    DRAINED = 2
    RECLAIMED = 3
    EVICTED = 4


class PendingState(IntEnum):
    """Whether an entry of the pending table is in use."""

    FREE = 0
    WAITING = 1


class InterestOp(IntEnum):
    """What an entry of the interest log does."""

    ADD = 1
    REMOVE = 2


class InterestRole(IntEnum):
    """What an interest asks for."""

    SUBSCRIBE = 1
    HANDLE = 2
    OBSERVE = 3


class InterestFlag(IntFlag):
    """How an interest is served."""

    DROP_NEWEST = 1
    REDELIVER = 2


LINE = 64  # bytes of a cache line


def _struct(*fields: tuple[Any, ...], line: bool = False) -> Dtype:
    """A structure laid out by C's rules. A field is (name, type) or (name, type, count); a bare
    ``(...,)`` before it puts it on a cache line of its own, and so does ``line`` for the whole."""
    names, formats, offsets = [], [], []
    at, alignment, place = 0, LINE if line else 1, 1
    for field in fields:
        if field == (...,):
            place = alignment = LINE
            continue
        name, kind, *count = field
        element = np.dtype(kind)
        align = max(place, _alignment(element))
        at = -(-at // align) * align
        names.append(name)
        formats.append((element, tuple(count)) if count else element)
        offsets.append(at)
        at += element.itemsize * (count[0] if count else 1)
        alignment, place = max(alignment, align), 1
    size = -(-at // alignment) * alignment
    result: Dtype = np.dtype(
        {"names": names, "formats": formats, "offsets": offsets, "itemsize": size},
        metadata={"alignment": alignment},
    )
    return result


def _alignment(kind: np.dtype[Any]) -> int:
    return int(kind.metadata["alignment"]) if kind.metadata else kind.alignment


def _words(names: str) -> list[tuple[str, str]]:
    return [(name, "<u8") for name in names.split()]


NAME = "S64"

RECORD = _struct(
    ("length", "<u4"),
    ("kind", "<u2"),
    ("path", "<u2"),
    ("flags", "<u2"),
    ("epoch", "<u2"),
    ("interests", "<u4"),
    ("peer", "<u2"),
    ("attempt", "<u2"),
    ("peer_generation", "<u4"),
    ("sent_ns", "<u8"),
    ("deadline_ns", "<u8"),
    ("correlation", "u1", 16),
    ("type_length", "<u2"),
    ("extension_length", "<u2"),
    ("lost", "<u4"),
)

FAULT = _struct(("code", "<u4"), ("pid", "<u4"), ("limit", "<u8"), ("name", "S1", 48))

TAP = _struct(
    ("forwarded_ns", "<u8"),
    ("target_generation", "<u4"),
    ("target", "<u2"),
    ("kind", "u1"),
    ("outcome", "u1"),
)

PREFIX = _struct(
    *_words("magic layout size generation superseded_by"),
    ("kind", "<u4"),
    ("reserved", "<u4", 5),
)

RING_DESCRIPTOR = _struct(
    ("offset", "<u8"),
    ("capacity", "<u8"),
    ("kind", "<u4"),
    ("peer", "<u2"),
    ("path", "<u2"),
    ("peer_generation", "<u8"),
)

IDENTITY = _struct(
    ("pid", "<u4"),
    ("uid", "<u4"),
    *_words("start_time pid_namespace time_namespace"),
)

JOURNAL = _struct(
    *_words("kind source source_generation from to target target_generation head bits detail"),
    ("reserved", "<u8", 6),
)

ROW = _struct(
    *_words("seq state generation reason health since_ns since_wall_ns down_ns"),
    ("identity", IDENTITY),
    ("nonce", "<u8"),
    ("name", NAME),
    ("said", "<u8"),
    ("reserved", "<u8", 10),
)

BUS = _struct(
    ("prefix", PREFIX),
    ("identity_seq", "<u8"),
    ("identity", IDENTITY),
    *_words("serial started_ns slots ring_bytes max_requests block_timeout_ns stall_after_ns"),
    *_words("prefetch max_deliveries batch_per_pass rows_offset"),
    ("name", NAME),
    ("package", "S32"),
    (...,),
    *_words("state last_generation attached wills"),
    (...,),
    ("bell", "<u8"),
    (...,),
    *_words("heartbeat_ns control_ns cpu"),
    (...,),
    ("journal", JOURNAL),
    (...,),
    *_words("routed unrouted no_route dead_letters orphans lost redelivered violations"),
    *_words("types_known patterns events_lost passes latency_count latency_sum_ns latency_max_ns"),
    ("latency", "<u8", LATENCY_BUCKETS),
)

OUTGOING = _struct(
    *_words("head need interests_version interests_serial high"),
    line=True,
)
INCOMING = _struct(*_words("tail taken taken_count"), line=True)
HELD_ENTRY = _struct(*_words("position done"))
LET_GO = _struct(("at", "<u8"), ("record", "u1", 440))
PENDING = _struct(("id", "u1", 16), *_words("deadline_ns state"))

UP = _struct(
    ("prefix", PREFIX),
    ("identity", IDENTITY),
    ("nonce", "<u8"),
    ("name", NAME),
    ("outgoing_ring", RING_DESCRIPTOR, 2),
    ("incoming_ring", RING_DESCRIPTOR, 2),
    *_words("pending_count pending_offset"),
    (...,),
    ("state", "<u8"),
    ("outgoing", OUTGOING, 2),
    ("incoming", INCOMING, 2),
    (...,),
    ("bell", "<u8"),
    (...,),
    *_words("in_hand in_hand_since_ns receivers progress_ns"),
    *_words("sent_events sent_sends sent_requests sent_replies"),
    *_words("received_events received_sends received_requests received_replies"),
    *_words("orphans expired handler_errors decode_errors timeouts let_go let_go_unkept"),
    (...,),
    ("held", HELD_ENTRY, HELD),
    ("kept", LET_GO, KEPT),
)

DOWN_INCOMING = _struct(*_words("head need delivered high reclaim reclaim_bits"), line=True)
DOWN_OUTGOING = _struct(("tail", "<u8"), line=True)
TARGET = _struct(("id", "u1", 16), *_words("whom done"))
TODO_TARGET = _struct(*_words("whom bits"))
TODO = _struct(*_words("from to count"))

DOWN = _struct(
    ("prefix", PREFIX),
    *_words("slot generation"),
    ("incoming_ring", RING_DESCRIPTOR, 2),
    *_words("target_count target_offset todo_count todo_offset"),
    (...,),
    *_words("state interests_seen"),
    ("outgoing", DOWN_OUTGOING, 2),
    ("incoming", DOWN_INCOMING, 2),
    (...,),
    *_words("lost undeliverable unrouted redelivered forwarded"),
    ("todo", TODO),
)

INTEREST = _struct(
    ("length", "<u4"),
    ("op", "u1"),
    ("role", "u1"),
    ("bit", "u1"),
    ("flags", "u1"),
    ("id", "<u8"),
    ("pattern_length", "<u2"),
    ("group_length", "<u2"),
    ("reserved", "<u4"),
)
INTERESTS = _struct(("prefix", PREFIX), ("bytes", "<u8"), ("reserved", "<u8", 7))
READY = PREFIX  # then one u32 for each slot

STRUCTURES: dict[str, Dtype] = {
    "rb_prefix": PREFIX,
    "sb_record": RECORD,
    "sb_fault": FAULT,
    "sb_tap": TAP,
    "sb_ring_descriptor": RING_DESCRIPTOR,
    "sb_identity": IDENTITY,
    "sb_journal": JOURNAL,
    "sb_row": ROW,
    "sb_bus": BUS,
    "sb_ready": READY,
    "sb_outgoing": OUTGOING,
    "sb_incoming": INCOMING,
    "sb_held": HELD_ENTRY,
    "sb_let_go": LET_GO,
    "sb_pending": PENDING,
    "sb_up": UP,
    "sb_down_incoming": DOWN_INCOMING,
    "sb_down_outgoing": DOWN_OUTGOING,
    "sb_target": TARGET,
    "sb_todo_target": TODO_TARGET,
    "sb_todo": TODO,
    "sb_down": DOWN,
    "sb_interest": INTEREST,
    "sb_interests": INTERESTS,
}


def view(memory: Mapping, structure: Dtype, count: int = 1, at: int = 0) -> NDArray[np.void]:
    """Structures in a segment, live; the mapping stays as long as the array."""
    return np.frombuffer(memoryview(memory), structure, count, at)


def offset(structure: Dtype, field: str) -> int:
    """Where a field begins, in bytes."""
    assert structure.fields is not None
    return structure.fields[field][1]


LAYOUT = _kernel.layout_hash()
"""The second word of every segment that this version can read."""


def text(field: bytes) -> str:
    """The text before the first NUL; what is not ASCII shows as an escape."""
    return bytes(field).split(b"\0", 1)[0].decode("ascii", "backslashreplace")
