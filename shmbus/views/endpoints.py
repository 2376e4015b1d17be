"""One endpoint, as its segments UP and DOWN show it.

What it wrote is checked before it is used; what cannot be read becomes a note.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
from numpy.typing import NDArray

from ringbuf import RingbufError
from ringbuf._kernel import Mapping
from shmbus.limits import RINGS, RINGS_IN
from shmbus.settings import PAGE
from shmbus.shared import _kernel, grants, layout, names
from shmbus.shared.grants import Grant

from .facts import Clock, Counts, EndpointInfo, Losses, Overdue, Pool, Ring, State
from .interest_log import InterestLog
from .mailboxes import Mailboxes
from .memory import Numbers, copy_of, open_segment, steady, table
from .oldest import oldest_sent
from .sites import Noted

_WAITING = int(layout.PendingState.WAITING)
_LIVE, _DYING = int(layout.RowState.LIVE), int(layout.RowState.DYING)
_STALLED, _STOPPED = int(layout.Fitness.STALLED), int(layout.Fitness.STOPPED)
_SLOW = int(layout.Fitness.SLOW)
_KINDS = layout.words(layout.Kind)
_RIGHTS = layout.words(layout.Right)
_POOLED, _BLOCK = layout.RecordFlag.POOLED, layout.BLOCK.itemsize
_LIMITS = layout.offset(layout.UP, "limits")
_MAILBOX_LOST = layout.offset(layout.DOWN, "mailbox_lost")
REASONS = layout.words(layout.Reason) | {layout.Reason.ALIVE: ""}

# Fields of the segments that have the same name in `EndpointInfo`.
_OF_UP = ["streaming", "orphans", "expired", "withdrawn"]
_OF_UP += ["handler_errors", "decode_errors", "timeouts"]
_OF_UP += ["let_go", "nacked"]
_OF_UP += ["pool_limit", "loans", "copied"]
_OF_DOWN = ["forwarded", "redelivered", "undeliverable", "unrouted", "overruns"]

_MESSAGES = (int(layout.RingIndex.DATA), int(layout.RingIndex.URGENT_EVENTS))
"""Its incoming rings that carry messages rather than replies."""

Found = dict[str, int]
"""Numbers of a segment, by their paths."""


def _of_rings(way: str, rings: int, *fields: str) -> list[str]:
    found = [f"{way}.{ring}.{field}" for ring in range(rings) for field in fields]
    where = [
        f"{way}_ring.{ring}.{what}" for ring in range(rings) for what in ("offset", "capacity")
    ]
    return found + where


_IN_UP = Numbers(
    layout.UP,
    *_OF_UP,
    *(f"{way}_{kind}" for way in ("sent", "received") for kind in Counts.__struct_fields__),
    *_of_rings("outgoing", RINGS, "head", "high"),
    *(f"outgoing.0.interests_{what}" for what in ("version", "serial")),
    *(f"incoming.{ring}.tail" for ring in range(RINGS_IN)),
    *(f"incoming.{ring}.taken_count" for ring in _MESSAGES),
    *("in_hand", "in_hand_since_ns", "progress_ns", "prefetch", "receivers", "event"),
    *("pending_count", "pending_offset"),
    *(f"pool_{what}" for what in ("bytes", "asked", "reserved", "in_use", "need", "waits")),
)
_IN_DOWN = Numbers(
    layout.DOWN,
    *_OF_DOWN,
    "lost",
    *_of_rings("incoming", RINGS_IN, "head", "high", "reclaim"),
    *(f"incoming.{ring}.delivered" for ring in _MESSAGES),
    "interests_seen",
    "refused",
    "refused_why",
    "rights_offset",
    "pool_granted",
)

# These stand for a segment that cannot be opened.
_NO_UP: Any = np.zeros(1, layout.UP)[0]
_NO_DOWN: Any = np.zeros(1, layout.DOWN)[0]


class UnderWay(NamedTuple):
    """One of an endpoint's requests."""

    correlation_id: UUID
    deadline_ns: int
    """CLOCK_MONOTONIC."""
    target: Target | None
    """The endpoint that the dispatcher chose; None: none yet."""


