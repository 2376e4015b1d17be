"""The backlogs of a bus, as BUS and their segments show them, and who may take from them.

One that cannot be opened has been removed since its number was read, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ringbuf import RingbufError
from ringbuf._kernel import Mapping
from shmbus.limits import MAX_SLOTS
from shmbus.shared import layout, names, patterns

from .facts import Backlog, Clock, EndpointInfo, Losses, Ring
from .memory import copy_of, open_segment
from .oldest import oldest_sent

_IN = layout.offset(layout.BACKLOG, "down") + layout.offset(layout.DOWN, "incoming")
_HEAD = _IN + layout.offset(layout.DOWN_INCOMING, "head")
_TAIL = _IN + layout.offset(layout.DOWN_INCOMING, "reclaim")


class Backlogs:
    """Those of one bus, each opened once. Not for several threads at once."""

    def __init__(self, bus: names.BusNames) -> None:
        self._bus = bus
        self._known: dict[tuple[int, int], Mapping] = {}

    def look(self, numbers: Any, endpoints: Sequence[EndpointInfo], clock: Clock) -> list[Backlog]:
        """All that there are now. ``numbers`` is what BUS says of them."""
        known, self._known = self._known, {}
        found = []
        for index in np.flatnonzero(numbers).tolist():
            slot, generation = MAX_SLOTS + index, int(numbers[index])
            memory = known.get((slot, generation)) or self._open(slot, generation)
            if memory is not None:
                self._known[slot, generation] = memory
                found.append(_backlog(memory, slot, generation, endpoints, clock))
        return found

    def _open(self, slot: int, generation: int) -> Mapping | None:
        name = self._bus.backlog(slot, generation)
        try:
            return open_segment(name, layout.SegmentKind.BACKLOG, layout.BACKLOG.itemsize)
        except RingbufError:
            return None


def takers(group: str | None, type: str, endpoints: Sequence[EndpointInfo]) -> tuple[str, ...]:
    """The attached endpoints of which one gets a message of this type: the members of a group, or
    (None) the handlers of the most specific pattern."""
    interests = [i for e in endpoints if e.state == "attached" for i in e.interests]
    return tuple(sorted({i.endpoint for i in patterns.takers(group, type, interests)}))


def _backlog(
    memory: Mapping, slot: int, generation: int, endpoints: Sequence[EndpointInfo], clock: Clock
) -> Backlog:
    copy = copy_of(memory, layout.BACKLOG)
    down, group, type = copy["down"], layout.text(copy["group"]) or None, layout.text(copy["type"])
    late = int(copy["whom"])  # slot and generation, see sb_whom()
    subscriber = None
    if late:
        key = late & 0xFFFF, late >> 16 & 0xFFFFFFFF
        subscriber = next((e.name for e in endpoints if (e.slot, e.generation) == key), "")
    mine, ring = down["incoming"][0], down["incoming_ring"][0]
    capacity = int(ring["capacity"])
    sent = oldest_sent(
        memory,
        int(ring["offset"]),
        capacity,
        next=lambda: memory.load(_TAIL),
        head=lambda: memory.load(_HEAD),
    )
    return Backlog(
        group=group,
        type=type,
        subscriber=subscriber,
        slot=slot,
        generation=generation,
        takers=takers(group, type, endpoints) if subscriber is None else (subscriber,),
        waiting=max(int(mine["delivered"]) - int(down["forwarded"]), 0),
        oldest=None if sent is None or subscriber is not None else clock.age(sent),
        ring=Ring(
            depth=min(max(int(mine["head"]) - int(mine["reclaim"]), 0), capacity),
            capacity=capacity,
            high=min(int(mine["high"]), capacity),
        ),
        lost=int(down["lost"]),
        lost_by=Losses.of(down),
    )
