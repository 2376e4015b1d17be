"""The layout of shared memory as Python and numpy see it, derived from native/*.h.

Observers read a bus through these without touching its traffic. What numpy compares with is an
int, never a member of an enumeration: numpy asks that for attributes, and discards what a signal
handler raises meanwhile, so Ctrl-C would be lost.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringbuf._kernel import Mapping

Dtype = np.dtype[np.void]


def view(memory: Mapping, structure: Dtype, count: int = 1, at: int = 0) -> NDArray[np.void]:
    """Structures in a segment, live; the mapping stays as long as the array."""
    return np.frombuffer(memoryview(memory), structure, count, at)


def offset(structure: Dtype, field: str) -> int:
    """Where a field begins, in bytes."""
    assert structure.fields is not None
    return structure.fields[field][1]


def text(field: bytes) -> str:
    """The text before the first NUL; what is not ASCII shows as an escape."""
    return bytes(field).split(b"\0", 1)[0].decode("ascii", "backslashreplace")


def words(kind: type[IntEnum]) -> dict[int, str]:
    """The names of an enumeration's members as users see them, by number."""
    return {member.value: member.name.lower() for member in kind}


def _structure(size: int, *fields: tuple[str, Any, int]) -> Dtype:
    """A structure of named fields, each with its type and where it begins."""
    names, formats, offsets = zip(*fields, strict=True)
    spec = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    result: Dtype = np.dtype(spec)  # type: ignore[call-overload]
    return result


# Written by tools/build/layout.py from the headers; do not edit. ----------------------------------

LAYOUT = 0x00000001BEDE4B3E
"""The second word of every segment that this version can read."""

LINE = 64
MAGIC = 0x465542474E495253  # "SRINGBUF" in memory order
PADDING = 0
PAYLOAD_FLAGS = 28675
PLAIN = 1  # `interests` bit 0: the receiver's plain subscriptions; bits 1-31: its groups
FROM_BUS = 0xFFFF  # `peer` of what the dispatcher itself sends
MAX_REASON = 255  # bytes of the text that an SB_NACK has as its extension
HEADER = 64
BEGUN = 256  # the endpoint had begun the request, or nobody knows
FAULT_RECORD = 128
POOLED_PART = 16384
LAYOUT_VERSION = 1  # the fingerprint beside it, see generated.h, is derived from these headers
NAME = 64  # bytes: a name and its end, padded
SOURCE = 88  # bytes: NAME@SITE and its end, padded
KEPT = 16  # of those, how many that left the ring
LIMITS = 48  # messages at a time whose handlers may take so long and no longer
BACKLOGS = 64  # at a time; backlog i has the slot SB_MAX_SLOTS + i wherever slots are named
WAITING = 16  # interests with history of one endpoint that wait for their turn
CHUNKS = 64  # segments with cells
FIRST_MAILBOX = 1088
LATENCY_BUCKETS = 256
DEATHS = 16  # the last ones, which BUS remembers
LAST_LOSSES = 16  # likewise
BLOCKS = 512  # of a pool, at a time
REASONS = 8
LOSSES = 5
EVENT_ANY = 0xFFFFFFFFFFFFFFFF
EVENT_MAIL = 32
POOL_DATA = 28672  # whole pages
DONE_BY_ERROR = 0xFFFFFFFFFFFFFFFF
DONE_BY_CANCEL = 0xFFFFFFFFFFFFFFFE  # whom it was given to was told that it is withdrawn
RIGHT_COUNT = 4
NO_NEED = 0xFFFFFFFFFFFFFFFF
NOWHERE = 0xFFFFFFFFFFFFFFFF
CELL_BYTES = 256  # bytes
MAIL_WORDS = 63
MAIL_BYTES = 504
TASK_FINISHED = 1540  # no instruction of this task runs any more


class DoorCode(IntEnum):
    """What the dispatcher answers."""

    ADMITTED = 0
    NAME_TAKEN = 1
    BUS_FULL = 2
    OTHER_LAYOUT = 3
    REFUSED = 4
    NO_SPACE = 5
    FORBIDDEN = 6