class Target(NamedTuple):
    """An endpoint, by as much of its generation as a pending request keeps."""

    slot: int
    generation: int

    @classmethod
    def of(cls, slot: int, generation: int) -> Target:
        return cls(slot, generation & 0xFFFFFFFF)

    @classmethod
    def unpack(cls, whom: int) -> Target | None:
        """From a word of the table of targets; 0: none was chosen."""
        return cls(*_kernel.unpack_whom(whom)) if whom else None


class EndpointView:
    """One generation of one slot: its segments, opened once and kept."""

    def __init__(self, bus: names.BusNames, slot: int, row: np.void) -> None:
        self.bus, self.slot, self.generation = bus, slot, int(row["generation"])
        self.owner = names.owner_in(row)
        self.name = layout.text(row["name"])
        self.up: Mapping | None = None
        self.down: Mapping | None = None
        self.grant: Grant | None = None
        self.log = InterestLog(bus, self.owner, self.name)
        self.mailboxes = Mailboxes(bus)
        self._mailboxes_lost = 0  # at the last look

    @property
    def dropped(self) -> int:
        """What its mailboxes had lost at the last look, and BUS does not count by now."""
        counted = 0 if self.down is None else self.down.load(_MAILBOX_LOST)
        return max(self._mailboxes_lost - counted, 0)

    def _open(self) -> str:
        """Open what is not open yet; returns a note about what cannot be opened."""
        try:
            if self.up is None:
                name = self.bus.up(self.owner)
                self.up = open_segment(name, layout.SegmentKind.UP, layout.UP.itemsize)
            if self.down is None:
                name = self.bus.down(self.slot, self.generation)
                down = open_segment(name, layout.SegmentKind.DOWN, layout.DOWN.itemsize)
                self.grant = grants.read(down)
                self.down = down
        except (RingbufError, ValueError) as problem:
            return str(problem)
        return ""

    def noted(self) -> Noted:
        """What it notes of other sites, by now."""
        if self.up is not None:
            mine = _IN_UP.of(copy_of(self.up, layout.UP))
            self.log.read(mine["outgoing.0.interests_version"], mine["outgoing.0.interests_serial"])
        return self.log.noted

    def info(self, row: np.void, clock: Clock, alive: bool) -> EndpointInfo:
        note = self._open()
        up, down = _NO_UP, _NO_DOWN
        if self.down is not None:
            # DOWN first: UP, read later, then has no message taken that DOWN has not delivered.
            down = copy_of(self.down, layout.DOWN)
        if self.up is not None:
            up = copy_of(self.up, layout.UP)
        mine, its = _IN_UP.of(up), _IN_DOWN.of(down)
        version, serial = mine["outgoing.0.interests_version"], mine["outgoing.0.interests_serial"]
        interests, broken = self.log.read(version, serial) if self.up is not None else ((), "")
        if self.grant is not None:  # the dispatcher routes by no other
            interests = tuple(filter(self.grant.allows, interests))

        row_state = int(row["state"])
        state: State = "attached" if row_state == _LIVE else "leaving"
        if row_state == _DYING or not alive:
            state = "dead"
        health = int(row["health"])
        in_hand, progress = mine["in_hand"], mine["progress_ns"]
        sent, received = _counts(mine, "sent"), _counts(mine, "received")
        untouched = (
            its[f"incoming.{ring}.delivered"] - mine[f"incoming.{ring}.taken_count"]
            for ring in _MESSAGES
        )
        pending = self._pending(mine)
        mailboxes, unseen = self.mailboxes.look(down["mailbox"], up["had"])
        self._mailboxes_lost = int(up["had"]["lost"].sum()) + unseen
        dropped = max(self._mailboxes_lost - int(down["mailbox_lost"]), 0)
        forbidden, last_forbidden = self._forbidden(its["rights_offset"])
        return EndpointInfo(
            name=self.name,
            pid=self.owner.pid,
            slot=self.slot,
            generation=self.generation,
            state=state,
            reason=REASONS.get(int(row["reason"]), "unknown"),
            stalled=bool(health & _STALLED),
            stopped=bool(health & _STOPPED),
            slow=bool(health & _SLOW),
            since=int(row["since_wall_ns"]) / 1e9,
            last_progress=clock.at(progress) if progress else None,
            patterns=tuple(
                dict.fromkeys(i.pattern for i in interests if i.role in ("subscribe", "handle"))
            ),
            groups=tuple(dict.fromkeys(i.group for i in interests if i.group is not None)),
            interests=interests,
            routed=its["interests_seen"] >= version,
            incoming=_incoming(mine, its, 0),
            incoming_replies=_incoming(mine, its, 1),
            incoming_urgent=_incoming(mine, its, 2),
            outgoing=self._outgoing(mine, 0),
            outgoing_replies=self._outgoing(mine, 1),
            untouched=max(sum(untouched), 0),
            oldest=None if state == "dead" else self._oldest(mine, its, _RINGS_IN, clock),
            unforwarded=max(sent.total - its["forwarded"], 0),
            oldest_unforwarded=self._oldest(mine, its, _RINGS_OUT, clock),
            in_hand=in_hand,
            in_hand_seconds=clock.age(mine["in_hand_since_ns"]) if in_hand else 0.0,
            overdue=() if state == "dead" else self._overdue(up, clock),
            held=_held(up["held"]) if self.up is not None else 0,
            prefetch=mine["prefetch"],
            receivers=mine["receivers"],
            looped=mine["event"] > 0,
            pending=int(np.count_nonzero(pending["state"] == _WAITING)),
            pending_limit=len(pending),
            sent=sent,
            received=received,
            note=note or broken or self.log.refused(its["refused"], its["refused_why"]),
            lost=its["lost"] + dropped,
            lost_by=msgspec.structs.replace(by := Losses.of(down), dropped=by.dropped + dropped),
            grant=self.grant,
            forbidden=forbidden,
            last_forbidden=last_forbidden,
            mailboxes=mailboxes,
            pool=self._pool(mine, its["pool_granted"]) if mine["pool_bytes"] else None,
            holds=(),
            site=None,
            host="",
            **{field: mine[field] for field in _OF_UP},
            **{field: its[field] for field in _OF_DOWN},
        )

    def _pool(self, up: Found, granted: int) -> Pool:
        """Its own, without who holds what of it."""
        return Pool(
            endpoint=self.name,
            slot=self.slot,
            generation=self.generation,
            limit=up["pool_limit"],
            asked=_pages(up["pool_asked"]),
            granted=_pages(granted),
            reserved=up["pool_reserved"],
            in_use=up["pool_in_use"],
            waiting=up["pool_need"] != 0,
            waits=up["pool_waits"],
        )

    def _forbidden(self, at: int) -> tuple[int, str]:
        """How often it tried what it may not, and what that was last."""
        if self.grant is None:
            return 0, ""
        copy, whole = steady(table(self.down, 1, at, layout.RIGHTS), "seq")
        if not whole.all() or not int(copy[0]["refused"]):
            return 0, ""
        right = _RIGHTS.get(int(copy[0]["right"]), "?")
        return int(copy[0]["refused"]), f"{right} {layout.text(copy[0]['type'])}"

    def _pending(self, up: Any | Found) -> NDArray[np.void]:
        """The pending table, live; empty where UP does not describe one that can be."""
        return table(self.up, up["pending_count"], up["pending_offset"], layout.PENDING)

    def _overdue(self, up: Any, clock: Clock) -> tuple[Overdue, ...]:
        """What its handlers have in hand for longer than they may."""
        if self.up is None:
            return ()
        if not up["limits"].any():
            return ()
        over = np.flatnonzero((up["limits"] != 0) & (up["limits"] <= clock.monotonic)).tolist()
        found = []
        for i in over:
            until, entry = int(up["limits"][i]), up["limited"][i]
            limit, kind = int(entry["limit_ns"]), _KINDS.get(int(entry["kind"]), "?")
            if self.up.load(_LIMITS + 8 * i) != until:  # it has just ended
                continue
            text = entry["type"].tobytes()[: int(entry["type_length"])].decode("ascii", "replace")
            age = clock.age(until) + limit / 1e9
            found.append(Overdue(type=text, kind=kind, seconds=age, limit=limit / 1e9))
        return tuple(sorted(found, key=lambda one: -one.seconds))

    def _outgoing(self, up: Found, ring: int) -> Ring:
        # Its tail is read after its head, so that it never looks fuller than it was.
        tail = 0 if self.down is None else self.down.load(_tail_out(ring))
        return _ring(up, "outgoing", ring, tail)

    def _oldest(self, up: Any, down: Any, rings: tuple[_Lane, ...], clock: Clock) -> float | None:
        """The age of the oldest message at the front of these rings, in seconds."""
        if self.up is None or self.down is None:
            return None
        ages = []
        for ring in rings:
            to_it = ring.way == "incoming"
            producer, consumer = (self.down, self.up) if to_it else (self.up, self.down)
            if consumer.load(ring.next) == producer.load(ring.head):
                continue  # nothing is in it: most often so, and there may be hundreds
            numbers, descriptor = down if to_it else up, f"{ring.way}_ring.{ring.ring}"
            sent = oldest_sent(
                producer,
                numbers[f"{descriptor}.offset"],
                numbers[f"{descriptor}.capacity"],
                next=lambda memory=consumer, at=ring.next: memory.load(at),  # type: ignore[misc]
                head=lambda memory=producer, at=ring.head: memory.load(at),  # type: ignore[misc]
            )
            if sent is not None:
                ages.append(clock.age(sent))
        return max(ages, default=None)

    def untouched(self) -> Iterator[np.void]:
        """The headers of the messages that it has not taken yet."""
        return (header for header, _ in self._untouched(layout.RingIndex.DATA))

    def untaken_blocks(self, most: int) -> Iterator[np.void]:
        """What says where their payloads lie, of those that are too large for rings, among what is
        in its mailboxes, and the first messages and replies that it has not taken yet: ``most`` of
        each ring are looked through."""
        yield from self.mailboxes.blocks()
        for header, record in chain.from_iterable(
            islice(self._untouched(ring), most) for ring in layout.RingIndex
        ):
            there = int(header["flags"]) & _POOLED and int(header["interests"])  # and not revoked
            if there and len(record) >= _BLOCK:
                yield np.frombuffer(record[-_BLOCK:], layout.BLOCK, 1)[0]

    def _untouched(self, of: layout.RingIndex) -> Iterator[tuple[np.void, bytes]]:
        """Headers and records of what it has not taken yet from this ring."""
        if self.up is None or self.down is None:
            return
        down = copy_of(self.down, layout.DOWN)
        ring, head = down["incoming_ring"][of], int(down["incoming"][of]["head"])
        at, capacity = int(ring["offset"]), int(ring["capacity"])
        if at < layout.DOWN.itemsize or at + capacity > self.down.size:
            return
        data = memoryview(self.down)[at : at + capacity].tobytes()
        # Read after the copy: what follows this position was not overwritten meanwhile.
        position = int(copy_of(self.up, layout.UP)["incoming"][of]["taken"])
        if head - position > capacity:
            return
        header = layout.RECORD.itemsize
        while position < head:
            start = position % capacity
            if start + 8 > capacity:
                return
            length, kind = struct.unpack_from("<IH", data, start)
            if length < 8 or length > capacity:
                return
            if kind != layout.PADDING and length >= header and start + header <= capacity:
                record = data[start : start + length]
                yield np.frombuffer(data, layout.RECORD, 1, start)[0], record
            position += -(-length // 8) * 8

    def requests(self) -> Iterator[UnderWay]:
        """Its requests under way."""
        if self.up is None or self.down is None:
            return
        pending = self._pending(copy_of(self.up, layout.UP)).copy()
        down = copy_of(self.down, layout.DOWN)
        targets = table(self.down, down["target_count"], down["target_offset"], layout.TARGET)
        for index in np.flatnonzero(pending["state"] == _WAITING).tolist():
            entry, whom = pending[index], 0
            if index < len(targets) and (targets[index]["id"] == entry["id"]).all():
                whom = int(targets[index]["whom"])
            yield UnderWay(
                correlation_id=UUID(bytes=entry["id"].tobytes()),
                deadline_ns=int(entry["deadline_ns"]),
                target=Target.unpack(whom),
            )


class _Lane(NamedTuple):
    """One of an endpoint's rings: where its producer keeps its head, and its consumer the position
    that it comes to next."""

    way: str
    ring: int
    head: int
    next: int


def _tail_out(ring: int) -> int:
    at = layout.offset(layout.DOWN, "outgoing") + ring * layout.DOWN_OUTGOING.itemsize
    return at + layout.offset(layout.DOWN_OUTGOING, "tail")


def _lane_in(ring: int, next: str) -> _Lane:
    head = layout.offset(layout.DOWN, "incoming") + ring * layout.DOWN_INCOMING.itemsize
    mine = layout.offset(layout.UP, "incoming") + ring * layout.INCOMING.itemsize
    return _Lane(
        "incoming",
        ring,
        head + layout.offset(layout.DOWN_INCOMING, "head"),
        mine + layout.offset(layout.INCOMING, next),
    )


def _lane_out(ring: int) -> _Lane:
    head = layout.offset(layout.UP, "outgoing") + ring * layout.OUTGOING.itemsize
    return _Lane("outgoing", ring, head + layout.offset(layout.OUTGOING, "head"), _tail_out(ring))


# Some of its messages are taken and still stand in the ring; replies leave it as they are taken.
_RINGS_IN = (_lane_in(0, "taken"), _lane_in(1, "tail"), _lane_in(2, "tail"))
_RINGS_OUT = (_lane_out(0), _lane_out(1))


def _pages(question: int) -> int:
    """The bytes in a word that asks for memory of a pool, or grants it: its low 40 bits are pages,
    the rest numbers the question."""
    return (question & ((1 << 40) - 1)) * PAGE


def _counts(up: Found, way: str) -> Counts:
    return Counts(**{kind: up[f"{way}_{kind}"] for kind in Counts.__struct_fields__})


def _held(held: NDArray[np.void]) -> int:
    return int(np.count_nonzero((held["position"] != layout.NOWHERE) & (held["done"] == 0)))


def _incoming(up: Found, down: Found, ring: int) -> Ring:
    """A ring that the endpoint consumes; after the endpoint's end, the dispatcher does."""
    tail = down[f"incoming.{ring}.reclaim"]
    if tail == layout.NOWHERE:
        tail = up[f"incoming.{ring}.tail"]
    return _ring(down, "incoming", ring, tail)


def _ring(producer: Found, way: str, ring: int, tail: int) -> Ring:
    capacity = producer[f"{way}_ring.{ring}.capacity"]
    depth = producer[f"{way}.{ring}.head"] - tail
    # The two sides were read at different moments, and either may hold garbage.
    return Ring(
        depth=min(max(depth, 0), capacity),
        capacity=capacity,
        high=min(producer[f"{way}.{ring}.high"], capacity),
    )
