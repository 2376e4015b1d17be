"""Events, from this bus to others and from others to this bus.

What comes from the bus is put together by runs of one type from one endpoint, so that under load
one frame has many messages; when nothing more waits, it leaves at once. The kernel takes a run, and
publishes one at the other end: here nothing is done for each message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple, NoReturn

import msgspec

from shmbus.aio.line import NO_LINE
from shmbus.aio.posting import EVENT as KIND
from shmbus.aio.threads import in_thread
from shmbus.endpoint._kernel import (
    Encoded,
    LoopIteration,
    Message,
    Origin,
    entry_in,
    entry_of,
    events_in,
    ways,
)
from shmbus.errors import BusError, Disconnected
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.frames import Bytes
from shmbus.shared.layout import RecordFlag

from . import wire
from .confirmed import groups_held
from .peer import Peer
from .wanting import Wanting

if TYPE_CHECKING:
    from shmbus.views import Retained

    from .node import Node

log = logging.getLogger("shmbus")

MOST = 48 << 10
"""Bytes of payloads after which a frame leaves, at the latest."""

AGAIN = 0.5
"""Seconds until the next try where one has failed."""

_PLANS = 4096  # types whose ways are remembered

_Text = Annotated[str, msgspec.Meta(max_length=48)]
_ENTRY = len(entry_of(0, 0))


class Run(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events of one type from one endpoint, one behind the other."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=48)]
    format: Annotated[int, msgspec.Meta(ge=0, le=3)]
    """Of all payloads: an index of `wire.FORMATS`."""
    targets: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=64)]
    """The groups of which one member gets each; empty: those who subscribe outside of groups."""
    way: Annotated[int, msgspec.Meta(ge=0, le=7)]
    """Whether they are kept, urgent, or were kept."""
    table: bytes
    """When each was sent, and how long its payload is: see `events_in`."""


RETAIN, URGENT, KEPT = 1, 2, 4
"""Bits of `Run.way`."""

_RETAIN, _URGENT = int(RecordFlag.RETAIN), int(RecordFlag.URGENT)
_IS_EVENT, _IS_PLAIN = 1 << 16, 1 << 17  # see `Message._passing`

_run = wire.Reader(Run)


class _Kind(NamedTuple):
    """What all events of a run have in common."""

    there: str
    """Their type in the names of the space."""
    source: str
    format: int
    targets: tuple[str, ...]
    way: int


class _Gathered:
    """The run for one peer that has not left yet."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.kind: _Kind | None = None
        self.tables: list[bytes] = []
        self.parts: list[Bytes] = []
        self.size = 0

    def add(self, kind: _Kind, payloads: Bytes, table: bytes) -> None:
        """Events of this kind."""
        if kind is not self.kind or self.size + len(payloads) > MOST:
            self.leave()
            self.kind = kind
        self.parts.append(payloads)
        self.tables.append(table)
        self.size += len(payloads)

    def leave(self) -> None:
        """Send it."""
        parts, tables, kind = self.parts, self.tables, self.kind
        if not parts or kind is None:
            return
        self.tables, self.parts, self.size = [], [], 0
        payloads, table = parts[0], tables[0]
        if len(parts) > 1:
            payloads, table = b"".join(parts), b"".join(tables)
        body = wire.packed(Run(kind.source, kind.format, kind.targets, kind.way, table))
        events = len(table) // _ENTRY
        self.peer.channel.send(wire.EVENT, kind.there, body, payloads, events)


class _Plan(NamedTuple):
    """Where events of one type go."""

    gathered: _Gathered
    there: str
    """Their type in the names of the space."""
    targets: tuple[str, ...]