class Kind(IntEnum):
    """What a record is."""

    EVENT = 1  # to all whose interests match
    SEND = 2  # to one handler, no reply
    REQUEST = 3  # to one handler, one reply
    REPLY = 4
    ERROR = 5  # instead of a reply: payload is struct sb_fault, or a handler's failure (SB_REMOTE)
    PART = 6  # one of the parts of a reply
    END = 7  # a reply in parts is complete: a header and its type
    CANCEL = 8  # a request is not waited for any more: a header alone, see endpoint/native/cancel.h
    # its requester takes more parts of a reply: a header alone, see endpoint/native/stream.h
    CREDIT = 9
    TAP = 10  # an observer's copy of a message
    NACK = 11  # work that its receiver gives back, see endpoint/native/nack.h
    QUERY = 12  # who would get a message of this type? The dispatcher itself answers
    # an interest has got what was kept (its id is in `deadline_ns`): from here on it gets what
    # others get, but what was kept under the number in `correlation` or a lower one. A header alone
    LIVE = 13


class RecordFlag(IntFlag):
    """What else is to be known of a record."""

    RAW = 1  # the payload is bytes as they are
    NONE = 2  # there is no payload (otherwise MessagePack)
    REDELIVERED = 4  # came to another before, who left, died or gave it back
    REMOTE = 8  # SB_ERROR: raised by the handler; payload is its MessagePack account
    NEED_GROUPS = 16  # reserved
    FINAL = 32  # SB_NACK: nobody shall have it any more, it is a dead letter
    STREAM = 64  # SB_REQUEST: its reply may come in parts; the extension is struct sb_grant
    DIRECTED = 128  # SB_REQUEST towards the dispatcher: for the endpoint in `peer` and for no other
    RETAIN = 256  # SB_EVENT: the bus keeps it for who subscribes later
    # towards a receiver: it was kept, and is older than the subscription; the extension is the name
    # of its source, which may be gone
    RETAINED = 512
    URGENT = 1024  # SB_EVENT: it overtakes what is not urgent at the receiver
    # SB_EVENT towards a receiver: for one of its interests, whose id is in `deadline_ns`
    ALONE = 2048
    POOLED = 0x1000  # the payload here is struct sb_block: the payload proper lies in a pool
    FRAMED = 0x2000  # the payload proper is MessagePack with arrays behind it, see shared/frames.py
    # it came from another bus: the payload proper ends with struct sb_origin. Only a link sends
    # that. An SB_EVENT towards the dispatcher is for plain subscriptions alone, or for the queue
    # group that the extension names
    RELAYED = 0x4000


class FaultCode(IntEnum):
    """Why the dispatcher answers a request with an SB_ERROR of its own."""

    NO_ROUTE = 1
    ENDPOINT_DIED = 2
    REPLY_LOST = 3
    TOO_LARGE = 4
    COLLISION = 5
    HANDLER_FULL = 6
    HANDLER_TIMEOUT = 7
    FORBIDDEN = 8


class Outcome(IntEnum):
    """What became of a message that a tap saw."""

    DELIVERED = 0
    NOBODY = 1  # was there for it
    LOST = 2  # where it was to go
    DROPPED = 3  # late, second or forged
    FORBIDDEN = 4  # to its sender, by its grant


class SegmentKind(IntEnum):
    """Which structure follows a segment's prefix."""

    BUS = 0x5301
    READY = 0x5302
    UP = 0x5303
    DOWN = 0x5304
    INTERESTS = 0x5305
    BACKLOG = 0x5306
    MAILBOX = 0x5307
    RETAINED = 0x5308
    POOL = 0x5309


class RingIndex(IntEnum):
    """Which of an endpoint's rings in one direction. What is urgent overtakes at its receiver: it
    leaves its sender among the data."""

    DATA = 0
    REPLIES = 1
    URGENT_EVENTS = 2


class Rank(IntEnum):
    """Who is to have what one of several gets: those of the lowest rank alone, as long as there are
    any. By its name, see SB_LINK_MARK."""

    HERE = 0  # it does its work on this bus
    LINK = 1  # it passes on to other buses what nobody here does
    KEEPER = 2  # it has what waits for a link that is being restarted, and does nothing with it


class BusState(IntEnum):
    """What the dispatcher says of the bus."""

    STARTING = 0
    SERVING = 1
    CLOSING = 2
    ENDED = 3
    HANDOVER = 4  # the dispatcher went, and left the bus to a successor


