"""Requests whose caller does not wait: their futures, and the thread that attends to them.

Whoever waits for a future collects its reply, and those of others that have come, in the C kernel.
The thread tells those who do not wait there: callbacks, and callers of `concurrent.futures.wait`.
It takes no lock that it would have to wait for: a caller whom a signal's handler interrupts can
leave the lock of a future taken.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.shared._kernel import monotonic

from ._kernel import PendingReply
from .background import Background

if TYPE_CHECKING:
    from ._kernel import EndpointCore, Message

log = logging.getLogger("shmbus")

_MANY = 1024
"""Deadlines in the heap above which those of completed futures are removed."""

_NEVER = 2**64 - 1

LATER = 5_000_000
"""Nanoseconds after which a future whose condition somebody holds is told again."""

FAREWELL = 1.0
"""Seconds that an endpoint which closes waits for the callbacks of its futures."""

SLICE = 0.25
"""The longest sleep, in seconds, of who waits for several futures: a signal may come between the
check for it and the sleep."""


class _Told:
    """What a caller of `concurrent.futures.wait` waits at: like `threading.Event`, but nobody can
    leave a lock taken that `set` needs."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        return not self._gate.locked()

    def set(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is open
            self._gate.release()

    def clear(self) -> None:
        self._gate.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        end = math.inf if timeout is None else monotonic() + timeout
        while not self._gate.acquire(timeout=min(SLICE, max(0.0, end - monotonic()))):
            if monotonic() >= end:
                return False
        self.set()
        return True


class _Waiters(list[Any]):
    """Those of one future. They come while it is held, and so are all others that they wait for:
    nobody has told them of anything."""

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, _Told):
            waiter.event = _Told()
        super().append(waiter)


class Reply(PendingReply, Future["Message"]):  # type: ignore[override]  # what that does, anew
    """The future of a request. Cancelling it frees its entry in the table of requests."""

    _watched = False
    """Whether its condition is told when it is done."""

    __hash__ = object.__hash__

    def add_done_callback(self, callback: Callable[[Future[Message]], object]) -> None:
        """Call it with this future once that is done, in a thread of the endpoint's own, or here
        and now if it is done. Raises `NoThread`."""
        self._pump.thread.ensure()
        if self._hook(callback):
            self._pump.expect(self)
            return
        try:
            callback(self)
        except Exception:  # what else a signal's handler raises here is the caller's
            log.exception("the callback of %r raised", self)

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        """What `concurrent.futures.wait` and `as_completed` hold to look at several at once."""
        condition = self._guarded
        if condition is None or not self._watched:  # it was interrupted in the midst of this
            self._pump.thread.ensure()
            condition = self._guard(threading.Condition(), _Waiters())
            if self._hook(None):
                self._pump.expect(self)
            elif not self._tell():  # its reply was there, and nobody had looked
                self._pump.tell_later(self)
            self._watched = True
        return condition

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        """What asyncio copies: done, cancelled, result, exception."""
        if not self.done() or self.cancelled():
            return self.done(), self.cancelled(), None, None
        error = self.exception()
        return True, False, None if error else self.result(), error

    def set_result(self, result: Message) -> None:
        raise InvalidStateError("the bus sets the result of a request")

    def set_exception(self, exception: BaseException | None) -> None:
        raise InvalidStateError("the bus sets the result of a request")

    def set_running_or_notify_cancel(self) -> bool:
        raise InvalidStateError("the bus sets the result of a request")

    def _tell(self) -> bool:
        """Tell who wants to know that it is done: False if somebody holds its condition."""
        for callback in self._unhook():
            try:
                callback(self)
            except BaseException:  # sys.exit() included: the thread has others to tell
                log.exception("the callback of %r raised", self)
        condition = self._guarded
        if condition is None:
            return True
        if not condition.acquire(blocking=False):
            return False
        try:
            self._show()
            for waiter in self._waiters:
                if self.cancelled():
                    waiter.add_cancelled(self)
                elif self.exception() is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
        finally:
            condition.release()
        return True


class Pump:
    """Attends to the futures of one endpoint: ends them at their deadlines, and tells who waits for
    several of them, or has a callback."""

    def __init__(self, endpoint: EndpointCore) -> None:
        self._requests = endpoint._requests
        self.thread = Background(endpoint.name, "futures", self._run)
        self._expected: list[Reply] = []  # those that the thread has not yet in its heap
        self._deadlines: list[Reply] = []  # a heap
        self._late: list[Reply] = []  # those whose condition somebody held
        self._done: list[Reply] = []  # and those of which another thread says so
        self._many = _MANY
        self._until = _NEVER
        self._requests.serve(Reply, self)

    def expect(self, reply: Reply) -> None:
        """End this one at its deadline, if it is not done by then."""
        self._expected.append(reply)
        if reply.deadline < self._until:
            self._requests.nudge()

    def tell_later(self, reply: Reply) -> None:
        """Tell of this one, which is done, once nobody holds its condition."""
        self._done.append(reply)
        self._requests.nudge()

    def fail(self, error: BaseException) -> None:
        """Fail all of them: the endpoint is closed."""
        self._requests.fail_all(error)
        try:
            if self._requests.tells:
                self.thread.ensure()
        except errors.NoThread as why:
            log.warning("%s", why)
        self.thread.join(FAREWELL)

    def _run(self) -> None:
        try:
            while self.thread.here:
                until = self._next_deadline()
                if self._expected:
                    continue  # it may come before
                self._tell(self._requests.attend(until, LATER if self._late else _NEVER))
        except errors.BusError as why:
            self._requests.fail_all(why.with_traceback(None))
            self.thread.leave()
            self._tell(self._requests.take_told())
            end = monotonic() + FAREWELL
            while self._late and monotonic() < end:
                time.sleep(LATER / 1e9)
                self._tell([])

    def _next_deadline(self) -> int:
        """Until when to wait, as others can see it."""
        heap = self._deadlines
        while self._expected:
            heapq.heappush(heap, self._expected.pop())
        if len(heap) > self._many:  # most are done, but not the first
            heap[:] = [one for one in heap if not one.done()]
            heapq.heapify(heap)
            self._many = 2 * len(heap) + _MANY
        while heap and heap[0].done():  # or its time has elapsed, which ends it
            heapq.heappop(heap)
        self._until = heap[0].deadline if heap else _NEVER
        return self._until

    def _tell(self, replies: Iterable[Any]) -> None:
        while self._done:
            self._late.append(self._done.pop())
        late, self._late = self._late, []
        self._late += [reply for reply in [*late, *replies] if not reply._tell()]
