"""What the C kernel reads of BUS, as named tuples."""

from __future__ import annotations

from typing import NamedTuple


class BusFacts(NamedTuple):
    """What an attach needs of a bus."""

    state: int
    """A `layout.BusState`."""
    slots: int
    in_bytes: int
    out_bytes: int
    reply_bytes: int
    max_requests: int
    prefetch: int
    pool_bytes: int
    loans: int
    pid: int
    """The dispatcher's."""
    control_ns: int
    """When its control plane last ran: CLOCK_MONOTONIC. 0: never."""
    block_timeout_ns: int


class Row(NamedTuple):
    """One slot's row, read as a whole."""

    slot: int
    generation: int
    state: int
    """A `layout.RowState`."""
    pid: int
    reason: int
    """A `layout.Reason`."""
    name: str