class JournalKind(IntEnum):
    """What the journal says is being done."""

    NONE = 0
    RUN = 1  # a run goes to a target
    LOST = 2  # a run is counted lost at a target
    ERROR = 3  # a request ends with an error, or a query with its answer
    LIVE = 4  # an interest has what was kept, and gets what others get


class RowState(IntEnum):
    """Where the endpoint of a slot is in its life."""

    FREE = 0
    LIVE = 1  # admitted
    LEAVING = 2  # closing in good order
    DYING = 3  # confirmed dead, evicted or quarantined; its messages are handed on
    GONE = 4  # nothing of it is left but names to unlink


class Reason(IntEnum):
    """Why an endpoint ended, as far as it is known. Users see these words in small letters."""

    ALIVE = 0
    DETACHED = 1  # in good order
    KILLED = 2  # by a signal
    EXITED = 3  # without detaching
    EXEC = 4  # its process runs another program now
    EVICTED = 5  # with Bus.evict()
    QUARANTINED = 6  # it wrote what no endpoint writes
    DIED = 7  # more is not known


class Loss(IntEnum):
    """Why a receiver did not get a message that it should have got. Users see these words in small
    letters."""

    DROPPED = 0  # there was no space, and it had rather lose than delay: drop_newest, a tap
    # its ring, or for it a sender's pool, stayed full for block_timeout; or at an event of the
    # bus's own
    SLOW = 1
    TOO_LARGE = 2  # larger than its ring takes
    ENDED = 3  # it ended before it had taken it
    ABANDONED = 4  # its sender was quarantined in the midst of it


class Fitness(IntFlag):
    """What keeps an endpoint from being chosen while others can be."""

    FIT = 0
    STALLED = 1  # it is stopped, or takes no messages
    SLOW = 2  # its ring, or for it a sender's pool, stayed full for block_timeout
    STOPPED = 4  # its process is stopped; it is stalled, too


class UpState(IntEnum):
    """What an endpoint says of itself."""

    ATTACHING = 0
    ATTACHED = 1
    CLOSING = 2
    CLOSED = 3


class EventWant(IntFlag):
    """What an endpoint's event is written for: bits."""

    DATA = 1  # something new in its incoming data ring, or its urgent one
    REPLIES = 2  # in its incoming reply ring
    SPACE = 4  # a tail of its outgoing rings has reached `need`
    STATE = 8  # anything else for which its doorbell is rung
    END = 16  # of that, what ends calls: of the bus, of its dispatcher, of the endpoint


class HeldState(IntEnum):
    """What becomes of a held message at its holder's death."""

    OPEN = 0  # it is handed on
    DONE = 1  # nothing: it was done
    FINAL = 2  # a send begun: it becomes a dead letter


class PendingState(IntEnum):
    """Whether an entry of the table of requests is in use."""

    FREE = 0
    WAITING = 1


class DownState(IntEnum):
    """What the dispatcher says to an endpoint. From RECLAIMED on it needs nothing of it any
    more."""

    LIVE = 1
    DRAINED = 2
    EVICTED = 3
    RECLAIMED = 4
    ENDED = 5  # the bus has ended for it, and stays for others, which wait for the next dispatcher


class Refusal(IntEnum):
    """Why the dispatcher does not route by an interest."""

    KEY = 1  # its group has another key or pattern
    GROUP = 2  # other members have no key, or it has none and they have
    FULL = 3  # there are too many groups with a key
    FORBIDDEN = 4  # its grant does not cover it


class Right(IntEnum):
    """The ways in which a grant lets an endpoint use the bus. Users see these words in small
    letters."""

    PUBLISH = 0  # events
    SUBSCRIBE = 1
    HANDLE = 2
    REQUEST = 3  # and send commands


class NoMailbox(IntEnum):
    """Why a mailbox could not be made."""

    NO_MEMORY = 1
    TOO_MANY = 2


class InterestOp(IntEnum):
    """What an entry of the interest log does."""

    ADD = 1
    REMOVE = 2  # of an interest, or a note
    # no interest: the description is for observers, see shared/sites.py. In place of the note that
    # had its id
    NOTE = 3


