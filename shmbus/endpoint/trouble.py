"""The errors for what keeps an endpoint's calls from proceeding."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import IntFlag
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from ringbuf import layout_text
from shmbus import errors
from shmbus.shared import _kernel, names, processes, segments, shortage
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.failures import from_code
from shmbus.shared.layout import BEGUN, BUS, DOWN, BusState, DownState, FaultCode, Reason, offset
from shmbus.shared.messages import reason_word

if TYPE_CHECKING:
    from shmbus.shared.grants import Right
    from shmbus.views.facts import Pool
    from shmbus.views.observe import BusView

    from .seat import Seat
    from .upcalls import BadRing, Fault, Full, Unanswered


SILENCE = 0.5
"""Seconds without a heartbeat (there is one every 0.1 s) after which a dispatcher hangs."""


_NAMED = 3  # of those to whom a request may have gone


class Standstill(NamedTuple):
    """A dispatcher that does not get on."""

    pid: int
    silent: float
    """Seconds since its last heartbeat."""
    stopped: bool


def _together(pools: list[Pool]) -> list[tuple[str, int]]:
    """How much each has of what all pools may have: those that have some, the largest first."""
    sums = Counter[str]()
    for pool in pools:
        sums[pool.endpoint or errors.GONE] += pool.granted
    return (+sums).most_common()


def _one_of(endpoints: list[str]) -> str:
    """Some of their names."""
    named, more = endpoints[:_NAMED], len(endpoints) - _NAMED
    return " or ".join(named) + (f", or one of {more} more" if more > 0 else "")


def inside_run(endpoint: str) -> errors.ReceiveConflict:
    """The error of a call that would receive while `run` does."""
    return conflict(endpoint, "it is inside run(), which takes its messages")


def conflict(endpoint: str, reason: str) -> errors.ReceiveConflict:
    """The error where callbacks and receiving exclude each other."""
    return errors.ReceiveConflict(
        endpoint=endpoint,
        reason=reason,
        remedy="Give every subscription a callback and use run(), or iterate",
    )


class Explanations:
    """The errors of one endpoint. `view` gives the bus as its process sees it."""

    def __init__(self, seat: Seat, view: Callable[[], BusView]) -> None:
        self._seat, self._view = seat, view
        self._since = monotonic_ns()

    def trouble(self, trouble: int, bad_ring: BadRing | None) -> errors.BusError:
        """The error for what keeps its calls from proceeding."""
        if trouble & Trouble.CLOSED_HERE:
            return errors.EndpointClosed(endpoint=self._seat.name)
        if trouble & Trouble.EVICTED:
            return self._evicted()
        if trouble & Trouble.RING_BAD and bad_ring is not None:
            return errors.RingCorrupt(
                endpoint=self._seat.name,
                ring=bad_ring.name,
                position=bad_ring.position,
                reason="it holds what no dispatcher writes",
            )
        return self._bus_down(trouble)

    def _evicted(self) -> errors.Evicted:
        """The dispatcher has ended this endpoint."""
        row = _kernel.read_row(self._seat.bus, self._seat.slot)
        known = row is not None and row.generation == self._seat.generation
        reason = row.reason if row is not None and known else Reason.EVICTED
        return errors.Evicted(endpoint=self._seat.name, reason=reason_word(reason))

    def _bus_down(self, trouble: int) -> errors.BusDown:
        """The bus has no dispatcher, for now or for good."""
        remedy, reconnect = "", "True"
        if trouble & Trouble.BUS_OVER:
            reason, remedy, reconnect = self._over()
        elif trouble & Trouble.BUS_HANDED:
            reason = "its dispatcher left it to a successor"
        else:
            reason = "its dispatcher died"
        return errors.BusDown(
            bus=self._seat.names.bus,
            reason=reason,
            pid=_kernel.bus_facts(self._seat.bus).pid,
            remedy=remedy,
            reconnect=reconnect,
        )

    def _over(self) -> tuple[str, str, str]:
        """Why the bus is over for this endpoint, what to do where another one does not help, and
        which `reconnect=` lets calls wait for another."""
        mine, theirs = _kernel.layout_hash(), self._seat.bus.read_prefix().superseded_by
        if theirs:
            reason = (
                f"a bus of layout {layout_text(theirs)} took the place of this one of layout "
                f"{layout_text(mine)}"
            )
            return reason, "Install the same version of shmbus everywhere, and attach anew", ""
        ended = self._seat.down.load(offset(DOWN, "state")) == DownState.ENDED
        if not ended and _kernel.bus_facts(self._seat.bus).state != BusState.ENDED:
            reason = "somebody removed its names, and another bus has its place"
            return reason, "Attach anew", ""
        return "it has been ended", "", "" if self._seat.reconnect == "always" else "always"

    def no_answer(self, seconds: float) -> errors.AttachTimeout:
        """The dispatcher is there, and has not answered for so long."""
        facts = _kernel.bus_facts(self._seat.bus)
        silent = (monotonic_ns() - facts.control_ns) / 1e9 if facts.control_ns else None
        return errors.AttachTimeout(
            bus=self._seat.names.bus,
            seconds=seconds,
            pid=facts.pid,
            silent=silent,
            stopped=processes.stopped(facts.pid),
        )

    def not_taken(self, seconds: float, refusal: str) -> errors.BusError:
        """The dispatcher has not taken its eventfd for so long; what it answered to that."""
        if not refusal:
            return self.no_answer(seconds)
        reason, _, remedy = refusal.partition("\n")
        pid = _kernel.bus_facts(self._seat.bus).pid
        return errors.Refused(bus=self._seat.names.bus, reason=reason, remedy=remedy, pid=pid)

    def _standstill(self) -> Standstill | None:
        """The dispatcher, where it is there and does not get on."""
        pid = _kernel.bus_facts(self._seat.bus).pid
        beat = self._seat.bus.load(offset(BUS, "heartbeat_ns"))  # old where nobody was attached
        silent = (monotonic_ns() - max(beat, self._since)) / 1e9
        stopped = processes.stopped(pid)
        return Standstill(pid, silent, stopped) if stopped or silent > SILENCE else None

    def full(self, full: Full) -> errors.QueueFull:
        """Its own ring stayed full: nothing has left it, or too little; or its own pool."""
        still = self._standstill()
        holders, together = list[tuple[str, int]](), list[tuple[str, int]]()
        if full.setting == "pool_bytes" and still is None:
            with suppress(errors.BusError):
                pools = self._view().pools(untaken=True)
                full, holders = self._pool_full(full, pools)
                if full.setting == "pool_total_bytes":
                    together = _together(pools)
        return errors.QueueFull(
            endpoint=self._seat.name,
            dispatcher=still and still.pid,
            silent=still.silent if still else 0.0,
            stopped=still is not None and still.stopped,
            type=full.type,
            depth=full.depth,
            capacity=full.capacity,
            seconds=full.seconds,
            setting=full.setting,
            index=full.number,
            holders=tuple(holders),
            payloads=full.payloads,
            largest=full.largest,
            pools=tuple(together),
        )

    def _pool_full(self, full: Full, pools: list[Pool]) -> tuple[Full, list[tuple[str, int]]]:
        """Who holds how much of its pool, and which setting keeps it from growing."""
        pool = next((p for p in pools if p.endpoint == self._seat.name), None)
        if pool is None:
            return full, []
        if pool.asked > pool.granted:
            full = full._replace(setting="pool_total_bytes", capacity=pool.granted)
        held = Counter[str]()
        for one in (*pool.holders, *pool.untaken):
            held[one.endpoint or "?"] += one.bytes
        if pool.kept:
            held[errors.KEPT] = pool.kept
        if full.lent:
            held[errors.LENT] = full.lent
        return full, held.most_common()

    def shortage(self, number: int) -> errors.BusError:
        """Its pool could not be made, or enlarged."""
        name = self._seat.names.pool(self._seat.slot, self._seat.generation)
        return segments.pool_error(name, number)

    def unmapped(self, number: int, type: str, source: str | None) -> errors.BusError:
        """The pool of `source` could not be mapped, so a message of this type was not taken."""
        what = (
            f"mapping in endpoint {self._seat.name!r} of the pool of {source!r}, for a message of "
            f"type {type!r} that waits to be received,"
        )
        return shortage.error(self._seat.names.bus, what, OSError(number, os.strerror(number)))

    def look_at_grant(self, right: Right, pattern: str, index: int | None = None) -> None:
        """Raises `Forbidden` where it may not do that with this type or pattern."""
        if self._seat.grant is not None and not self._seat.grant.covers(right, pattern):
            raise self._forbidden(right, pattern, index)

    def _forbidden(self, right: Right, pattern: str, index: int | None = None) -> errors.Forbidden:
        return errors.Forbidden(
            bus=self._seat.names.bus,
            endpoint=self._seat.name,
            right=right,
            type=pattern,
            granted=getattr(self._seat.grant, right, ()),
            index=index,
        )

    def fault(self, fault: Fault) -> errors.BusError:
        """What the dispatcher answered to a request instead of a handler."""
        died = fault.code == FaultCode.ENDPOINT_DIED
        if fault.code == FaultCode.HANDLER_FULL:
            return self._handler_full(fault)
        if fault.code == FaultCode.FORBIDDEN:
            return self._forbidden("request", fault.type)
        return from_code(
            fault.code,
            type=fault.type,
            endpoint=fault.endpoint,
            pid=fault.pid or None,
            reason=reason_word(fault.number % BEGUN) if died else "",
            begun=not died or fault.number >= BEGUN,
            size=fault.size,
            limit=0 if died else fault.number,
            correlation_id=UUID(bytes=fault.correlation_id) if fault.correlation_id else None,
        )

    def timeout(self, asked: Unanswered) -> errors.RequestTimeout:
        """No reply has come in time: who has the request, as far as it is known."""
        hint = ""
        pid: int | None
        begun: bool | None
        still = None if asked.down else self._standstill()
        if asked.waits:
            hint = "it still waits in the backlog, since nobody who handles it is free"
        elif not asked.endpoint:
            hint = "the bus has no dispatcher" if asked.down else "no handler was chosen yet"
        elif asked.ours:
            hint = "this endpoint handles it itself, and no thread of it was free to do so"
        pid, begun = None, False
        if asked.endpoint:
            pid, begun = self.holder(asked.endpoint, asked.generation, asked.correlation_id)
        endpoint = asked.endpoint or None
        if begun and names.rank(asked.endpoint):  # a link has passed it on
            there = self._view().beyond(asked.endpoint, asked.type)
            if len(there) == 1:
                endpoint, pid, begun = there[0].name, there[0].pid, None
            elif there:
                hint = f"it was passed on to {_one_of([each.name for each in there])}"
        return errors.RequestTimeout(
            type=asked.type,
            seconds=asked.seconds,
            inherited=asked.inherited,
            endpoint=endpoint,
            pid=pid,
            begun=begun,
            hint=hint,
            dispatcher=still and still.pid,
            silent=still.silent if still else 0.0,
            stopped=still is not None and still.stopped,
            parts=asked.parts,
        )

    def holder(
        self, endpoint: str, generation: int, correlation_id: bytes
    ) -> tuple[int | None, bool | None]:
        """The pid of an endpoint to which a request was given, and whether it has begun that."""
        with suppress(errors.BusError):
            found = self._view().has_begun(endpoint, generation, UUID(bytes=correlation_id))
            if found is not None:
                return found
        return None, None

    def _handler_full(self, fault: Fault) -> errors.QueueFull:
        """The handler's ring stayed full for `block_timeout`."""
        if not fault.endpoint:
            return errors.QueueFull(
                type=fault.type,
                endpoint="",
                depth=0,
                capacity=0,
                setting="backlog_bytes",
                seconds=_kernel.bus_facts(self._seat.bus).block_timeout_ns / 1e9,
            )
        endpoints = self._view().endpoints()
        ring = next((i.incoming for i in endpoints if i.name == fault.endpoint), None)
        return errors.QueueFull(
            type=fault.type,
            endpoint=fault.endpoint,
            depth=ring.depth if ring else 0,
            capacity=ring.capacity if ring else 0,
            seconds=_kernel.bus_facts(self._seat.bus).block_timeout_ns / 1e9,
        )


# Written by tools/build/layout.py from the headers; do not edit. ----------------------------------


class Trouble(IntFlag):
    """What keeps an endpoint's calls from proceeding."""

    CLOSED_HERE = 1  # this process closed the endpoint
    BUS_DEAD = 2  # the dispatcher's process is finished; a successor may adopt us
    BUS_HANDED = 4  # the dispatcher went and left the bus to a successor
    BUS_OVER = 8  # the bus has ended, or another took its place
    EVICTED = 16  # the dispatcher evicted us
    # an incoming ring, or a tail of an outgoing one, is not what the dispatcher writes
    RING_BAD = 32
    STOPPING = 64  # whoever receives shall come to an end
    FOR_GOOD = 57
    FOR_NOW = 6
