"""Events, from this bus to others and from others to this bus.

What comes from the bus is put together by runs of one type from one endpoint, so that under load
one frame has many messages; when nothing more waits, it leaves at once. What comes from a peer is
published together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from shmbus.aio.line import NO_LINE
from shmbus.aio.posting import EVENT as KIND
from shmbus.aio.threads import in_thread
from shmbus.endpoint._kernel import Encoded, Message, Origin, ways
from shmbus.errors import BusError, Disconnected
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.frames import Bytes

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

_PLANS = 4096  # types whose ways are remembered

_Text = Annotated[str, msgspec.Meta(max_length=48)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Length = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class Run(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events of one type from one endpoint, one behind the other."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=48)]
    format: Annotated[int, msgspec.Meta(ge=0, le=3)]
    """Of all payloads: an index of `wire.FORMATS`."""
    targets: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=64)]
    """The groups of which one member gets each; empty: those who subscribe outside of groups."""
    way: Annotated[int, msgspec.Meta(ge=0, le=7)]
    """Whether they are kept, urgent, or were kept."""
    sent_ns: list[_Number]
    lengths: list[_Length]
    """Of each payload; one: all have this."""


RETAIN, URGENT, KEPT = 1, 2, 4
"""Bits of `Run.way`."""

_run = wire.Reader(Run)


class _Gathered:
    """The run for one peer that has not left yet."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.key: tuple[object, ...] | None = None
        self.sent: list[int] = []
        self.parts: list[Bytes] = []
        self.size = 0

    def leave(self) -> None:
        """Send it."""
        if self.key is None:
            return
        there, targets, source, form, way = self.key
        parts, sent = self.parts, self.sent
        lengths = [len(part) for part in parts]
        if lengths.count(lengths[0]) == len(lengths):
            del lengths[1:]
        body = wire.packed(Run(source, form, targets, way, sent, lengths))  # type: ignore[arg-type]
        payload = parts[0] if len(parts) == 1 else b"".join(parts)
        self.peer.channel.send(wire.EVENT, there, body, payload, len(parts))  # type: ignore[arg-type]
        self.key, self.sent, self.parts, self.size = None, [], [], 0


class _Way(NamedTuple):
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
        self._plans: dict[object, tuple[_Way, ...]] = {}
        self._pumping: asyncio.Task[None] | None = None
        self.astray = 0
        """Group messages that nobody elsewhere wants any more."""

    def begin(self) -> None:
        """Take from the bus."""
        self._pumping = asyncio.get_running_loop().create_task(self._pump())

    def forget(self) -> None:
        """Somebody wants something else now."""
        self._plans.clear()

    def drop(self, peer: Peer) -> None:
        """It is not there any more."""
        gathered = self._gathered.pop(peer, None)
        if gathered is not None:
            gathered.leave()
        self._plans.clear()

    def close(self) -> None:
        """Take nothing more."""
        if self._pumping is not None:
            self._pumping.cancel()
        self.flush()

    async def _pump(self) -> None:
        iteration = self._node.endpoint.__aiter__()
        take, add = iteration.take, self._add
        while True:
            while (message := take()) is not None:
                add(message)
            self.flush()
            for peer in [p for p in self._gathered if p.channel.full]:
                await peer.channel.space()
            try:
                add(await iteration.__anext__())
            except StopAsyncIteration:
                return
            except Disconnected as why:
                self._node.end(why)
                return

    def _add(self, message: Message) -> None:
        if message.kind != "event":
            return
        groups = message._groups
        key = message.type if message._plain and not groups else (message.type, groups)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(message.type, message._plain, groups)
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[key if message._plain or groups else ""] = plan
        if not plan:
            return
        encoded = message._encoded()
        data, form = encoded.data, wire.FORMAT_OF[encoded.flags]
        way = (RETAIN if message._retains else 0) | (URGENT if message.urgent else 0)
        source, sent = message.source, message.sent_ns
        for gathered, there, targets in plan:
            run = (there, targets, source, form, way)
            if gathered.key != run or gathered.size > MOST:
                gathered.leave()
                gathered.key = run
            gathered.parts.append(data)
            gathered.sent.append(sent)
            gathered.size += len(data)

    def _plan(self, type: str, plain: bool, groups: tuple[str, ...]) -> tuple[_Way, ...]:
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
                found.append(_Way(gathered, there, tuple(targets)))
        self.astray += sum(chosen is None for chosen in one.values())
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
        sent, lengths = [value.stamp_ns], [len(value.raw)]
        run = Run(value.source, wire.FORMATS.index(form), ("",), RETAIN | KEPT, sent, lengths)
        peer.channel.send(wire.EVENT, there, wire.packed(run), value.raw)


class _Came:
    """A frame whose events are being published."""

    def __init__(self, type: str, run: Run, payloads: Iterable[Encoded]) -> None:
        self.type, self.run = type, run
        self.way = ways(bool(run.way & RETAIN), bool(run.way & URGENT))
        self.payloads = iter([(type, payload) for payload in payloads])
        self.left: tuple[str, object] | None = None
        """The one that found no space, and the line in which it waits."""
        self.line = NO_LINE
        self.held = 0
        """Its number, where it waits."""


