"""How an endpoint leaves its bus: `drain`, `close`, and what is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ringbuf.doorbell import unlink as unlink_bell
from ringbuf.segment import unlink
from shmbus import errors
from shmbus.shared._kernel import monotonic
from shmbus.shared.layout import DownState, UpState
from shmbus.shared.signals import uninterrupted
from shmbus.views.leavings import remove_deserted

from . import exits
from .flag import Flag
from .trouble import Trouble

if TYPE_CHECKING:
    from ._kernel import EndpointCore
    from .futures import Pump
    from .interests import Interests
    from .returns import Returns
    from .runners import Runners
    from .seat import Seat

CLOSING = 5.0
"""Seconds that close() waits for handlers at work, again for the dispatcher, and again for threads
in its calls."""

FAREWELL = 1.0
"""Seconds that close() waits until the dispatcher has dealt with what is left."""

TURN = 1.0
"""Seconds that close() waits for a thread that seems to be closing and has not said for how long:
an exception from a signal's handler may have taken it out of there."""


class Ending:
    """The end of one endpoint; made when it is attached. `done` is set when it begins to close,
    and `at_end` is called when it has left."""

    def __init__(
        self,
        seat: Seat,
        endpoint: EndpointCore,
        interests: Interests,
        runners: Runners,
        pump: Pump,
        returns: Returns,
        *,
        done: Flag,
        at_end: Callable[[], None],
    ) -> None:
        self._seat, self._endpoint, self._interests = seat, endpoint, interests
        self._runners, self._pump, self._returns = runners, pump, returns
        self._done, self._at_end = done, at_end
        self._connection = endpoint._connection
        self._lock = threading.RLock()
        self._until = 0.0  # what the holder of the lock may take, by the monotonic clock
        self._draining = False
        self._gone = False
        self.closed = False
        exits.attached(self)

    @property
    def begun(self) -> bool:
        """Whether no interest may be added any more."""
        return self._draining or self._done.is_set()

    def drain(self, timeout: float | None) -> None:
        """Finish what has been accepted, then close; `timeout` in seconds, None: no limit."""
        self._as_closer(CLOSING if timeout is None else timeout, lambda: self._drain_once(timeout))

    def _drain_once(self, timeout: float | None) -> None:
        if self._draining:  # a handler that this runs drains, too
            return
        self._draining = True
        try:
            self._drain(timeout)
        finally:
            self._draining = False

    def _drain(self, timeout: float | None) -> None:
        end = None if timeout is None else monotonic() + timeout
        # Other threads that run handlers take the rest. Without any, and where every subscription
        # has a callback, this thread does.
        own = not self._runners.others and not self._interests.uncalled()
        self.say_leaving(CLOSING if end is None else min(CLOSING, max(0.0, end - monotonic())))
        while not self._connection.await_state(DownState.DRAINED, 0.005 if own else _left(end)):
            trouble = self._connection.trouble() & ~Trouble.STOPPING
            if trouble or (end and monotonic() >= end):
                break
            if own:
                self._endpoint._receive_rest()
        self._connection.stop(at_once=False)
        if own:
            self._runners.run(reconnect=True, timeout=_left(end))
        self._runners.await_others(_left(end))
        broken_off = self._endpoint._outflows.close_all()  # no thread is left to go on with them
        self._connection.await_answered(_left(end))
        if self.closed:  # by a handler
            return
        ran = self._interests and (own or self._runners.threads)
        left = self._endpoint._unfinished() if ran else self._endpoint._deferred()
        left += broken_off
        self._close(CLOSING)
        if left and timeout is not None:
            raise errors.DrainTimeout(endpoint=self._seat.name, left=left, seconds=timeout)

    def say_leaving(self, patience: float) -> None:
        """No new messages are to come. `patience`: seconds to give back what is to be given back
        later."""
        self._returns.give_all(patience)
        self._connection.set_state(UpState.CLOSING)

    def close(self) -> None:
        """Leave, once."""
        self._as_closer(0.0, lambda: self._close(CLOSING))

    def close_at_once(self) -> None:
        """Leave without waiting for handlers or the dispatcher: the endpoint was collected."""
        self._close(0.0)

    def _as_closer(self, seconds: float, leave: Callable[[], None]) -> None:
        """One thread closes, and others wait for it; handlers do not, as it waits for them.
        `seconds`: what it may take besides the closing itself."""
        handler = threading.get_ident() in self._runners.threads
        if self.closed or self.forked():
            return
        taken = False
        try:  # no generator: an interrupted one keeps the lock until the exception is dropped
            taken = self._lock.acquire(blocking=False)
            if not taken and not handler:
                taken = self._await_closer()
            if taken:
                self._until = monotonic() + seconds + 3 * CLOSING + FAREWELL
            if not self.closed and (taken or not handler):
                leave()
        finally:
            if taken:
                self._lock.release()

    def _await_closer(self) -> bool:
        """Wait for the thread that closes, no longer than it may take: whether it has ended."""
        grace = monotonic() + TURN
        while monotonic() < max(grace, self._until):
            if self._lock.acquire(timeout=TURN / 4):
                return True
            if self.closed:
                break
        return False

    def _close(self, patience: float) -> None:
        self._runners.warn_if_missing()
        self._done.set()
        self._connection.stop(at_once=True)
        try:
            self._runners.await_others(patience)
        finally:  # Ctrl-C ends only the wait
            with uninterrupted():
                if not self.closed:  # by a signal's handler
                    self._leave(patience)

    def _leave(self, patience: float) -> None:
        end = monotonic() + patience
        try:
            self._returns.give_all(patience)
            self._endpoint._outflows.close_all()
            self._connection.set_state(UpState.CLOSING)
            self._connection.await_state(DownState.DRAINED, max(0.0, end - monotonic()))
        finally:  # what a signal's handler raises ends only the wait
            self._connection.finish()
            self._go(patience)

    def _go(self, patience: float) -> None:
        gone = False
        try:
            try:
                gone = self._connection.await_state(DownState.RECLAIMED, min(patience, FAREWELL))
            finally:
                self._endpoint._shut(patience)
        finally:
            self.closed = True
            exits.left(self)
            self._settle(reclaimed=gone)

    def _settle(self, *, reclaimed: bool) -> None:
        """What is left to do once it has left."""
        if self._gone:  # two have closed it: the first seemed to be stuck
            return
        self._gone = True
        try:
            self._pump.fail(errors.EndpointClosed(endpoint=self._seat.name))
        finally:
            self._clear_up(reclaimed=reclaimed)
            self._seat.door.close()
            self._seat.log.close()
            self._at_end()
            self._connection.vacate()

    def _clear_up(self, *, reclaimed: bool) -> None:
        """Remove the names in /dev/shm where no dispatcher needs them any more. As long as this one
        has not handed on what came here, it may die, and the next one does it; the names are
        removed by whoever does, also those of an endpoint that was evicted."""
        if reclaimed or self._connection.trouble() & Trouble.BUS_OVER:
            self._seat.log.unlink()
            unlink(self._seat.names.up(self._seat.owner))
            if not reclaimed:  # else the dispatcher removes it, once nobody holds a block of it
                unlink(self._seat.names.pool(self._seat.slot, self._seat.generation))
            unlink_bell(self._seat.names.endpoint_bell(self._seat.owner)[1:])
        else:
            remove_deserted(self._seat.names.bus, self._seat.owner)

    def forked(self) -> bool:
        """Whether this is a child of the process that attached."""
        return self._connection.forked()

    def forget_in_child(self) -> None:
        """In a forked child: close the copies of what only the parent may have open."""
        # The dispatcher sees the end of this connection only when every copy of it is closed.
        self._seat.door.close()
        self._connection.leave_door()


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - monotonic())
