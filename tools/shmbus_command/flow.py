"""What flows over a bus, counted by type or source in bounded memory: of `shmbus types`."""

from __future__ import annotations

from heapq import nlargest
from typing import Literal

import msgspec

from .filtering import Passed

By = Literal["type", "source", "both"]
KEPT = 2048
"""Types or sources that are told apart at least; of twice as many the rarer half is put together,
so that a type for each request takes no more memory."""
_NAMED = 4  # sources of a type, or types of a source, that are kept

_Key = tuple[str | None, str | None]


class Flow(msgspec.Struct, kw_only=True):
    """What has passed of one type, of one source, or of one type from one source."""

    type: str | None
    """None: of several."""
    source: str | None
    rate: float
    """Messages a second, since the report before."""
    bytes_per_second: float
    """Of payload, likewise."""
    count: int
    bytes: int
    """Of payload."""
    failed: int
    """Of these, errors, dead letters, and what did not arrive."""
    kinds: dict[str, int]
    of: list[str]
    """The sources of a type, or the types of a source, that were seen first."""
    more_of: bool
    """Whether there are others."""


class Report(msgspec.Struct, kw_only=True):
    """What has passed since the report before, and in all."""

    bus: str
    seconds: float
    """What rates are measured over."""
    missed: int
    """Copies that were not read in time, since the report before."""
    missed_in_all: int
    rate: float
    bytes_per_second: float
    count: int
    flows: list[Flow]
    """The busiest first."""
    others: int
    """Types or sources that are not among them, as far as they are told apart."""
    others_count: int
    """What has passed of these and of those that are not told apart any more."""

    @property
    def at_least(self) -> bool:
        """Whether there was more than was seen."""
        return self.missed_in_all > 0


class _Row:
    """What is counted of a flow; ``before``: up to the report before."""

    __slots__ = ("before", "bytes", "count", "failed", "kinds", "of")

    def __init__(self) -> None:
        self.count = self.bytes = self.failed = 0
        self.before = 0, 0
        self.kinds: dict[str, int] = {}
        self.of: dict[str, None] = {}

    def flow(self, key: _Key, seconds: float) -> Flow:
        count, size = self.before
        self.before = self.count, self.bytes
        return Flow(
            type=key[0],
            source=key[1],
            rate=(self.count - count) / seconds,
            bytes_per_second=(self.bytes - size) / seconds,
            count=self.count,
            bytes=self.bytes,
            failed=self.failed,
            kinds=self.kinds,
            of=list(self.of)[:_NAMED],
            more_of=len(self.of) > _NAMED,
        )


class Flows:
    """Counts what passes."""

    def __init__(self, bus: str, by: By, now: float) -> None:
        self._bus, self._by = bus, by
        self._rows: dict[_Key, _Row] = {}
        self._began = now
        self._before = 0, 0
        self._count = self._bytes = self._missed = self._missed_in_all = 0

    def miss(self, count: int) -> None:
        """So many copies did not come."""
        self._missed += count
        self._missed_in_all += count

    def add(self, passed: Passed) -> None:
        """Count it."""
        message, kind = passed.message, passed.tap.kind
        type, source, size = message.type, message.source, message.size
        key = (None if self._by == "source" else type, None if self._by == "type" else source)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= 2 * KEPT:
                self._forget()
            row = self._rows[key] = _Row()
        row.count += 1
        row.bytes += size
        row.failed += passed.failed
        row.kinds[kind] = row.kinds.get(kind, 0) + 1
        if self._by != "both" and len(row.of) <= _NAMED:
            row.of[source if self._by == "type" else type] = None
        self._count += 1
        self._bytes += size

    def report(self, now: float, most: int) -> Report:
        """What has passed since the report before; the ``most`` busiest one by one."""
        seconds = max(now - self._began, 1e-9)
        count, size = self._before
        flows = [row.flow(key, seconds) for key, row in self._rows.items()]
        shown = nlargest(most, flows, key=lambda flow: (flow.rate, flow.count))
        report = Report(
            bus=self._bus,
            seconds=seconds,
            missed=self._missed,
            missed_in_all=self._missed_in_all,
            rate=(self._count - count) / seconds,
            bytes_per_second=(self._bytes - size) / seconds,
            count=self._count,
            flows=shown,
            others=len(flows) - len(shown),
            others_count=self._count - sum(flow.count for flow in shown),
        )
        self._before = self._count, self._bytes
        self._missed, self._began = 0, now
        return report

    def _forget(self) -> None:
        """Keep the busier half."""
        busier = nlargest(KEPT, self._rows.items(), key=lambda item: item[1].count)
        self._rows = dict(busier)
