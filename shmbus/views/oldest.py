"""Since when the first message of a ring waits, by the time that stands in every record.

The ring is in use meanwhile: what was read counts only if the ring's consumer has not moved.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ringbuf._kernel import Mapping
from shmbus.shared import layout

_TRIES = 8
"""Beyond them its consumer moves all the time, so nothing waits there for long."""

_SENT = layout.offset(layout.RECORD, "sent_ns")
_FLAGS = layout.offset(layout.RECORD, "flags")


def oldest_sent(
    memory: Mapping, at: int, capacity: int, *, next: Callable[[], int], head: Callable[[], int]
) -> int | None:
    """When the record was sent that its consumer comes to next, in nanoseconds of CLOCK_MONOTONIC;
    None where none waits. ``memory`` holds the ring's data from byte ``at`` on; ``next`` and
    ``head`` read its positions."""
    if capacity <= 0 or at < layout.PREFIX.itemsize or at + capacity > memory.size:
        return None
    for _ in range(_TRIES):
        position = next()
        sent = _sent_at(memory, at, capacity, position, head())
        if sent is None or next() == position:
            return sent
    return None


def _sent_at(memory: Mapping, at: int, capacity: int, position: int, head: int) -> int | None:
    data = memoryview(memory)
    for _ in range(2):  # padding, then a record
        start = position % capacity
        if position % 8 or not 0 < head - position <= capacity or start + 8 > capacity:
            return None
        length, kind = struct.unpack_from("<IH", data, at + start)
        if kind != layout.PADDING:
            if start + layout.RECORD.itemsize > capacity:
                return None
            flags = struct.unpack_from("<H", data, at + start + _FLAGS)[0]
            if flags & layout.RecordFlag.RETAINED:  # sent long ago, and not waiting since then
                return None
            return int(struct.unpack_from("<Q", data, at + start + _SENT)[0])
        position += -(-length // 8) * 8
    return None
