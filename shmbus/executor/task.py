"""The future of one call: `Task`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .line import Call
from .stopping import runs

if TYPE_CHECKING:
    import threading

    from .line import Line

T = TypeVar("T")

_OVER = ("FINISHED", "CANCELLED_AND_NOTIFIED")


class Task(Call, Future[T], Generic[T]):
    """The future of a call in a worker: a `concurrent.futures.Future` whose `cancel` also stops a
    call that has begun.

    `result` and `exception` wait in the calling thread, which meanwhile takes other replies, too.
    Callbacks are called in a thread of the executor's own.
    """

    _state = "PENDING"
    _result: Any = None
    _exception: BaseException | None = None
    _told: list[Any] | None = None
    _callbacks: list[Callable[[Any], object]] | None = None
    _progress: Callable[[Any], object] | None = None

    def __init__(self, line: Line, function: Any, number: int) -> None:
        # That of Future is not called: its condition and its lists would be most of the cost.
        self._line = line
        self._function = function
        self._number = number

    __hash__ = object.__hash__

    # What `concurrent.futures` and asyncio look at ------------------------------------------------

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._line.guard

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        """Those who wait for several futures. Who asks is about to wait."""
        if self._told is None:
            self._told = []
        self._line.want()
        return self._told

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        """Who asks is about to add one."""
        if self._callbacks is None:
            self._callbacks = []
        self._line.want()
        return self._callbacks

    # Its end --------------------------------------------------------------------------------------

    def _ended(self) -> bool:
        return self._state != "PENDING"

    def _end(self, error: BaseException | None) -> bool:
        if self._state != "PENDING":
            if self._state != "FINISHED":  # it was cancelled: nobody will ask for the result
                self._result = None
            return False
        self._packed = None
        self._exception = error
        self._state = "FINISHED"
        for waiter in self._told or ():
            if error is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)
        return bool(self._callbacks)

    def _cancel(self) -> bool | None:
        if self._state != "PENDING":
            return self._state != "FINISHED"
        self._packed = None
        self._state = "CANCELLED_AND_NOTIFIED"
        for waiter in self._told or ():
            waiter.add_cancelled(self)
        return None

    def _invoke_callbacks(self) -> None:
        if self._callbacks:
            super(Call, self)._invoke_callbacks()  # type: ignore[misc]

    # For users ------------------------------------------------------------------------------------

    def result(self, timeout: float | None = None) -> T:
        """What the call returned; waits for it, `timeout` seconds at most (None: for ever).
        Raises what the call raised, `WorkerDied`, `TaskTimeout`, `PoolBroken`, `TimeoutError`,
        `CancelledError`."""
        if self._state == "PENDING":
            self._line.wait_for(self, timeout)
        if self._state != "FINISHED":
            raise CancelledError
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]  # its traceback refers to this frame
        result: T = self._result
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or what kept it from ending; None if it returned. Waits like
        `result`."""
        if self._state == "PENDING":
            self._line.wait_for(self, timeout)
        if self._state != "FINISHED":
            raise CancelledError
        return self._exception

    def done(self) -> bool:
        """Whether it has its result, or never will."""
        if self._state == "PENDING":
            self._line.come()
        return self._state in _OVER

    def running(self) -> bool:
        """Whether a worker has begun the call."""
        return self._state == "PENDING" and runs(self)

    def cancel(self) -> bool:
        """End the call, whether it waits or runs: a worker that has begun it is killed, and another
        takes its place. False if it has ended. One that begins at this moment may still be done."""
        return self._line.cancel(self)
