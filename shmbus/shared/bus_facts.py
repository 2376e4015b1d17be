"""What the kernel reads of BUS, as facts with names."""

from __future__ import annotations

from typing import NamedTuple


class BusFacts(NamedTuple):
    """What an attach needs to know of a bus."""

    state: int
    """A `layout.BusState`."""
    slots: int
    ring_bytes: int
    max_requests: int
    pid: int
    """The dispatcher's."""
    control_ns: int
    """When its control plane last ran: CLOCK_MONOTONIC. 0: never."""
    block_timeout_ns: int


class Row(NamedTuple):
    """One slot, read while nobody wrote it."""

    slot: int
    generation: int
    state: int
    """A `layout.RowState`."""
    pid: int
    reason: int
    """A `layout.Reason`."""
    name: str
