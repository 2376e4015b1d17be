"""The calls of an executor on their way: which wait, which are under way, and what became of them.

There is no thread that must run for a call to get on. Whoever comes, by submitting or by waiting
for a result, takes the replies that have come and sends what waits, one at a time; the executor's
own thread (`attending`) does that where nobody comes.

A signal's handler may raise wherever the main thread is. So a call waits until its request has
begun, and its request is under way until the call has ended or waits again: what was broken off is
found there, and each step may be done twice. Locks are taken inside the block that lets go of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.endpoint._kernel import PendingReply, until
from shmbus.shared._kernel import monotonic_ns

from .packing import unpack
from .wire import Failure

if TYPE_CHECKING:
    from shmbus.endpoint.endpoint import Endpoint

NEVER = 2**64 - 1

AHEAD = 5_000_000
"""Nanoseconds of work that may be under way: what is not sent can still be withdrawn, or go to a
worker that comes later."""

MEASURE = 2_000_000
"""Nanoseconds over which it is counted how much is done."""

AT_ONCE = 16
"""Calls that are added to those that wait before replies are taken again."""

SLICE = 50_000_000
"""Nanoseconds after which who waits looks whether its call was ended without a reply."""


class Call:
    """A function with its arguments, packed, that is to be called in a worker."""

    _packed: Any = None
    _result: Any = None
    _function: Any
    _number: int
    _retries = 0
    _sent: Sent | None = None
    """Its request, while that is under way."""

    def _ended(self) -> bool:
        """Whether it has its result, or never will."""
        raise NotImplementedError

    def _end(self, error: BaseException | None) -> bool:
        """It has ended with this, or with the result that it has been given: whether somebody is to
        be called. By the holder of the line's guard."""
        raise NotImplementedError

    def _cancel(self) -> bool | None:
        """It is cancelled. None: just now; else whether it was before. By the holder of the
        guard."""
        raise NotImplementedError

    def _invoke_callbacks(self) -> None:
        """Call those who want to know that it has ended."""


class Sent(PendingReply):
    """The request that a call is."""

    __slots__ = ("call", "since")
    __hash__ = object.__hash__
    call: Call
    since: int
    """When it was sent, in nanoseconds."""


