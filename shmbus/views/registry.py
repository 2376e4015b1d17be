"""The endpoints on a bus, as the rows of its slots and the segments behind them show them.

Nothing here writes or locks: rows are read under their sequence numbers.
"""

from __future__ import annotations

import time

import numpy as np

from shmbus.shared import layout, names
from shmbus.shared.processes import namespace, process_alive

from .discovery import bus_info, open_bus
from .endpoints import EndpointView, Target
from .facts import BusInfo, Clock, EndpointInfo, PendingRequest
from .memory import steady


class Registry:
    """The rows of one bus and the endpoints behind them. Not for several threads at once."""

    def __init__(self, bus: str) -> None:
        self.bus = names.names_of(bus)
        memory = open_bus(bus)
        self.head = layout.view(memory, layout.BUS)
        slots, rows = int(self.head[0]["slots"]), int(self.head[0]["rows_offset"])
        self._rows = layout.view(memory, layout.ROW, slots, rows)
        self._known: dict[tuple[int, int], EndpointView] = {}

    def info(self, clock: Clock | None = None) -> BusInfo:
        """The bus itself."""
        return bus_info(self.bus.bus, self.head, clock or Clock.now())

    def endpoints(self, clock: Clock | None = None) -> list[EndpointInfo]:
        """All endpoints that hold a slot, in the order of slots."""
        clock = clock or Clock.now()
        rows, still = steady(self._rows, "seq")
        there = still & (rows["state"] != layout.RowState.FREE)
        there &= rows["state"] <= layout.RowState.DYING
        known, found = self._known, []
        self._known = {}
        # A pid of another namespace means nothing here: such an endpoint is taken for alive.
        here = namespace("pid")
        foreign = ~np.isin(rows["identity"]["pid_namespace"], (0, here))
        alive: dict[tuple[int, int], bool] = {}
        for slot in np.flatnonzero(there).tolist():
            row = rows[slot]
            key = slot, int(row["generation"])
            endpoint = known.get(key) or EndpointView(self.bus, slot, row)
            self._known[key] = endpoint
            process = endpoint.owner.pid, endpoint.owner.start
            if process not in alive:
                alive[process] = bool(foreign[slot]) or process_alive(*process)
            found.append(endpoint.info(row, clock, alive[process]))
        return found

    def requests(self, slot: int, generation: int) -> list[PendingRequest]:
        """The requests under way of one endpoint, of those that `endpoints` saw last."""
        endpoint = self._known.get((slot, generation))
        if endpoint is None:
            return []
        names_of = {Target.of(e.slot, e.generation): e.name for e in self._known.values()}
        now = time.monotonic_ns()
        return [
            PendingRequest(
                correlation_id=request.correlation_id,
                deadline=(request.deadline_ns - now) / 1e9,
                handler=None if request.target is None else names_of.get(request.target),
            )
            for request in endpoint.requests()
        ]

    def waiting(self, slot: int, generation: int) -> list[int]:
        """When those messages were sent that wait for one endpoint, of those that `endpoints` saw
        last: CLOCK_MONOTONIC, in nanoseconds."""
        endpoint = self._known.get((slot, generation))
        return [] if endpoint is None else list(endpoint.waiting())