class Coming:
    """Events of others for this bus, in the order of each peer."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._behind: dict[Peer, deque[_Came]] = {}
        self._working: dict[Peer, asyncio.Task[None]] = {}
        self.refused = 0
        """Events that this bus does not take, such as those that are too large for it."""

    def take(self, peer: Peer, there: str, body: msgspec.Raw, payload: bytes) -> None:
        """A frame. Raises `Garbage`."""
        run = _run.read(body)
        parts = _parts(run, payload)
        type = peer.rules.inward(there)
        if type is None:
            raise wire.Garbage(f"{there!r} is not imported")
        came = _Came(type, run, self._payloads(peer, there, run, parts))
        peer.received += len(parts)
        peer.received_bytes += len(payload)
        if peer not in self._behind and not run.way & KEPT and self._publish(came):
            return
        came.held = peer.arrivals.hold()
        self._behind.setdefault(peer, deque()).append(came)
        if peer not in self._working:
            working = asyncio.get_running_loop().create_task(self._publish_behind(peer))
            self._working[peer] = working

    def _payloads(self, peer: Peer, there: str, run: Run, parts: list[bytes]) -> list[Encoded]:
        now, source, site = monotonic_ns(), run.source, peer.site
        flags = wire.FLAGS_OF[run.format]
        lost = min(peer.untold.pop(there, 0), 2**32 - 1) if peer.untold else 0
        first = run.sent_ns[0]
        here, error = peer.clock.here(first, now)
        ahead = first - here  # of all of them
        found = []
        try:
            for sent_ns, part in zip(run.sent_ns, parts, strict=True):
                origin = Origin(source, site, sent_ns - ahead, error, sent_ns, lost)
                lost = 0
                for group in run.targets:
                    found.append(Encoded(flags, part, origin, group))
        except (ValueError, OverflowError) as why:
            raise wire.Garbage(f"an event: {why}") from None
        return found

    def _publish(self, came: _Came) -> bool:
        """As many of it as there is space for. False: some are left."""
        looped = self._node.endpoint._looped
        while True:
            try:
                if came.way:
                    for type, payload in came.payloads:
                        came.line = looped.post(KIND, came.way, type, payload, NO_LINE)
                        if came.line != NO_LINE:
                            came.left = type, payload
                            return False
                    return True
                number = 0
                while number >= 0:
                    number, came.left, came.line = looped.post_many(came.payloads, number)
                    if came.left is not None:
                        return False
                return True
            except BusError as why:
                self._refuse(came, why)

    def _refuse(self, came: _Came, why: BusError) -> None:
        """One of them cannot be published here: it is too large, or the endpoint has ended."""
        if isinstance(why, Disconnected):
            came.payloads = iter(())
            self._node.end(why)
            return
        self.refused += 1
        log.warning("link %s: an event that came is lost: %s", self._node.config.site, why)

    async def _publish_behind(self, peer: Peer) -> None:
        """What waits, one frame after the other."""
        behind = self._behind[peer]
        try:
            while behind:
                came = behind[0]
                if came.run.way & KEPT:
                    await self._leave_out(came)
                while came.left is not None or not self._publish(came):
                    await self._publish_left(came)
                behind.popleft()
                peer.arrivals.release(came.held)
                self._node.acknowledge(peer)
        finally:
            del self._behind[peer], self._working[peer]

    async def _publish_left(self, came: _Came) -> None:
        """The one that found no space."""
        if came.left is not None:
            posting = self._node.endpoint._posting
            try:
                await posting.in_line(came.line, KIND, came.way, *came.left, None)
            except BusError as why:
                self._refuse(came, why)
            came.left = None

    async def _leave_out(self, came: _Came) -> None:
        """Of values that were kept elsewhere, those that this bus has, or has a newer one of."""
        endpoint = self._node.endpoint
        kept = await in_thread(endpoint.name, "looking", partial(endpoint.bus.retained, came.type))
        payloads = [payload for _, payload in came.payloads]
        here, clock = monotonic_ns(), time.time()
        latest = max((value.sent for value in kept), default=0.0)
        new = []
        for payload in payloads:
            origin = payload.origin
            assert origin is not None
            known = any(
                value.site == origin.site and value.stamp_ns >= origin.sent_there_ns
                for value in kept
                if value.source == f"{origin.source}@{origin.site}"
            )
            if not known and clock - (here - origin.sent_ns) / 1e9 >= latest:
                new.append((came.type, payload))
        came.payloads = iter(new)

    def close(self) -> None:
        """Publish no more."""
        for working in self._working.values():
            working.cancel()


def _parts(run: Run, payload: bytes) -> list[bytes]:
    """The payloads of its events. Raises `Garbage`."""
    lengths, count = run.lengths, len(run.sent_ns)
    if not count:
        raise wire.Garbage("no event")
    if len(lengths) == 1:
        size = lengths[0]
        if size * count != len(payload):
            raise wire.Garbage(f"{count} events of {size} bytes in {len(payload)}")
        if count == 1:
            return [payload]
        return [payload[at : at + size] for at in range(0, len(payload), size or 1)][:count] or [
            b""
        ] * count
    if len(lengths) != count or sum(lengths) != len(payload):
        raise wire.Garbage(f"{count} events of other lengths than {len(payload)} bytes")
    at, parts = 0, []
    for size in lengths:
        parts.append(payload[at : at + size])
        at += size
    return parts


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
