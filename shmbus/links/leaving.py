"""Events of this bus for others.

They are put together by runs of one type from one endpoint, so that under load one frame has many
messages; when nothing more waits, it leaves at once. The kernel takes a run as a whole: here
nothing is done for each message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from shmbus.endpoint._kernel import Message, entry_of
from shmbus.errors import Disconnected
from shmbus.shared.frames import Bytes
from shmbus.shared.layout import RecordFlag

from . import wire
from .peer import Peer
from .runs import KEPT, RETAIN, URGENT, Run
from .sure import groups_held

if TYPE_CHECKING:
    from shmbus.views import Retained

    from .node import Node

log = logging.getLogger("shmbus")

MOST = 48 << 10
"""Bytes of payloads after which a frame leaves, at the latest."""

AGAIN = 0.5
"""Seconds until the next try where one has failed."""

_PLANS = 4096  # types whose ways are remembered
_ENTRY = len(entry_of(0, 0))

_RETAIN, _URGENT = int(RecordFlag.RETAIN), int(RecordFlag.URGENT)
_IS_EVENT, _IS_PLAIN = 1 << 16, 1 << 17  # see `Message._passing`


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
        """And where these go,"""
        self._vanished: tuple[str, ...] = ()
        """and those of their groups that no other site has a member of."""
        self._relay = node.relay
        self._pausing: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Take from the bus."""
        self._iteration = self._node.endpoint.__aiter__()
        self._relay.take_by(self._take)

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
        self._relay.take_by(None)
        if self._pausing is not None:
            self._pausing.cancel()
        self.flush()

    def _take(self) -> None:
        """In a turn of the endpoint's: all that waits."""
        relay, iteration = self._relay, self._iteration
        try:
            while (message := iteration.take()) is not None:
                self._add(message, *relay.take_run(message))
        except Disconnected as why:
            self._relay.take_by(None)
            self._node.end(why)
            return
        except Exception as why:  # such as a large payload that there is no memory to look at
            log.error("link %s: an event cannot be passed on: %r", self._node.config.site, why)
            self.flush()
            self._pause(asyncio.sleep(AGAIN))
            return
        self.flush()
        for peer in self._gathered:
            if peer.channel.full:
                self._pause(peer.channel.space())
                return
        if relay.paused:
            relay.again()

    def _pause(self, until: Coroutine[Any, Any, None]) -> None:
        """Take nothing for so long."""

        async def pause() -> None:
            await until
            self._relay.take_by(self._take)

        self._relay.take_by(None)
        self._pausing = asyncio.get_running_loop().create_task(pause())

    def _add(self, message: Message, payloads: Bytes, table: bytes) -> None:
        bits, groups = message._passing()
        alike = message.type, message.source, bits, groups
        if alike != self._last:
            self._ways, self._vanished = self._find(*alike)
            self._last = alike
        if self._vanished:
            message._nack_groups(
                self._vanished, reason="no other site has a member of its group any more"
            )
        if message.lost:  # by this link's ring, whose types nobody knows
            for gathered, kind in self._ways:
                gathered.peer.channel.miss(kind.there, message.lost)
        for gathered, kind in self._ways:
            gathered.add(kind, payloads, table)

    def _find(
        self, type: str, source: str, bits: int, groups: tuple[str, ...]
    ) -> tuple[list[tuple[_Gathered, _Kind]], tuple[str, ...]]:
        form = wire.FORMAT_OF.get(bits & wire.FORMAT_BITS)
        if not bits & _IS_EVENT or form is None:  # of a payload that cannot be
            return [], groups
        key = type, bool(bits & _IS_PLAIN), groups
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._plans[key] = self._plan(*key)
        way = (RETAIN if bits & _RETAIN else 0) | (URGENT if bits & _URGENT else 0)
        ways = [
            (gathered, _Kind(there, source, form, targets, way))
            for gathered, there, targets in plan
        ]
        wanted = {target for each in plan for target in each.targets}
        return ways, tuple(group for group in groups if group not in wanted)

    def _plan(self, type: str, plain: bool, groups: tuple[str, ...]) -> tuple[_Plan, ...]:
        found = []
        local = self._node.config.groups == "local"
        one = {} if local else {group: self._member(type, group) for group in groups}
        for peer in self._node.peers.known():
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
        for peer in self._node.peers:
            there = peer.rules.outward(type)
            if there is not None and peer.up and group in peer.table.receivers(there)[1]:
                found.append(peer)
        return next(iter(self._node.peers.nearest(found)), None)

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
