"""Requests that nobody waits for: one thread of an endpoint completes their futures.

It starts with the first of them and sits in the kernel until a reply, a deadline or the end of the
bus; calls that wait for themselves do without it.
"""

from __future__ import annotations

import heapq
import threading
import time
from concurrent.futures import Future, InvalidStateError
from itertools import count
from typing import TYPE_CHECKING

from shmbus import errors

if TYPE_CHECKING:
    from ._kernel import EndpointCore, Message

_MANY = 1024
"""Deadlines that are kept before those of futures that are done are looked for."""


class Reply(Future["Message"]):
    """The future of a request. Cancelled, it leaves its place to another request."""

    request: tuple[EndpointCore, int] | None = None

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self.request is not None:
            endpoint, index = self.request
            endpoint._withdraw_future(index, self)
        return cancelled


class Pump:
    """Settles the futures of one endpoint."""

    def __init__(self, endpoint: EndpointCore, label: str) -> None:
        self._endpoint, self._label = endpoint, label
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._deadlines: list[tuple[int, int, int, Future[Message]]] = []
        self._many = _MANY
        self._order = count()
        self._until: int | None = None

    def start(self) -> None:
        """Have the thread run; it may just have ended with the bus."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"shmbus:{self._label}:futures", daemon=True
                )
                self._thread.start()

    def watch(self, deadline: int, index: int, future: Future[Message]) -> None:
        """Let the future fail at `deadline`, ns by CLOCK_MONOTONIC, if it is not done by then."""
        with self._lock:
            heapq.heappush(self._deadlines, (deadline, next(self._order), index, future))
            if len(self._deadlines) > self._many:  # most are done, behind one that is not
                self._deadlines = [one for one in self._deadlines if not one[3].done()]
                heapq.heapify(self._deadlines)
                self._many = 2 * len(self._deadlines) + _MANY
            late = self._until is None or deadline < self._until
            self.start()
        if late:
            self._endpoint._nudge()

    def fail(self, error: BaseException) -> None:
        """Let all of them fail."""
        with self._lock:
            orphaned = self._orphans()
        for future in orphaned:
            settle(future, None, error)

    def _orphans(self) -> list[Future[Message]]:
        self._deadlines.clear()
        return self._endpoint._take_futures()

    def _run(self) -> None:
        try:
            while True:
                self._expire()
                for future, message, error in self._endpoint._collect(self._until):
                    settle(future, message, error)
        except errors.BusError as why:
            with self._lock:
                self._thread = None
                orphaned = self._orphans()
            for future in orphaned:
                settle(future, None, why)

    def _expire(self) -> None:
        now = time.monotonic_ns()
        expired = []
        with self._lock:
            heap = self._deadlines
            while heap and (heap[0][0] <= now or heap[0][3].done()):
                expired.append(heapq.heappop(heap))
            self._until = heap[0][0] if heap else None
        for _, _, index, future in expired:
            error = self._endpoint._expire_future(index, future)
            if error is not None:
                settle(future, None, error)


def settle(future: Future[Message], message: Message | None, error: BaseException | None) -> None:
    """Complete a future, unless it was cancelled."""
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(message)  # type: ignore[arg-type]
    except InvalidStateError:
        pass