class InterestRole(IntEnum):
    """What an interest asks for."""

    SUBSCRIBE = 1
    HANDLE = 2
    OBSERVE = 3  # a tap: a copy of what matches, of every kind, never in the way
    MATCH = 4  # to be told whether anybody receives what matches


class InterestFlag(IntFlag):
    """How an interest is served."""

    DROP_NEWEST = 1  # overflow: lose rather than wait
    REDELIVER = 2  # handle: hold a send until done
    DROP_OLDEST = 4  # overflow: lose what has waited longest
    LATEST = 8  # overflow: of each type the newest alone


PREFIX = _structure(
    64,
    ("magic", "<u8", 0),
    ("layout", "<u8", 8),
    ("size", "<u8", 16),
    ("generation", "<u8", 24),
    ("superseded_by", "<u8", 32),
    ("kind", "<u4", 40),
    ("reserved", ("<u4", 5), 44),
)

KNOCK = _structure(
    24,
    ("layout", "<u8", 0),
    ("nonce", "<u8", 8),
    ("start_time", "<u8", 16),
)

ANSWER = _structure(
    512,
    ("code", "<u4", 0),
    ("slot", "<u4", 4),
    ("generation", "<u8", 8),
    ("pid", "<u4", 16),
    ("reserved", "<u4", 20),
    ("number", "<u8", 24),
    ("text", "S480", 32),
)

RECORD = _structure(
    64,
    ("length", "<u4", 0),
    ("kind", "<u2", 4),
    ("path", "<u2", 6),
    ("flags", "<u2", 8),
    ("epoch", "<u2", 10),
    ("interests", "<u4", 12),
    ("peer", "<u2", 16),
    ("attempt", "<u2", 18),
    ("peer_generation", "<u4", 20),
    ("sent_ns", "<u8", 24),
    ("deadline_ns", "<u8", 32),
    ("correlation", ("u1", 16), 40),
    ("type_length", "<u2", 56),
    ("extension_length", "<u2", 58),
    ("lost", "<u4", 60),
)

FAULT = _structure(
    64,
    ("code", "<u4", 0),
    ("pid", "<u4", 4),
    ("limit", "<u8", 8),
    ("name", "S48", 16),
)

FOUND = _structure(
    16,
    ("version", "<u8", 0),
    ("receivers", "<u4", 8),
    ("handlers", "<u4", 12),
)

ORIGIN = _structure(
    128,
    ("source", "S48", 0),
    ("site", "S32", 48),
    ("sent_ns", "<u8", 80),
    ("error_ns", "<u8", 88),
    ("sent_there_ns", "<u8", 96),
    ("lost", "<u4", 104),
    ("reserved", ("<u4", 5), 108),
)

BLOCK = _structure(
    32,
    ("offset", "<u8", 0),
    ("length", "<u8", 8),
    ("use", "<u8", 16),
    ("pool_generation", "<u4", 24),
    ("pool_slot", "<u2", 28),
    ("index", "<u2", 30),
)

GRANT = _structure(
    8,
    ("bytes", "<u8", 0),
)

TAP = _structure(
    16,
    ("forwarded_ns", "<u8", 0),
    ("target_generation", "<u4", 8),
    ("target", "<u2", 12),
    ("kind", "u1", 14),
    ("outcome", "u1", 15),
)

RING_DESCRIPTOR = _structure(
    32,
    ("offset", "<u8", 0),
    ("capacity", "<u8", 8),
    ("kind", "<u4", 16),
    ("peer", "<u2", 20),
    ("path", "<u2", 22),
    ("peer_generation", "<u8", 24),
)

IDENTITY = _structure(
    32,
    ("pid", "<u4", 0),
    ("uid", "<u4", 4),
    ("start_time", "<u8", 8),
    ("pid_namespace", "<u8", 16),
    ("time_namespace", "<u8", 24),
)

JOURNAL = _structure(
    128,
    ("kind", "<u8", 0),
    ("source", "<u8", 8),
    ("source_generation", "<u8", 16),
    ("from", "<u8", 24),
    ("to", "<u8", 32),
    ("target", "<u8", 40),
    ("target_generation", "<u8", 48),
    ("head", "<u8", 56),
    ("bits", "<u8", 64),
    ("detail", "<u8", 72),
    ("reserved", ("<u8", 6), 80),
)

