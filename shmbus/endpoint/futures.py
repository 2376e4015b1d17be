"""Requests whose caller does not wait: one thread of an endpoint completes their futures.

It starts with the first of them and waits, in the C kernel, for a reply, a deadline or the end of
the bus. `request` waits in its caller's thread and does not need it.
"""

from __future__ import annotations

import heapq
import threading
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.shared._kernel import monotonic_ns

from .background import Background

if TYPE_CHECKING:
    from ._kernel import EndpointCore, Message, PendingReply

_MANY = 1024
"""Deadlines in the heap above which those of completed futures are removed."""


class Reply(Future["Message"]):
    """The future of a request. Cancelling it frees its entry in the table of requests."""

    endpoint: EndpointCore | None = None
    index = 0

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self.endpoint is not None:
            self.endpoint._requests.withdraw(self.index, self)
        return cancelled


class Pump:
    """Sends the requests of one endpoint that have futures, and completes these."""

    def __init__(self, endpoint: EndpointCore) -> None:
        self._endpoint = endpoint
        self._requests = endpoint._requests
        self._lock = threading.RLock()
        self._thread = Background(endpoint.name, "futures", self._run)
        self._deadlines: list[PendingReply] = []  # a heap
        self._many = _MANY
        self._until: int | None = None

    def ask(
        self, type: str, payload: object, timeout: float | None, reply_type: Any
    ) -> Future[Message]:
        """The future of a request, which is sent now."""
        self._thread.ensure()
        future = Reply()
        pending = self._requests.begin(
            type, payload, future, timeout=timeout, reply_type=reply_type
        )
        future.endpoint, future.index = self._endpoint, pending.index
        self._watch(pending)
        return future

    def _watch(self, pending: PendingReply) -> None:
        """Fail the future at its deadline, if it is not done by then."""
        with self._lock:
            heapq.heappush(self._deadlines, pending)
            if len(self._deadlines) > self._many:  # most are done, but not the first
                self._deadlines = [one for one in self._deadlines if not one.future.done()]
                heapq.heapify(self._deadlines)
                self._many = 2 * len(self._deadlines) + _MANY
            late = self._until is None or pending.deadline < self._until
            self._thread.ensure()
        if late:
            self._requests.nudge()

    def fail(self, error: BaseException) -> None:
        """Fail all of them."""
        with self._lock:
            orphaned = self._orphans()
        for future in orphaned:
            _fail(future, error)

    def _orphans(self) -> list[Future[Message]]:
        self._deadlines.clear()
        return self._requests.take_all()

    def _run(self) -> None:
        try:
            while True:
                self._expire()
                for completed in self._requests.collect(self._until):
                    if completed.error is not None:
                        _fail(completed.future, completed.error)
                    elif completed.message is not None:
                        _succeed(completed.future, completed.message)
        except errors.BusError as why:
            with self._lock:
                self._thread.leave()
                orphaned = self._orphans()
            for future in orphaned:
                _fail(future, why)

    def _expire(self) -> None:
        now = monotonic_ns()
        expired = []
        with self._lock:
            heap = self._deadlines
            while heap and (heap[0].deadline <= now or heap[0].future.done()):
                expired.append(heapq.heappop(heap))
            self._until = heap[0].deadline if heap else None
        for pending in expired:
            error = self._requests.expire(pending)
            if error is not None:
                _fail(pending.future, error)


def _succeed(future: Future[Message], message: Message) -> None:
    try:
        future.set_result(message)
    except InvalidStateError:
        pass  # it was cancelled meanwhile


def _fail(future: Future[Message], error: BaseException) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        pass
