"""Events for one subscription alone, as a dispatcher sends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import shmbus
from shmbus.shared import layout
from shmbus.testing import eventually

SHM = Path("/dev/shm")


def address(endpoint: shmbus.Endpoint, *interests: int | None, retained: bool = False) -> None:
    """Of the events that wait for this endpoint, let each be for that one of its subscriptions
    (the first that it made is 1), or (None) for all."""
    seat = endpoint._seat
    up: Any = _view(SHM / seat.names.up(seat.owner), layout.UP)
    path = SHM / seat.names.down(seat.slot, seat.generation)
    down: Any = _view(path, layout.DOWN)
    eventually(lambda: int(down["incoming"][0]["delivered"]) >= len(interests))
    start, capacity = (
        int(down["incoming_ring"][0]["offset"]),
        int(down["incoming_ring"][0]["capacity"]),
    )
    position = int(up["incoming"][0]["taken"])
    for interest in interests:
        record: Any = _view(path, layout.RECORD, start + position % capacity)
        if interest is not None:
            record["flags"] |= layout.RecordFlag.RETAINED * retained | layout.RecordFlag.ALONE
            record["deadline_ns"] = interest
        position += -(-int(record["length"]) // 8) * 8


def _view(path: Path, what: layout.Dtype, offset: int = 0) -> Any:
    return np.memmap(path, np.uint8, "r+", offset, what.itemsize).view(what)[0]