class Leaving:
    """Events of this bus for others."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._gathered: dict[Peer, _Gathered] = {}
        self._plans: dict[tuple[str, bool, tuple[str, ...]], tuple[_Plan, ...]] = {}
        self._last: tuple[str, str, int, tuple[str, ...]] | None = None
        """What the event before had in common with those that are passed on likewise."""
        self._ways: list[tuple[_Gathered, _Kind]] = []
        """And where these go."""
        self._pumping: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take from the bus."""
        self._pumping = asyncio.get_running_loop().create_task(self._pump())

    def forget(self) -> None:
        """Somebody wants something else now."""
        self._plans.clear()
        self._last = None

    def drop(self, peer: Peer) -> None:
        """It is not there any more."""
        gathered = self._gathered.pop(peer, None)
        if gathered is not None:
            gathered.leave()
        self.forget()

    def close(self) -> None:
        """Take nothing more."""
        if self._pumping is not None:
            self._pumping.cancel()
        self.flush()

    async def _pump(self) -> None:
        iteration = self._node.endpoint.__aiter__()
        while True:
            try:
                await self._pass_on(iteration)
            except StopAsyncIteration:
                return
            except Disconnected as why:
                self._node.end(why)
                return
            except Exception as why:  # such as a large payload that there is no memory to look at
                log.error("link %s: an event cannot be passed on: %r", self._node.config.site, why)
                await asyncio.sleep(AGAIN)

    async def _pass_on(self, iteration: LoopIteration) -> NoReturn:
        looped = self._node.endpoint._looped
        while True:
            while (message := iteration.take()) is not None:
                self._add(message, *looped.take_run(message))
            others = looped.paused
            self.flush()
            for peer in [p for p in self._gathered if p.channel.full]:
                await peer.channel.space()
            if others:
                await asyncio.sleep(0)
                continue
            message = await iteration.__anext__()
            self._add(message, *looped.take_run(message))

    def _add(self, message: Message, payloads: Bytes, table: bytes) -> None:
        bits, groups = message._passing()
        alike = message.type, message.source, bits, groups
        if alike != self._last:
            self._ways = self._find(*alike)
            self._last = alike
        if groups and not self._ways:
            message.nack(reason="no other site has a member of its group any more")
        if message.lost:  # by this link's ring, whose types nobody knows
            for gathered, kind in self._ways:
                gathered.peer.channel.miss(kind.there, message.lost)
        for gathered, kind in self._ways:
            gathered.add(kind, payloads, table)

    def _find(
        self, type: str, source: str, bits: int, groups: tuple[str, ...]
    ) -> list[tuple[_Gathered, _Kind]]:
        form = wire.FORMAT_OF.get(bits & wire.FORMAT_BITS)
        if not bits & _IS_EVENT or form is None:  # of a payload that cannot be
            return []
        key = type, bool(bits & _IS_PLAIN), groups
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._plan(*key)
        way = (RETAIN if bits & _RETAIN else 0) | (URGENT if bits & _URGENT else 0)
        return [
            (gathered, _Kind(there, source, form, targets, way))
            for gathered, there, targets in plan
        ]

    def _plan(self, type: str, plain: bool, groups: tuple[str, ...]) -> tuple[_Plan, ...]:
        found = []
        local = self._node.config.groups == "local"
        one = {} if local else {group: self._member(type, group) for group in groups}
        for peer in self._node.known():
            there = peer.rules.outward(type)
            if there is None:
                continue
            wanted, members = peer.receivers(there)
            targets = [group for group, chosen in one.items() if chosen is peer]
            if plain and wanted:
                targets.insert(0, "")
            if plain and local:
                targets += sorted(members - groups_held(self._node.config, peer, there))
            if targets:
                gathered = self._gathered.get(peer)
                if gathered is None:
                    gathered = self._gathered[peer] = _Gathered(peer)
                found.append(_Plan(gathered, there, tuple(targets)))
        return tuple(found)

    def _member(self, type: str, group: str) -> Peer | None:
        """The nearest site that has a member of this group for this type."""
        found = []
        for peer in self._node.peers.values():
            there = peer.rules.outward(type)
            if there is not None and peer.up and group in peer.table.receivers(there)[1]:
                found.append(peer)
        return next(iter(self._node.nearest(found)), None)

    def flush(self) -> None:
        """Let all leave that was gathered."""
        for gathered in self._gathered.values():
            gathered.leave()

    def keep(self, peer: Peer, there: str, value: Retained) -> None:
        """Send a value that this bus keeps."""
        self.flush()  # what is older stays so
        form = "none" if value.format == "msgpack" and not value.raw else value.format
        table = entry_of(value.stamp_ns, len(value.raw))
        run = Run(value.source, wire.FORMATS.index(form), ("",), RETAIN | KEPT, table)
        peer.channel.send(wire.EVENT, there, wire.packed(run), value.raw)