ROW = _structure(
    256,
    ("seq", "<u8", 0),
    ("state", "<u8", 8),
    ("generation", "<u8", 16),
    ("reason", "<u8", 24),
    ("health", "<u8", 32),
    ("since_ns", "<u8", 40),
    ("since_wall_ns", "<u8", 48),
    ("down_ns", "<u8", 56),
    ("identity", IDENTITY, 64),
    ("nonce", "<u8", 96),
    ("name", "S64", 104),
    ("down_emitted", "<u8", 168),
    ("reserved", ("<u8", 10), 176),
)

DEATH = _structure(
    136,
    ("seq", "<u8", 0),
    ("nth", "<u8", 8),
    ("generation", "<u8", 16),
    ("pid", "<u8", 24),
    ("reason", "<u8", 32),
    ("wall_ns", "<u8", 40),
    ("in_hand", "<u8", 48),
    ("untouched", "<u8", 56),
    ("pending", "<u8", 64),
    ("name", "S64", 72),
)

LAST_LOSS = _structure(
    472,
    ("seq", "<u8", 0),
    ("whom", "<u8", 8),
    ("why", "<u8", 16),
    ("pid", "<u8", 24),
    ("count", "<u8", 32),
    ("at_ns", "<u8", 40),
    ("size", "<u8", 48),
    ("limit", "<u8", 56),
    ("name", "S64", 64),
    ("source", "S88", 128),
    ("type", "S256", 216),
)

MEMBER = _structure(
    32,
    ("whom", "<u8", 0),
    ("joined", "<u8", 8),
    ("left", "<u8", 16),
    ("mark", "<u8", 24),
)

KEYED = _structure(
    2392,
    ("key", "<u8", 0),
    ("epoch", "<u8", 8),
    ("settled", "<u8", 16),
    ("name", "S64", 24),
    ("pattern", "S256", 88),
    ("member", (MEMBER, 64), 344),
)

BUS = _structure(
    53248,
    ("prefix", PREFIX, 0),
    ("identity_seq", "<u8", 64),
    ("identity", IDENTITY, 72),
    ("serial", "<u8", 104),
    ("started_ns", "<u8", 112),
    ("slots", "<u8", 120),
    ("in_bytes", "<u8", 128),
    ("out_bytes", "<u8", 136),
    ("reply_bytes", "<u8", 144),
    ("max_requests", "<u8", 152),
    ("block_timeout_ns", "<u8", 160),
    ("stall_after_ns", "<u8", 168),
    ("prefetch", "<u8", 176),
    ("backlog_bytes", "<u8", 184),
    ("mailbox_bytes", "<u8", 192),
    ("max_deliveries", "<u8", 200),
    ("batch_per_pass", "<u8", 208),
    ("history", "<u8", 216),
    ("retain_bytes", "<u8", 224),
    ("pool_bytes", "<u8", 232),
    ("pool_total_bytes", "<u8", 240),
    ("loans", "<u8", 248),
    ("rows_offset", "<u8", 256),
    ("name", "S64", 264),
    ("package", "S32", 328),
    ("state", "<u8", 384),
    ("last_generation", "<u8", 392),
    ("backlogs_made", "<u8", 400),
    ("mailboxes_made", "<u8", 408),
    ("attached", "<u8", 416),
    ("wills", "<u8", 424),
    ("routes_version", "<u8", 432),
    ("bell", "<u8", 448),
    ("heartbeat_ns", "<u8", 512),
    ("control_ns", "<u8", 520),
    ("journal", JOURNAL, 576),
    ("backlog", ("<u8", 64), 704),
    ("mailbox", ("<u8", 192), 1216),
    ("retained_last", "<u8", 2752),
    ("retained_chunks", "<u8", 2760),
    ("retained", "<u8", 2768),
    ("retained_bytes", "<u8", 2776),
    ("evicted", "<u8", 2784),
    ("pools_granted", "<u8", 2792),
    ("pools_short", "<u8", 2800),
    ("pools_left", "<u8", 2808),
    ("fits", ("<u8", 3), 2816),
    ("routed", "<u8", 2880),
    ("unrouted", "<u8", 2888),
    ("no_route", "<u8", 2896),
    ("forbidden", "<u8", 2904),
    ("dead_letters", "<u8", 2912),
    ("orphans", "<u8", 2920),
    ("lost", "<u8", 2928),
    ("lost_by", ("<u8", 5), 2936),
    ("redelivered", "<u8", 2976),
    ("violations", "<u8", 2984),
    ("types_known", "<u8", 2992),
    ("patterns", "<u8", 3000),
    ("events_lost", "<u8", 3008),
    ("backlogs_failed", "<u8", 3016),
    ("mailboxes_failed", "<u8", 3024),
    ("cancels", "<u8", 3032),
    ("cancels_lost", "<u8", 3040),
    ("credits_lost", "<u8", 3048),
    ("passes", "<u8", 3056),
    ("latency_count", "<u8", 3064),
    ("latency_sum_ns", "<u8", 3072),
    ("latency_max_ns", "<u8", 3080),
    ("latency", ("<u8", 256), 3088),
    ("deaths", ("<u8", 8), 5184),
    ("last_deaths", (DEATH, 16), 5248),
    ("last_losses", (LAST_LOSS, 16), 7424),
    ("keyed", (KEYED, 16), 14976),
)

