"""The endpoints on a bus, as the rows of its slots and the segments behind them show them.

Nothing here writes or locks: rows are read under their sequence numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec.structs import replace

from shmbus.shared import layout, names
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.processes import namespace, process_alive

from .backlogs import Backlogs
from .discovery import bus_info, open_bus
from .endpoints import REASONS, EndpointView, Target
from .facts import (
    Backlog,
    BusInfo,
    Clock,
    EndpointInfo,
    PastDeath,
    PastLoss,
    PendingRequest,
    Pool,
    Retained,
    SiteInfo,
)
from .groups import keyed_groups
from .memory import steady
from .pools import Pools
from .retained import Values
from .sites import Noted
from .usage import Leaders

_LOSSES = layout.words(layout.Loss)
_OF_LOSS = ["pid", "count", "size", "limit"]
_OF_DEATH = ["pid", "generation", "in_hand", "untouched", "pending"]


class Registry:
    """The rows of one bus and the endpoints behind them. Not for several threads at once."""

    def __init__(self, bus: str) -> None:
        self.bus = names.names_of(bus)
        memory = open_bus(bus)
        self.head = layout.view(memory, layout.BUS)
        slots, rows = int(self.head[0]["slots"]), int(self.head[0]["rows_offset"])
        self._rows = layout.view(memory, layout.ROW, slots, rows)
        self._known: dict[tuple[int, int], EndpointView] = {}
        self._backlogs = Backlogs(self.bus)
        self._values = values = Values(self.bus)
        head = self.head  # without `self`: closed, a view is gone at once, not at a collection
        self._pools = Pools(self.bus, lambda: values.blocks(int(head[0]["retained_chunks"])))

    def info(self, clock: Clock | None = None) -> BusInfo:
        """The bus itself."""
        return bus_info(self.bus.bus, self.head, clock or Clock.now())

    def endpoints(
        self,
        clock: Clock | None = None,
        leaders: Leaders | None = None,
        *,
        untaken: bool = False,
    ) -> list[EndpointInfo]:
        """All endpoints that hold a slot, in the order of slots. ``untaken``: see `Pools.look`."""
        clock, leaders = clock or Clock.now(), Leaders() if leaders is None else leaders
        rows, still = steady(self._rows, "seq")
        there = still & (rows["state"] != int(layout.RowState.FREE))
        there &= rows["state"] <= int(layout.RowState.DYING)
        known, found = self._known, []
        self._known = {}
        # A pid of another namespace means nothing here: such an endpoint is taken for alive.
        here = namespace("pid")
        foreign = ~np.isin(rows["identity"]["pid_namespace"], (0, here))
        alive: dict[tuple[int, int], bool] = {}
        for slot in np.flatnonzero(there).tolist():
            row = rows[slot]
            process = int(row["identity"]["pid"]), int(row["identity"]["start_time"])
            if process not in alive:
                leader = leaders[process[0]]
                alive[process] = bool(foreign[slot]) or process_alive(*process, leader)
            if not alive[process] and (row := self._again(slot, row)) is None:
                continue  # it left in good order, and its process ended, after we had read its row
            key = slot, int(row["generation"])
            endpoint = known.get(key) or EndpointView(self.bus, slot, row)
            self._known[key] = endpoint
            found.append(endpoint.info(row, clock, alive[process]))
        return self._pools.look(found, self._known.values(), untaken=untaken)

    def elsewhere(self, endpoints: list[EndpointInfo]) -> list[EndpointInfo]:
        """The endpoints of other sites, each once, by site and name. ``endpoints``: those of this
        bus, as `endpoints` saw them last."""
        found: dict[str, EndpointInfo] = {}
        for link, noted in self._noted(endpoints):
            for e in noted.endpoints():
                if link.routed:
                    found[e.name] = e
                else:  # what is sent to it does not go to the link yet
                    found.setdefault(e.name, replace(e, routed=False))
        return sorted(found.values(), key=lambda e: (e.site, e.name))

    def sites(self, endpoints: list[EndpointInfo]) -> list[SiteInfo]:
        """What links say of sites, their own first, then by name. ``endpoints``: likewise."""
        found = (site for _, noted in self._noted(endpoints) for site in noted.sites())
        return sorted(found, key=lambda site: (site.state != "here", site.name, site.link))

    def noted(self, endpoints: list[EndpointInfo]) -> dict[str, Noted]:
        """What links note, by their names. ``endpoints``: likewise."""
        return {link.name: noted for link, noted in self._noted(endpoints)}

    def _noted(self, endpoints: list[EndpointInfo]) -> Iterator[tuple[EndpointInfo, Noted]]:
        """The links among these endpoints, and what they note."""
        for endpoint in endpoints:
            if endpoint.state == "attached" and endpoint.passes_on:
                yield endpoint, self._known[endpoint.slot, endpoint.generation].log.noted

    def dropped(self) -> int:
        """What mailboxes had lost, and BUS does not count before their endpoints end: of those
        that `endpoints` saw last and that have not ended since."""
        return sum(endpoint.dropped for endpoint in self._known.values())

    def _again(self, slot: int, row: np.void) -> np.void | None:
        """The row of this endpoint as it is by now; None where it has gone."""
        rows, still = steady(self._rows[slot : slot + 1], "seq")
        if not still[0]:
            return row
        now: np.void = rows[0]
        there = layout.RowState.FREE < now["state"] <= layout.RowState.DYING
        return now if there and now["generation"] == row["generation"] else None

    def owners(self) -> dict[names.Owner, tuple[int, int]]:
        """Slot and generation of each endpoint, by who owns its segments."""
        rows, still = steady(self._rows, "seq")
        there = still & (rows["state"] != int(layout.RowState.FREE))
        return {
            names.owner_in(row): (slot, int(row["generation"]))
            for slot, row in zip(np.flatnonzero(there).tolist(), rows[there], strict=True)
        }

    def backlogs(self, endpoints: list[EndpointInfo], clock: Clock | None = None) -> list[Backlog]:
        """All backlogs, in the order of slots. ``endpoints``: who may take from them."""
        return self._backlogs.look(self.head[0]["backlog"].copy(), endpoints, clock or Clock.now())

    def pools(self, endpoints: list[EndpointInfo]) -> list[Pool]:
        """All pools: those of these endpoints, which `endpoints` saw last, and those of which
        somebody holds something though their endpoints have gone."""
        left = self._pools.left() if int(self.head[0]["pools_left"]) else []
        return [e.pool for e in endpoints if e.pool is not None] + left

    def owners_of_key(self, type: str) -> dict[int, list[str]]:
        """The groups in which a member owns the key of this type, by the member's generation."""
        found: dict[int, list[str]] = {}
        for group in keyed_groups(self.head[0]):
            owner = group.owner(type)
            if owner is not None:
                found.setdefault(owner, []).append(group.name)
        return found

    def retained(self, pattern: str) -> list[Retained]:
        """The values that are kept of the types that match."""
        return self._values.look(self._chunks, pattern, Clock.now())

    @property
    def _chunks(self) -> int:
        """Segments with values that are kept."""
        return int(self.head[0]["retained_chunks"])

    def deaths(self) -> tuple[dict[str, int], tuple[PastDeath, ...]]:
        """How many endpoints did not end in good order, by how they ended; and the last of them,
        latest first."""
        counts = self.head[0]["deaths"].tolist()
        last, whole = steady(self.head[0]["last_deaths"], "seq")
        found = last[whole & (last["nth"] != 0)]
        return (
            {word: counts[number] for number, word in REASONS.items() if counts[number]},
            tuple(
                PastDeath(
                    name=layout.text(death["name"]),
                    reason=REASONS.get(int(death["reason"]), "died"),
                    at=int(death["wall_ns"]) / 1e9,
                    **{field: int(death[field]) for field in _OF_DEATH},
                )
                for death in found[np.argsort(found["nth"])[::-1]]
            ),
        )

    def losses(self, clock: Clock) -> tuple[PastLoss, ...]:
        """What was lost last and nobody had chosen so, latest first."""
        last, whole = steady(self.head[0]["last_losses"], "seq")
        found = last[whole & (last["whom"] != 0)]
        return tuple(
            PastLoss(
                name=layout.text(loss["name"]),
                slot=target.slot,
                generation=target.generation,
                reason=_LOSSES.get(int(loss["why"]), "lost"),
                at=clock.at(int(loss["at_ns"])),
                type=layout.text(loss["type"]),
                source=layout.text(loss["source"]),
                **{field: int(loss[field]) for field in _OF_LOSS},
            )
            for loss in found[np.argsort(found["at_ns"])[::-1]]
            if (target := Target.unpack(int(loss["whom"]))) is not None
        )

    def requests(self, slot: int, generation: int) -> list[PendingRequest]:
        """The requests under way of one endpoint, of those that `endpoints` saw last."""
        endpoint = self._known.get((slot, generation))
        if endpoint is None:
            return []
        names_of = {Target.of(e.slot, e.generation): e.name for e in self._known.values()}
        now = monotonic_ns()
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
        return [] if endpoint is None else [int(h["sent_ns"]) for h in endpoint.untouched()]

    def has_begun(
        self, name: str, generation: int, correlation_id: bytes
    ) -> tuple[int, bool] | None:
        """The pid of one endpoint, and whether it has begun a request that was given to it. None:
        it is not there. Looks at the others only where that one is new: who has many such
        questions at once does not pay for all each time."""
        for slot in np.flatnonzero(self._rows["generation"] == generation).tolist():
            row = self._rows[slot : slot + 1].copy()[0]
            if layout.text(row["name"]) == name and (now := self._again(slot, row)) is not None:
                if (slot, generation) not in self._known:
                    self.endpoints()
                if (endpoint := self._known.get((slot, generation))) is not None:
                    untouched = (h["correlation"].tobytes() for h in endpoint.untouched())
                    return int(now["identity"]["pid"]), correlation_id not in untouched
        return None

    def noted_by(self, link: str) -> Noted | None:
        """What a link notes, one that `endpoints` saw last: given by its name, or by that of an
        endpoint which it has for one site. Looks at no others."""
        its = [e for e in self._known.values() if f"{link}.".startswith(f"{e.name}.")]
        its.sort(key=lambda e: len(e.name), reverse=True)
        return next((noted for e in its if (noted := e.noted()).endpoints()), None)