class _Came:
    """A run that came, and how far it is published."""

    def __init__(
        self,
        peer: Peer,
        there: str,
        type: str,
        run: Run,
        payloads: bytes,
        events: int,
        origin: Origin,
        ahead: int,
    ) -> None:
        """`there`: its type in the names of the space."""
        self.events = events
        self.peer, self.there = peer, there
        self.type, self.run, self.payloads = type, run, payloads
        self.origin, self.ahead = origin, ahead
        self.flags = wire.FLAGS_OF[run.format]
        self.flags |= ways(bool(run.way & RETAIN), bool(run.way & URGENT))
        self.target = self.number = 0
        """Of its targets, and of its events: the next."""
        self.line = NO_LINE
        """In which that waits."""
        self.held = 0
        """Its frame's number, where it waits."""

    def left(self) -> Encoded:
        """The next one."""
        at, size, there = entry_in(self.run.table, self.number)
        o = self.origin
        origin = Origin(o.source, o.site, max(there - self.ahead, 0), o.error_ns, there, o.lost)
        group = self.run.targets[self.target]
        return Encoded(wire.FLAGS_OF[self.run.format], self.payloads[at : at + size], origin, group)

    def told(self) -> None:
        """What was lost before it has been told with the one before."""
        o = self.origin
        if o.lost:
            self.origin = Origin(o.source, o.site, o.sent_ns, o.error_ns, o.sent_there_ns, 0)

    def skip(self) -> None:
        """That is done with."""
        self.number += 1
        if self.number == self.events:
            self.number, self.target = 0, self.target + 1

    @property
    def done(self) -> bool:
        """Whether it is published, all of it."""
        return self.target == len(self.run.targets)