class Line:
    """The calls of one executor."""

    def __init__(self, endpoint: Endpoint, task_type: str, workers: int) -> None:
        self.endpoint = endpoint
        self.requests = endpoint._requests
        self.requests.complete_here()
        self.type = task_type
        self._ending = threading.RLock()
        self.guard = threading.Condition(self._ending)
        """Held while calls end, and by who looks at several of them."""
        self.waiting: deque[Call] = deque()
        self.under_way: dict[Sent, None] = {}
        self.to_call: deque[Call] = deque()
        """Those that have ended, and of which somebody is to be told by the executor's thread."""
        self.open = False
        """Whether there is a worker to send to."""
        self.broken: BaseException | None = None
        """Why no call can end well any more."""
        self.comings = 0
        """How often somebody has come."""
        self.present = 0
        """Threads that wait for a result."""
        self.eager = False
        """Whether the executor's thread is to be told of each reply."""
        self.resting = False
        """Whether that thread waits for the next call."""
        self._turn = threading.RLock()
        self._amid = False
        """Whether somebody takes replies or sends, or was broken off in that."""
        self._never = until(None, None)
        self._least = 1
        self._most = self.requests.limit
        self._window = self._least
        self._since = 0
        self._done = 0
        self._wanted = 0
        self._workers = workers

    def appoint(
        self,
        *,
        died: Callable[[Call, errors.EndpointDied], BaseException],
        overdue: Callable[[Call, errors.HandlerTimeout], BaseException],
        stop: Callable[[Sent], None],
        end: Callable[[Sent, errors.HandlerTimeout], None],
        want: Callable[[int], None],
        ready: Callable[[], int],
    ) -> None:
        """Say what those are to do who see to the workers. `died`, `overdue`: the error of a call
        whose worker is gone, or took too long. `stop`: withdraw a request, and end the worker that
        has begun it; `end`: end one that has taken too long. `want`: have so many workers;
        `ready`: how many can take calls."""
        self._died, self._overdue = died, overdue
        self._stop, self._end_overdue = stop, end
        self._want, self._ready = want, ready

    @property
    def busy(self) -> bool:
        """Whether any call has not ended."""
        return bool(self.under_way or self.waiting)

    # Coming by ------------------------------------------------------------------------------------

    def add(self, call: Call) -> None:
        """Send it, or let it wait for its turn."""
        self.waiting.append(call)
        if self._wanted < self._workers:
            self._want_more()
        waiting = len(self.waiting)
        if waiting < AT_ONCE or waiting % AT_ONCE == 0 or not self.under_way:
            self.come()

    def _want_more(self) -> None:
        wanted = min(len(self.waiting) + len(self.under_way), self._workers)
        if wanted > self._wanted:
            self._wanted = wanted
            self._want(wanted)

    def opened(self, workers: int) -> None:
        """So many workers can take calls now."""
        self.open = workers > 0
        self._least = max(workers, 1)
        self._window = max(self._window, self._least)
        if self.open:
            self.come()

    def look_for_workers(self) -> None:
        """Try again where there was none."""
        if not self.open and self._ready():
            self.open = True

    def come(self) -> bool:
        """Take the replies that have come, and send what waits: False if somebody else does so."""
        self.comings += 1
        if self.broken is not None:
            self.withdraw(self.broken)
            return True
        while True:
            try:
                if not self._turn.acquire(blocking=False):
                    return False
                if self._amid:
                    self._resume()
                self._amid = True
                self._take(self.requests.take_done())
                stuck = self._send()
                self._amid = False
            except errors.BusError as why:
                self.fail(why)
                return True
            finally:
                try:
                    self._turn.release()
                except RuntimeError:  # it is another thread's
                    pass
            if stuck or not self._may_send():  # what was added meanwhile was left to us
                return True

    def wait_for(self, call: Call, timeout: float | None) -> None:
        """Wait until it has ended. Raises `TimeoutError` after `timeout` seconds."""
        self._wait(call._ended, call, timeout)

    def wait_until(self, ended: Callable[[], bool], timeout: float | None) -> None:
        """Wait until that is true, which it becomes when a call ends. Raises `TimeoutError`."""
        self._wait(ended, None, timeout)

    def _wait(self, ended: Callable[[], bool], call: Call | None, timeout: float | None) -> None:
        end = NEVER if timeout is None else monotonic_ns() + int(max(0.0, timeout) * 1e9)
        requests = self.requests
        self.present += 1
        try:
            while True:
                seen = requests.completions
                here = self.come()
                if ended():
                    return
                now = monotonic_ns()
                if now >= end:
                    raise TimeoutError
                if not here:
                    self._await_turn(min(SLICE, end - now) / 1e9)
                    continue
                until = min(end, now + SLICE)
                sent = call._sent if call is not None else None
                try:
                    if sent is None or not sent._begun:
                        requests.await_completion(seen, until)
                    else:
                        requests.await_reply(sent, until)
                except errors.BusError as why:
                    self.fail(why)
        finally:
            self.present -= 1

    def _await_turn(self, seconds: float) -> None:
        """Until nobody takes replies, so many seconds at most."""
        try:
            self._turn.acquire(timeout=seconds)
        finally:
            try:
                self._turn.release()
            except RuntimeError:  # its time was over, or it was interrupted
                pass

    # Replies --------------------------------------------------------------------------------------

    def _take(self, done: list[Sent]) -> None:
        """See to those that are done."""
        ends: list[tuple[Call, BaseException | None]] = []
        for sent in done:
            call = sent.call
            if call._ended() or call._sent is not sent:  # seen to already
                continue
            if sent.cancelled():  # taken back
                self._wait_again(call)
            else:
                self._look_at(sent, call, ends)
        if ends:
            self.end(ends)
        for sent in done:
            self.under_way.pop(sent, None)
            if sent.call._sent is sent:
                sent.call._sent = None
        if done:
            self._count(len(done))

    def _resume(self) -> None:
        """Somebody was broken off: see to what has not begun, and to what is done."""
        under_way = list(self.under_way)
        for sent in under_way:
            if not sent._begun:  # its call waits
                self._not_sent(sent)
        self._take([sent for sent in under_way if sent._begun and sent.done()])

    def _wait_again(self, call: Call) -> None:
        """It is to be sent once more, before the others. It may be in there twice."""
        self.waiting.appendleft(call)
        call._sent = None

    def _look_at(
        self, sent: Sent, call: Call, ends: list[tuple[Call, BaseException | None]]
    ) -> None:
        """Take what came of it: it has ended, or is to be sent again."""
        message = sent._ended()
        if isinstance(message, errors.BusError):
            error = self._meaning(sent, call, message)
            if error is not None:
                ends.append((call, error))
            return
        try:
            result = unpack(message.payload)
        except BaseException:
            try:
                unpack(message.payload)
            except BaseException as why:
                ends.append((call, why))
                return
            raise  # it was a signal's handler that did
        if type(result) is Failure:
            ends.append((call, result.exception))
        else:
            call._result = result  # and nothing else here knows it once the call has ended
            ends.append((call, None))

    def _meaning(self, sent: Sent, call: Call, error: errors.BusError) -> BaseException | None:
        """What this error means for the call; None: it is to be sent again."""
        if isinstance(error, errors.HandlerTimeout):
            self._end_overdue(sent, error)
            return self._overdue(call, error)
        if isinstance(error, errors.EndpointDied):
            if error.begun and not call._retries:
                return self._died(call, error)
            call._retries -= error.begun
        elif isinstance(error, errors.NoRoute):
            self.open = False
        elif not isinstance(error, errors.QueueFull):
            return error
        self._wait_again(call)
        return None

    def end(self, ends: list[tuple[Call, BaseException | None]]) -> None:
        """These calls have ended so."""
        with self._ending:
            told = [call for call, error in ends if call._end(error)]
        if told:
            self.to_call.extend(told)
            self.requests.nudge()

    def fail(self, error: BaseException) -> None:
        """End all calls with this error, and those to come."""
        with self._ending:
            if self.broken is not None:
                return
            self.broken = error
        self.withdraw(error)

    def withdraw(self, error: BaseException) -> None:
        """End all calls with this error."""
        calls = [sent.call for sent in list(self.under_way)]
        while (call := self._next()) is not None:
            calls.append(call)
        self.end([(call, error) for call in calls])
        for sent in list(self.under_way):
            if sent._begun:
                sent.cancel()

    def cancel_waiting(self) -> None:
        """Cancel the calls that were not sent."""
        while (call := self._next()) is not None:
            self.cancel(call)

    def _next(self) -> Call | None:
        """The next of those that wait, which several threads may take."""
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def cancel(self, call: Call) -> bool:
        """End it, wherever it is: False if it has ended otherwise."""
        with self._ending:
            cancelled = call._cancel()
            if cancelled is not None:
                return cancelled
        sent = call._sent
        if sent is not None and sent._begun:
            self._stop(sent)
        call._invoke_callbacks()
        return True

    def _count(self, done: int) -> None:
        """Let so much be under way as is done in a short time, and no more than there are workers
        where calls take longer: none is to wait behind another while a worker is free."""
        self._done += done
        now = monotonic_ns()
        elapsed = now - self._since
        if elapsed >= MEASURE:
            window = self._done * AHEAD // elapsed
            self._window = max(self._least, min(window, self._most))
            self._since, self._done = now, 0

    def _recount(self) -> None:
        """Nothing is under way: how long calls took some time ago says nothing of the next."""
        if monotonic_ns() - self._since > AHEAD:
            self._window = self._least

    # Requests -------------------------------------------------------------------------------------

    def _may_send(self) -> bool:
        return bool(self.waiting) and self.open and len(self.under_way) < self._window

    def _not_sent(self, sent: Sent) -> None:
        self.under_way.pop(sent, None)
        if sent.call._sent is sent:
            sent.call._sent = None

    def _passed(self, call: Call) -> None:
        """It is the first of those that wait, if nobody has taken it, and waits no more."""
        if (first := self._next()) is not None and first is not call:
            self.waiting.appendleft(first)

    def _send(self) -> bool:
        """Send what waits: whether there was no space for it."""
        now = monotonic_ns()
        waiting, under_way, begin = self.waiting, self.under_way, self.requests.begin_now
        if not under_way:
            self._recount()
        while waiting and len(under_way) < self._window:
            call = waiting[0]
            if call._ended() or call._sent is not None:  # cancelled, or sent
                self._passed(call)
                continue
            if not self.open:
                break
            sent = Sent.__new__(Sent)
            sent.call, sent.since = call, now
            call._sent = sent
            under_way[sent] = None
            try:
                begun = begin(sent, self.type, call._packed, self._never)
            except errors.Disconnected:
                self._not_sent(sent)
                raise
            except Exception as why:  # of this call's payload
                self.end([(call, why)])
                self._not_sent(sent)
                continue
            if not begun:
                self._not_sent(sent)
                return True
            self._passed(call)
            if self.eager:
                self.requests.tell_at_once(sent)
        if self.resting:
            self.resting = False
            self.requests.nudge()
        return False

    # For the executor's own thread ----------------------------------------------------------------

    def want(self) -> None:
        """From now on until all calls have ended, somebody is to be told at once."""
        if not self.eager:
            self.eager = True
            for sent in list(self.under_way):
                if sent._begun:
                    self.requests.tell_at_once(sent)
            self.requests.nudge()

    def forked(self, error: BaseException) -> None:
        """This is a forked child: nothing of it is ours."""
        self._ending = threading.RLock()
        self.guard = threading.Condition(self._ending)
        self._turn = threading.RLock()
        self.fail(error)
