"""Who may do what on the bus that an executor serves for itself: its workers, known by their
processes, what a worker does; anybody else may listen to the bus's own events, and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from shmbus.shared.grants import Candidate, Grant

from . import wire

_OTHERS = Grant(subscribe=("$bus.>",))


class Admission:
    """The `grants` of such a bus: ``serve(name, grants=admission)``."""

    def __init__(self, pool: str) -> None:
        self._lock = threading.Lock()
        self._pids = set[int]()
        self._workers = Grant(
            subscribe=(wire.end_type(pool),),
            handle=(wire.task_type(pool),),
            request=(wire.ready_type(pool), wire.report_type(pool)),
        )

    @contextmanager
    def starting(self) -> Iterator[set[int]]:
        """A block in which a worker is started, and its pid is added to what this gives: it may be
        at the door before."""
        with self._lock:
            yield self._pids

    def ended(self, pid: int) -> None:
        """That worker has ended: its pid may be another's."""
        with self._lock:
            self._pids.discard(pid)

    def __call__(self, candidate: Candidate) -> Grant:
        with self._lock:
            return self._workers if candidate.pid in self._pids else _OTHERS