class Coming:
    """Events of others for this bus, in the order of each peer."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._behind: dict[Peer, deque[_Came]] = {}
        self._working: dict[Peer, asyncio.Task[None]] = {}

    def take(self, peer: Peer, there: str, body: msgspec.Raw, payload: bytes) -> None:
        """A frame. Raises `Garbage`."""
        run = _run.read(body)
        type = peer.rules.inward(there)
        if type is None:
            raise wire.Garbage(f"{there!r} is not imported")
        came = self._came(peer, there, type, run, payload)
        peer.received += came.events
        peer.received_bytes += len(payload)
        if peer not in self._behind and not run.way & KEPT and self._publish(came):
            return
        came.held = peer.arrivals.hold()
        self._behind.setdefault(peer, deque()).append(came)
        if peer not in self._working:
            working = asyncio.get_running_loop().create_task(self._publish_behind(peer))
            self._working[peer] = working

    def _came(self, peer: Peer, there: str, type: str, run: Run, payload: bytes) -> _Came:
        try:
            events = events_in(run.table, len(payload))
            if events > 1 and run.way & KEPT:
                raise ValueError(f"{events} at once that were kept")
            _, _, first = entry_in(run.table, 0)
            here, error = peer.clock.here(first, monotonic_ns())
            lost = min(peer.take_untold(there), 2**32 - 1)
            origin = Origin(run.source, peer.site, here, error, first, lost)
            for group in run.targets:
                Encoded(0, b"", origin, group)  # says whether it can be one
        except ValueError as why:
            raise wire.Garbage(f"an event: {why}") from None
        return _Came(peer, there, type, run, payload, events, origin, first - here)

    def _publish(self, came: _Came) -> bool:
        """As much of it as there is space for. False: some is left."""
        looped, run = self._node.endpoint._looped, came.run
        while not came.done:
            try:
                came.line = looped.post_run(
                    came.type,
                    came.origin,
                    came.flags,
                    run.targets[came.target],
                    came.payloads,
                    run.table,
                    came.ahead,
                    came.number,
                )
            except BusError as why:
                came.number = looped.run_at
                self._refuse(came, why)
                came.skip()
                continue
            came.number = looped.run_at
            if came.line != NO_LINE:
                return False
            came.number, came.target = 0, came.target + 1
        return True

    def _refuse(self, came: _Came, why: BusError) -> None:
        """One of them cannot be published here: it is too large, or the endpoint has ended."""
        if isinstance(why, Disconnected):
            self._node.end(why)
            return
        came.peer.lose(came.there)
        log.warning("link %s: an event that came is lost: %s", self._node.config.site, why)

    async def _publish_behind(self, peer: Peer) -> None:
        """What waits, one frame after the other."""
        behind = self._behind[peer]
        try:
            while behind:
                came = behind[0]
                if not came.run.way & KEPT or await self._is_new(came):
                    while not self._publish(came):
                        await self._publish_next(came)
                behind.popleft()
                peer.arrivals.release(came.held)
                self._node.acknowledge(peer)
        finally:
            del self._behind[peer], self._working[peer]

    async def _publish_next(self, came: _Came) -> None:
        """The one that found no space."""
        posting = self._node.endpoint._posting
        flags = came.flags & ~wire.FORMAT_BITS
        try:
            await posting.in_line(came.line, KIND, flags, came.type, came.left(), None)
            came.told()
        except BusError as why:
            self._refuse(came, why)
        came.skip()

    async def _is_new(self, came: _Came) -> bool:
        """Whether a value that was kept elsewhere is newer than what this bus keeps of its type."""
        endpoint, origin = self._node.endpoint, came.origin
        try:
            look = partial(endpoint.bus.retained, came.type)
            kept = await in_thread(endpoint.name, "looking", look)
        except BusError as why:
            self._refuse(came, why)
            return False
        source = f"{origin.source}@{origin.site}"
        if any(v.source == source and v.stamp_ns >= origin.sent_there_ns for v in kept):
            return False
        sent = time.time() - (monotonic_ns() - origin.sent_ns) / 1e9
        return all(sent >= value.sent for value in kept)

    def close(self) -> None:
        """Publish no more."""
        for working in self._working.values():
            working.cancel()


def _last(values: list[Retained], history: int) -> list[Retained]:
    """So many of each type."""
    of_type: dict[str, deque[Retained]] = {}
    for value in values:
        of_type.setdefault(value.type, deque(maxlen=history)).append(value)
    return [value for last in of_type.values() for value in last]


class Events:
    """Both directions, and what this link subscribes to for others."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.leaving, self.coming = Leaving(node), Coming(node)
        self._wanting = Wanting(node)
        self._kept: dict[Peer, set[tuple[str, int, str]]] = {}
        self._reading: set[asyncio.Task[None]] = set()
        node.lanes[wire.EVENT] = self.coming.take
        node.on_wants.append(self._changed)
        node.on_down.append(self._gone)
        node.on_close.append(self.close)
        self.leaving.begin()

    def _changed(self, peer: Peer) -> None:
        self.leaving.forget()
        self._wanting.look()
        self._send_kept(peer)

    def _gone(self, peer: Peer, _: str) -> None:
        self.leaving.drop(peer)
        self._kept.pop(peer, None)
        self._wanting.look()

    def _send_kept(self, peer: Peer) -> None:
        """Values that this bus keeps, for subscriptions with history that are new there."""
        if not peer.up:
            return
        wanted = {
            (pattern, each.history, each.endpoint)
            for each in peer.table.histories()
            for pattern in peer.rules.offered(each.pattern)
        }
        new = {(pattern, history) for pattern, history, _ in wanted - self._kept.get(peer, set())}
        self._kept[peer] = wanted
        if new:
            reading = asyncio.get_running_loop().create_task(self._read_kept(peer, new))
            self._reading.add(reading)
            reading.add_done_callback(self._reading.discard)

    async def _read_kept(self, peer: Peer, new: set[tuple[str, int]]) -> None:
        endpoint = self._node.endpoint
        values: dict[int, Retained] = {}
        try:
            for pattern, history in new:
                look = partial(endpoint.bus.retained, pattern)
                for last in _last(await in_thread(endpoint.name, "looking", look), history):
                    values[last.number] = last
        except BusError as why:
            log.debug("link %s: %s", self._node.config.site, why)
        for _, value in sorted(values.items()):
            there = peer.rules.outward(value.type)
            if value.site is None and value.whole and there is not None and peer.up:
                self.leaving.keep(peer, there, value)

    async def close(self) -> None:
        """End both."""
        self.leaving.close()
        self.coming.close()
        for reading in self._reading:
            reading.cancel()
        self._wanting.close()
