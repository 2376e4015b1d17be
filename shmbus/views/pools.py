"""The pools of a bus, as their heads show them: who holds how much of whose.

A head is read from the file each time rather than mapped: a pool may be of any size, comes and goes
with what is sent, and its file belongs to an endpoint, which may cut it off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np

from ringbuf import RingbufError
from shmbus.limits import SHARES
from shmbus.shared import layout, names

from .endpoints import EndpointView, Target
from .facts import EndpointInfo, Holding, Pool
from .memory import open_file

_MOST = 1 << 46
"""Bytes of a payload; a table that says more holds garbage."""

_SEARCHED = 2048
"""Messages of an endpoint that are looked through for those whose payloads lie in pools."""

Held = dict[Target, tuple[int, int]]
"""How many payloads, and their bytes."""


class Pools:
    """Those of one bus. Not for several threads at once."""

    def __init__(self, bus: names.BusNames, kept: Callable[[], Iterable[np.void]]) -> None:
        """``kept``: what says where the payloads lie of values that are kept."""
        self._bus, self._find_kept = bus, kept
        self._names: dict[Target, str] = {}
        self._held: dict[Target, Held] = {}
        self._untaken: dict[Target, Held] = {}
        self._kept: Held = {}

    def look(
        self, endpoints: list[EndpointInfo], views: Iterable[EndpointView], *, untaken: bool
    ) -> list[EndpointInfo]:
        """The same endpoints, with what they hold of the pools of others, and others of theirs.
        ``views``: of these endpoints. What they have not taken is looked for with ``untaken``, or
        where a sender waits."""
        self._names = {Target.of(e.slot, e.generation): e.name for e in endpoints}
        self._held = {}  # by holder
        returned = dict[Target, int]()  # by pool
        known = {Target.of(view.slot, view.generation): view for view in views}
        for e in endpoints:
            head = None if e.pool is None else _head(self._bus.pool(e.slot, e.generation))
            if head is None:
                continue
            of = Target.of(e.slot, e.generation)
            if held := _shares(head):
                self._held[of] = held
            if of in known and (over := _returned(head, known[of])):
                returned[of] = over
        untaken |= any(e.pool is not None and e.pool.waiting for e in endpoints)
        self._untaken = {}
        for of, view in known.items() if untaken else ():
            held = _sum_of_blocks(view.untaken_blocks(_SEARCHED))
            if held:
                self._untaken[of] = held
        self._kept = self._look_for_kept() if untaken else {}
        if not (self._held or self._untaken or self._kept or returned):
            return endpoints
        return [self._completed(e, returned) for e in endpoints]

    def left(self) -> list[Pool]:
        """Those whose endpoints have gone, as of the last look at the endpoints."""
        found, kept = [], self._look_for_kept()
        for path, entry in names.entries(self._bus.bus):
            if entry.kind != "pool" or entry.slot is None or entry.generation is None:
                continue
            of = Target.of(entry.slot, entry.generation)
            if of in self._names:
                continue
            try:
                file = os.lstat(path)
            except FileNotFoundError:
                continue
            reserved = max(file.st_blocks * 512 - layout.POOL_DATA, 0)
            found.append(
                Pool(
                    endpoint=None,
                    slot=entry.slot,
                    generation=entry.generation,
                    limit=reserved,
                    asked=reserved,
                    granted=reserved,
                    reserved=reserved,
                    in_use=reserved,
                    waiting=False,
                    waits=0,
                    holders=self._of(self._held, of),
                    untaken=self._of(self._untaken, of),
                    kept=kept.get(of, (0, 0))[1],
                )
            )
        return found

    def _look_for_kept(self) -> Held:
        return _sum_of_blocks(self._find_kept())

    def _completed(self, e: EndpointInfo, returned: dict[Target, int]) -> EndpointInfo:
        of = Target.of(e.slot, e.generation)
        held = self._held.get(of, {})
        pool = e.pool
        if pool is not None:
            holders, untaken = self._of(self._held, of), self._of(self._untaken, of)
            kept = self._kept.get(of, (0, 0))[1]
            in_use = pool.in_use
            if not pool.waiting:  # who waits has taken note of what was returned
                in_use = max(in_use - returned.get(of, 0), 0)
            pool = msgspec.structs.replace(
                pool, holders=holders, untaken=untaken, kept=kept, in_use=in_use
            )
        return msgspec.structs.replace(e, pool=pool, holds=self._named(held))

    def _of(self, held: dict[Target, Held], pool: Target) -> tuple[Holding, ...]:
        """Who has what of a pool."""
        return self._named({who: of[pool] for who, of in held.items() if pool in of})

    def _named(self, held: Held) -> tuple[Holding, ...]:
        """The largest first."""
        found = [
            Holding(endpoint=self._names.get(who), count=count, bytes=size)
            for who, (count, size) in held.items()
        ]
        return tuple(sorted(found, key=lambda one: (-one.bytes, one.endpoint or "")))


def _shares(head: Any) -> Held:
    """What an endpoint holds, by whose pool it is in."""
    shares = head["shares"][: min(int(head["shares_used"]), SHARES)]
    return _sum_of(
        (Target.unpack(int(share["pool"])), int(share["bytes"]))
        for share in shares[shares["share"] != 0]
    )


def _returned(head: Any, view: EndpointView) -> int:
    """Bytes of the blocks that nobody has any more, and that their endpoint has not taken note
    of: it does when it needs one."""
    if view.down is None:
        return 0
    blocks, returned = head["blocks"], layout.view(view.down, layout.DOWN)[0]["returned"]
    over = (blocks["use"] != 0) & (blocks["use"] == returned)
    return sum(min(int(size), _MOST) for size in blocks["bytes"][over])


def _sum_of(found: Iterable[tuple[Target | None, int]]) -> Held:
    """The sum of payloads, each with whose pool it is in, and its bytes."""
    sums: Held = {}
    for pool, size in found:
        if pool is not None:
            count, sum = sums.get(pool, (0, 0))
            sums[pool] = count + 1, sum + min(size, _MOST)
    return sums


def _sum_of_blocks(found: Iterable[np.void]) -> Held:
    return _sum_of(
        (Target.of(int(b["pool_slot"]), int(b["pool_generation"])), int(b["length"])) for b in found
    )


def _head(name: str) -> Any:
    """The tables of a pool; None where it has gone, or is none."""
    try:
        with open_file(name) as pool:
            content = os.pread(pool, layout.POOL.itemsize, 0)
    except (OSError, RingbufError):
        return None
    if len(content) < layout.POOL.itemsize:
        return None
    head = np.frombuffer(content, layout.POOL, 1)[0]
    prefix = head["prefix"]
    same = int(prefix["layout"]) == layout.LAYOUT
    return head if same and int(prefix["kind"]) == layout.SegmentKind.POOL else None
