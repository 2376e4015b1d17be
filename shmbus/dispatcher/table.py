"""BUS as its dispatcher writes it: the head, and a row for each slot.

Others read it meanwhile, without a lock: what must be read as a whole changes under a sequence
number, which is odd during the change, and stays odd if the dispatcher is killed meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ringbuf import Segment
from ringbuf._kernel import Mapping
from shmbus.limits import MAX_SLOTS
from shmbus.settings import Settings
from shmbus.shared import layout, names, processes, segments
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.layout import RowState, SegmentKind
from shmbus.shared.names import BusNames, Owner


def create(bus: str, settings: Settings, package: bytes) -> Segment:
    """Make BUS, with every row free. Raises ``SegmentError``."""
    rows = layout.BUS.itemsize  # whole cache lines

    def prepare(memory: Mapping) -> None:
        head = layout.view(memory, layout.BUS)[0]
        head["identity"] = processes.identity()
        head["serial"] = 1
        head["started_ns"] = monotonic_ns()
        for word, value in settings.bus_words().items():
            head[word] = value
        head["rows_offset"] = rows
        head["name"] = bus.encode()
        head["package"] = package
        head["last_generation"] = 1  # the bus itself

    return segments.create(
        names.names_of(bus).bus_segment,
        rows + settings.max_endpoints * layout.ROW.itemsize,
        SegmentKind.BUS,
        prepare=prepare,
    )


class Table:
    """Writes BUS, except for the words that the C kernel writes."""

    def __init__(self, segment: Segment) -> None:
        self.memory = segment.memory
        self.head = layout.view(self.memory, layout.BUS)[0]
        self._rows_at = int(self.head["rows_offset"])
        self.rows = layout.view(self.memory, layout.ROW, int(self.head["slots"]), self._rows_at)

    def store(self, field: str, value: int) -> None:
        """Change one word of the bus."""
        self.memory.store(layout.offset(layout.BUS, field), value)

    def take_over(self, package: bytes) -> None:
        """Enter this process as the dispatcher, and make the sequence numbers even that the last
        one left odd."""
        with self._changing(layout.offset(layout.BUS, "identity_seq")):
            self.head["identity"] = processes.identity()
            self.head["serial"] += 1
            self.head["started_ns"] = monotonic_ns()
            self.head["package"] = package
        for slot, row in enumerate(self.rows):
            if int(row["seq"]) % 2:
                with self._changing_row(slot):
                    pass

    def listed(self, of: BusNames) -> set[str]:
        """The names of the segments that this dispatcher and those before it made, as far as BUS
        has them."""
        downs = {
            of.down(slot, int(row["generation"]))
            for slot, row in enumerate(self.rows)
            if int(row["state"]) != RowState.FREE
        }
        made = {
            of.retained(n) for n in range(min(int(self.head["retained_chunks"]), layout.CHUNKS))
        }
        made |= {
            name(first + n, int(generation))
            for name, first, word in (
                (of.backlog, MAX_SLOTS, "backlog"),
                (of.mailbox, layout.FIRST_MAILBOX, "mailbox"),
            )
            for n, generation in enumerate(self.head[word])
            if generation
        }
        return downs | made

    def next_generation(self) -> int:
        """One that no endpoint of this bus has had."""
        generation = int(self.head["last_generation"]) + 1
        self.store("last_generation", generation)
        return generation

    def enter(self, slot: int, generation: int, name: str, owner: Owner) -> None:
        """Give the slot to an endpoint."""
        identity = self.head["identity"].copy()  # of the same user and namespaces
        identity["pid"], identity["start_time"] = owner.pid, owner.start
        with self._changing_row(slot) as row:
            row["generation"] = generation
            row["reason"] = row["health"] = row["down_ns"] = row["down_emitted"] = 0
            row["since_ns"], row["since_wall_ns"] = monotonic_ns(), time.time_ns()
            row["identity"] = identity
            row["nonce"] = int(owner.nonce, 16)
            row["name"] = name.encode()
            row["state"] = RowState.LIVE

    def free(self, slot: int) -> None:
        """Mark the slot free. Keep the name: unread messages still refer to it."""
        with self._changing_row(slot) as row:
            row["state"] = RowState.FREE

    @contextmanager
    def _changing_row(self, slot: int) -> Iterator[Any]:
        with self._changing(self._rows_at + slot * layout.ROW.itemsize):
            yield self.rows[slot]

    @contextmanager
    def _changing(self, sequence: int) -> Iterator[None]:
        self.memory.store(sequence, (self.memory.load(sequence) + 1) | 1)
        try:
            yield
        finally:
            self.memory.store(sequence, self.memory.load(sequence) + 1)
