"""An endpoint that writes by hand what no API lets it write: replies that nobody requested, records
with wrong fields, positions out of bounds, plain garbage.

It maps the segments of an attached endpoint writable, as any process of the same user may.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import posix_ipc

import shmbus
from shmbus.shared import layout

SHM = Path("/dev/shm")
DATA, REPLIES = 0, 1
EVENT, SEND, REQUEST, REPLY, ERROR = 1, 2, 3, 4, 5
RAW = 1


class Forger:
    """The writable side of `endpoint`, which must not send in the rings that are forged."""

    def __init__(self, endpoint: shmbus.Endpoint) -> None:
        seat = endpoint._seat
        names, owner = seat.names, seat.owner
        self.slot = seat.slot
        self.memory = _map(names.up(owner))
        self.interests_memory = _map(names.interests(owner, 1))
        self.ready_memory = _map(names.ready)
        self.up = np.frombuffer(self.memory, layout.UP, 1)[0]
        self.interests = np.frombuffer(self.interests_memory, layout.INTERESTS, 1)[0]
        self.places = [(int(p["offset"]), int(p["capacity"])) for p in self.up["outgoing_ring"]]
        count, at = int(self.up["pending_count"]), int(self.up["pending_offset"])
        self.pending = np.frombuffer(self.memory, layout.PENDING, count, at)
        down = _map(names.down(seat.slot, seat.generation))
        self.down = np.frombuffer(down, layout.DOWN, 1)[0]
        self.ready = np.frombuffer(self.ready_memory, "<u4", offset=layout.PREFIX.itemsize)
        self._bell = posix_ipc.Semaphore(names.bell)

    def ring_bell(self) -> None:
        """Make the dispatcher look here now."""
        self.ready[self.slot] += np.uint32(1)
        self._bell.release()

    def space(self, ring: int) -> int:
        """Bytes free in an outgoing ring."""
        used = int(self.up["outgoing"][ring]["head"]) - int(self.down["outgoing"][ring]["tail"])
        return self.places[ring][1] - used

    def push(self, ring: int, record: bytes, *, at: int | None = None) -> None:
        """A record as it is, sound or not. The caller has checked that there is space."""
        start, capacity = self.places[ring]
        head = int(self.up["outgoing"][ring]["head"]) if at is None else at
        span, left = -(-len(record) // 8) * 8, capacity - head % capacity
        if span > left:
            padding = left.to_bytes(4, "little") + bytes(4)
            self.memory[start + head % capacity : start + head % capacity + 8] = padding
            head += left
        self.memory[start + head % capacity : start + head % capacity + len(record)] = record
        self.up["outgoing"][ring]["head"] = head + span
        self.ring_bell()

    def rewrite(self, ring: int, position: int, record: bytes) -> None:
        """What stands there in an outgoing ring, and may have been looked at already."""
        start, capacity = self.places[ring]
        at = start + position % capacity
        self.memory[at + 8 : at + len(record)] = record[8:]  # it is as long as it was


def record(kind: int, type: str = "", payload: bytes = b"", **fields: int | bytes) -> bytes:
    """A record with a sound header, but for the `fields` given."""
    header = np.zeros(1, layout.RECORD)[0]
    header["kind"], header["flags"], header["attempt"] = kind, RAW, 1
    header["type_length"] = len(type)
    header["length"] = layout.RECORD.itemsize + len(type) + len(payload)
    for name, value in fields.items():
        header[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
    return bytes(header.tobytes()) + type.encode() + payload


def _map(name: str) -> mmap.mmap:
    with (SHM / name).open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