READY = _structure(
    64,
    ("prefix", PREFIX, 0),
)

OUTGOING = _structure(
    64,
    ("head", "<u8", 0),
    ("need", "<u8", 8),
    ("interests_version", "<u8", 16),
    ("interests_serial", "<u8", 24),
    ("high", "<u8", 32),
)

INCOMING = _structure(
    64,
    ("tail", "<u8", 0),
    ("taken", "<u8", 8),
    ("taken_count", "<u8", 16),
)

HELD_ENTRY = _structure(
    32,
    ("position", "<u8", 0),
    ("done", "<u8", 8),
    ("returned", "<u8", 16),
    ("settled", "<u8", 24),
)

LET_GO = _structure(
    448,
    ("at", "<u8", 0),
    ("returned", "<u8", 8),
    ("record", ("u1", 432), 16),
)

SHARE = _structure(
    32,
    ("share", "<u8", 0),
    ("pool", "<u8", 8),
    ("block", "<u8", 16),
    ("bytes", "<u8", 24),
)

USE = _structure(
    16,
    ("use", "<u8", 0),
    ("bytes", "<u8", 8),
)

POOL = _structure(
    24672,
    ("prefix", PREFIX, 0),
    ("slot", "<u8", 64),
    ("generation", "<u8", 72),
    ("bytes", "<u8", 80),
    ("shares_used", "<u8", 88),
    ("shares", (SHARE, 512), 96),
    ("blocks", (USE, 512), 16480),
)

LIMITED = _structure(
    392,
    ("limit_ns", "<u8", 0),
    ("whom", "<u8", 8),
    ("kind", "<u8", 16),
    ("type_length", "<u8", 24),
    ("id", ("u1", 16), 32),
    ("source", "S88", 48),
    ("type", "S256", 136),
)

HAD = _structure(
    48,
    ("interest", "<u8", 0),
    ("whom", "<u8", 8),
    ("received", "<u8", 16),
    ("taken", "<u8", 24),
    ("lost_before", "<u8", 32),
    ("lost", "<u8", 40),
)

PENDING = _structure(
    32,
    ("id", ("u1", 16), 0),
    ("deadline_ns", "<u8", 16),
    ("state", "<u8", 24),
)

UP = _structure(
    31104,
    ("prefix", PREFIX, 0),
    ("identity", IDENTITY, 64),
    ("nonce", "<u8", 96),
    ("stays", "<u8", 104),
    ("prefetch", "<u8", 112),
    ("pool_limit", "<u8", 120),
    ("loans", "<u8", 128),
    ("name", "S64", 136),
    ("outgoing_ring", (RING_DESCRIPTOR, 2), 200),
    ("incoming_ring", (RING_DESCRIPTOR, 3), 264),
    ("pending_count", "<u8", 360),
    ("pending_offset", "<u8", 368),
    ("state", "<u8", 384),
    ("first_limit_ns", "<u8", 392),
    ("pool_asked", "<u8", 400),
    ("shares_ended", "<u8", 408),
    ("outgoing", (OUTGOING, 2), 448),
    ("incoming", (INCOMING, 3), 576),
    ("bell", "<u8", 768),
    ("event", "<u8", 776),
    ("event_wants", "<u8", 784),
    ("in_hand", "<u8", 832),
    ("in_hand_since_ns", "<u8", 840),
    ("work_done", "<u8", 848),
    ("receivers", "<u8", 856),
    ("progress_ns", "<u8", 864),
    ("sent_events", "<u8", 872),
    ("sent_sends", "<u8", 880),
    ("sent_requests", "<u8", 888),
    ("sent_replies", "<u8", 896),
    ("received_events", "<u8", 904),
    ("received_sends", "<u8", 912),
    ("received_requests", "<u8", 920),
    ("received_replies", "<u8", 928),
    ("sent_parts", "<u8", 936),
    ("received_parts", "<u8", 944),
    ("streaming", "<u8", 952),
    ("orphans", "<u8", 960),
    ("expired", "<u8", 968),
    ("withdrawn", "<u8", 976),
    ("handler_errors", "<u8", 984),
    ("decode_errors", "<u8", 992),
    ("timeouts", "<u8", 1000),
    ("nacked", "<u8", 1008),
    ("let_go", "<u8", 1016),
    ("let_go_unkept", "<u8", 1024),
    ("let_go_from", "<u8", 1032),
    ("watcher", "<u8", 1040),
    ("pool_bytes", "<u8", 1088),
    ("pool_reserved", "<u8", 1096),
    ("pool_in_use", "<u8", 1104),
    ("pool_need", "<u8", 1112),
    ("pool_waits", "<u8", 1120),
    ("copied", "<u8", 1128),
    ("had", (HAD, 32), 1152),
    ("held", (HELD_ENTRY, 64), 2688),
    ("kept", (LET_GO, 16), 4736),
    ("limits", ("<u8", 48), 11904),
    ("limited", (LIMITED, 48), 12288),
)

DOWN_INCOMING = _structure(
    64,
    ("head", "<u8", 0),
    ("need", "<u8", 8),
    ("delivered", "<u8", 16),
    ("high", "<u8", 24),
    ("reclaim", "<u8", 32),
    ("reclaim_bits", "<u8", 40),
    ("wanted", "<u8", 48),
)

DOWN_OUTGOING = _structure(
    64,
    ("tail", "<u8", 0),
    ("last", "<u8", 8),
)

TARGET = _structure(
    32,
    ("id", ("u1", 16), 0),
    ("whom", "<u8", 16),
    ("done", "<u8", 24),
)

TODO_TARGET = _structure(
    16,
    ("whom", "<u8", 0),
    ("bits", "<u8", 8),
)

TODO = _structure(
    24,
    ("from", "<u8", 0),
    ("to", "<u8", 8),
    ("count", "<u8", 16),
)

DOWN = _structure(
    5696,
    ("prefix", PREFIX, 0),
    ("slot", "<u8", 64),
    ("generation", "<u8", 72),
    ("incoming_ring", (RING_DESCRIPTOR, 3), 80),
    ("target_count", "<u8", 176),
    ("target_offset", "<u8", 184),
    ("todo_count", "<u8", 192),
    ("todo_offset", "<u8", 200),
    ("rights_offset", "<u8", 208),
    ("state", "<u8", 256),
    ("interests_seen", "<u8", 264),
    ("refused", "<u8", 272),
    ("refused_why", "<u8", 280),
    ("event_known", "<u8", 288),
    ("outgoing", (DOWN_OUTGOING, 2), 320),
    ("incoming", (DOWN_INCOMING, 3), 448),
    ("lost", "<u8", 640),
    ("lost_by", ("<u8", 5), 648),
    ("mailbox_lost", "<u8", 688),
    ("lost_untold", "<u8", 696),
    ("undeliverable", "<u8", 704),
    ("unrouted", "<u8", 712),
    ("redelivered", "<u8", 720),
    ("forwarded", "<u8", 728),
    ("overruns", "<u8", 736),
    ("retained_number", "<u8", 744),
    ("retained_to", "<u8", 752),
    ("history_read", "<u8", 760),
    ("waiting", ("<u8", 16), 768),
    ("limits_told", ("<u8", 48), 896),
    ("mailbox", ("<u8", 32), 1280),
    ("pool_granted", "<u8", 1536),
    ("returned", ("<u8", 512), 1544),
    ("todo", TODO, 5640),
)

RIGHTS = _structure(
    296,
    ("bytes", "<u8", 0),
    ("refused", "<u8", 8),
    ("told", "<u8", 16),
    ("seq", "<u8", 24),
    ("right", "<u8", 32),
    ("type", "S256", 40),
)

BACKLOG = _structure(
    6080,
    ("down", DOWN, 0),
    ("former", "<u8", 5696),
    ("whom", "<u8", 5704),
    ("interest", "<u8", 5712),
    ("number", "<u8", 5720),
    ("group", "S64", 5728),
    ("type", "S256", 5792),
)

CELL = _structure(
    16,
    ("number", "<u8", 0),
    ("next", "<u8", 8),
)

VALUE = _structure(
    32,
    ("cell", CELL, 0),
    ("whom", "<u8", 16),
    ("end", "<u8", 24),
)

MAILBOX = _structure(
    6080,
    ("down", DOWN, 0),
    ("owner", "<u8", 5696),
    ("interest", "<u8", 5704),
    ("index", "<u8", 5712),
    ("latest", "<u8", 5720),
    ("depth", "<u8", 5728),
    ("entries_offset", "<u8", 5736),
    ("cell_count", "<u8", 5744),
    ("cells_offset", "<u8", 5752),
    ("filled_to", "<u8", 5760),
    ("used", "<u8", 5768),
    ("pattern", "S256", 5776),
)

MAIL = _structure(
    16,
    ("number", "<u8", 0),
    ("at", "<u8", 8),
)

MAIL_CELL = _structure(
    512,
    ("next", "<u8", 0),
    ("words", ("<u8", 63), 8),
)

INTEREST = _structure(
    40,
    ("length", "<u4", 0),
    ("op", "u1", 4),
    ("role", "u1", 5),
    ("bit", "u1", 6),
    ("flags", "u1", 7),
    ("id", "<u8", 8),
    ("pattern_length", "<u2", 16),
    ("group_length", "<u2", 18),
    ("description_length", "<u4", 20),
    ("history", "<u4", 24),
    ("depth", "<u4", 28),
    ("key", "<u4", 32),
    ("mailbox", "<u4", 36),
)

INTERESTS = _structure(
    128,
    ("prefix", PREFIX, 0),
    ("bytes", "<u8", 64),
    ("reserved", ("<u8", 7), 72),
)

STRUCTURES: dict[str, Dtype] = {
    "rb_prefix": PREFIX,
    "sb_knock": KNOCK,
    "sb_answer": ANSWER,
    "sb_record": RECORD,
    "sb_fault": FAULT,
    "sb_found": FOUND,
    "sb_origin": ORIGIN,
    "sb_block": BLOCK,
    "sb_grant": GRANT,
    "sb_tap": TAP,
    "sb_ring_descriptor": RING_DESCRIPTOR,
    "sb_identity": IDENTITY,
    "sb_journal": JOURNAL,
    "sb_row": ROW,
    "sb_death": DEATH,
    "sb_last_loss": LAST_LOSS,
    "sb_member": MEMBER,
    "sb_keyed": KEYED,
    "sb_bus": BUS,
    "sb_ready": READY,
    "sb_outgoing": OUTGOING,
    "sb_incoming": INCOMING,
    "sb_held_entry": HELD_ENTRY,
    "sb_let_go": LET_GO,
    "sb_share": SHARE,
    "sb_use": USE,
    "sb_pool": POOL,
    "sb_limited": LIMITED,
    "sb_had": HAD,
    "sb_pending": PENDING,
    "sb_up": UP,
    "sb_down_incoming": DOWN_INCOMING,
    "sb_down_outgoing": DOWN_OUTGOING,
    "sb_target": TARGET,
    "sb_todo_target": TODO_TARGET,
    "sb_todo": TODO,
    "sb_down": DOWN,
    "sb_rights": RIGHTS,
    "sb_backlog": BACKLOG,
    "sb_cell": CELL,
    "sb_value": VALUE,
    "sb_mailbox": MAILBOX,
    "sb_mail": MAIL,
    "sb_mail_cell": MAIL_CELL,
    "sb_interest": INTEREST,
    "sb_interests": INTERESTS,
}
