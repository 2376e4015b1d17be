"""A worker's end of the bus: `attach` and `Endpoint`.

What is done for every message is in `_kernel.pyx`; here is what is done now and then: what the
endpoint wants (`routes`, `interests`), who runs its handlers (`runners`), and how it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

from ringbuf.doorbell import unlink as unlink_bell
from ringbuf.segment import unlink
from shmbus import errors
from shmbus.shared import names, patterns
from shmbus.shared._kernel import seconds
from shmbus.shared.layout import DownState, InterestFlag, InterestOp, InterestRole, UpState
from shmbus.shared.messages import Death
from shmbus.shared.signals import uninterrupted

from . import payloads
from ._kernel import EndpointCore, Message, Route, after_fork
from .deaths import DeathWatch
from .futures import Pump
from .interest_log import InterestWriter
from .interests import Callback, Interests, LocalInterest
from .runners import Runners
from .trouble import Trouble, bus_down, fault, no_answer, taken_off

if TYPE_CHECKING:
    from ringbuf._kernel import Mapping as Memory
    from shmbus.views.observe import BusView

log = logging.getLogger("shmbus")

Function = TypeVar("Function", bound=Callback)

CLOSING = 5.0
"""Seconds that close() waits for handlers at work, and again for the dispatcher."""
CONFIRM = 5.0
"""Seconds that subscribe() and handle() wait for the dispatcher to route by them."""


class Subscription:
    """What `subscribe` and `on_death` return; `close` ends it."""

    def __init__(self, pattern: str, group: str | None, close: Callable[[], object]) -> None:
        self.pattern = pattern
        self.group = group
        self._closer = close

    def close(self) -> None:
        """End it: when this returns, no more messages are sent here for it. Those of a group that
        are here and not begun are counted among the handler errors (`drain` or `close` of the
        endpoint loses none). Harmless if done before."""
        closer, self._closer = self._closer, _nothing
        closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nothing() -> None:
    pass


class Endpoint(EndpointCore):
    """A process's place on the bus; made by `attach`. Thread-safe, a context manager.

    Leaving the `with` block closes it. In a forked child it refuses with `ForkedEndpoint`; attach
    anew there.
    """

    _bus: str
    _names: names.BusNames
    _owner: names.Owner
    _slot: int
    _generation: int
    _log: InterestWriter
    _connection: int
    _bus_mapping: Memory

    def __init__(self) -> None:
        raise TypeError("use shmbus.attach()")

    # Making ----------------------------------------------------------------------------------

    def _begin(
        self, of: names.BusNames, owner: names.Owner, name: str, types: payloads.Types
    ) -> None:
        self._names = of
        self._owner = owner
        self._bus = of.bus
        self._types_known = types
        self._changing = threading.RLock()
        self._ending = threading.RLock()
        self._interests = Interests(name)
        self._ids = count(1)
        self._closed = True  # until it is attached
        self._draining = False
        self._view: BusView | None = None
        self._pump = Pump(self, name)
        self._deaths: DeathWatch | None = None
        self._done = threading.Event()
        self._running = Runners(self, self._interests, self._done)

    def _join(self) -> None:
        """Everything is open: tell the dispatcher."""
        self._closed = False
        self._set_state(UpState.ATTACHED)
        _live.add(self)

    @property
    def bus(self) -> BusView:
        """The bus as this process sees it: endpoints, routes, health."""
        from shmbus.views.observe import BusView

        if self._view is None:
            self._view = BusView(self._bus)
        return self._view

    def __repr__(self) -> str:
        return f"<endpoint {self.name!r} on bus {self._bus!r}{', closed' if self._closed else ''}>"

    # Interests -------------------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        callback: Callback | None = None,
        *,
        group: str | None = None,
        overflow: patterns.Overflow = "block",
        payload_type: Any = None,
    ) -> Subscription:
        """Get the events whose type matches `pattern`.

        With a `callback` (an argument: unlike `handle` this is no decorator), that is called with
        each `Message` by a thread inside `run` (or one that iterates); without one, iteration and
        `receive` yield them. `group`: of all members of the group on this bus, one gets each
        message, and it is handed on if that one dies over it. `overflow`: "block" makes senders
        wait (a limited time) for this endpoint where it is full, "drop_newest" loses and counts
        instead. `payload_type`: what payloads are decoded to; by default what the callback's
        annotation says.

        When this returns, the bus routes by it. Raises `InvalidPattern`, `InvalidName`,
        `InvalidSetting`, `InvalidPayloadType`, `TooManyGroups`, `ReceiveConflict`, `SegmentError`,
        `BusDown`, `AttachTimeout` (the dispatcher has not answered for 5 s), `Evicted`,
        `EndpointClosed`.
        """
        patterns.check_pattern(pattern)
        _check_callable(callback, pattern)
        if overflow not in ("block", "drop_newest"):
            raise errors.InvalidSetting(
                setting="overflow",
                value=overflow,
                reason="there is no such policy",
                remedy="Give 'block' or 'drop_newest'",
            )
        if group is not None:
            names.check_group(group)
        if callback is None and self._running.threads:
            raise self._conflict(
                "it is inside run(), which needs a callback for every subscription"
            )
        payload_type = _decodable(payload_type, callback)
        with self._changing:
            interest = LocalInterest(
                next(self._ids),
                InterestRole.SUBSCRIBE,
                pattern,
                0 if group is None else self._interests.bit(group),
                InterestFlag.DROP_NEWEST if overflow == "drop_newest" else 0,
                group or "",
                callback,
                payload_type,
            )
            self._add(interest)
        return Subscription(pattern, group, lambda: self._remove(interest))

    def tap(self, pattern: str = ">") -> Subscription:
        """See copies of all that matches: events, commands, requests, replies and errors of
        anybody, each with what became of it (`message.tap`). Iteration and `receive` yield them.

        A tap is never in the way: what does not fit here is lost here alone. Raises like
        `subscribe`.
        """
        patterns.check_pattern(pattern)
        if self._running.threads:
            raise self._conflict("it is inside run(), and a tap is read by iteration or receive()")
        with self._changing:
            interest = LocalInterest(next(self._ids), InterestRole.OBSERVE, pattern)
            self._add(interest)
        return Subscription(pattern, None, lambda: self._remove(interest))

    @overload
    def handle(
        self,
        pattern: str,
        function: None = None,
        *,
        payload_type: Any = None,
        redeliver: bool = False,
    ) -> Callable[[Function], Function]: ...
    @overload
    def handle(
        self, pattern: str, function: Function, *, payload_type: Any = None, redeliver: bool = False
    ) -> Function: ...
    def handle(
        self,
        pattern: str,
        function: Any = None,
        *,
        payload_type: Any = None,
        redeliver: bool = False,
    ) -> Any:
        """Handle the commands and requests whose type matches `pattern`: a call, or a decorator.

        `function` is called with each `Message` by a thread inside `run`; what it returns is the
        reply to a request, what it raises reaches the requester as `RemoteError`. `redeliver`: a
        command that was begun when this process died is handed on to another handler, so it may be
        done twice. Raises `HandlerConflict` (this endpoint handles the same pattern already), and
        like `subscribe`.
        """
        if function is None:
            return lambda function: self.handle(
                pattern, function, payload_type=payload_type, redeliver=redeliver
            )
        patterns.check_pattern(pattern)
        _check_callable(function, pattern)
        payload_type = _decodable(payload_type, function)
        with self._changing:
            if self._interests.handled(pattern):
                raise errors.HandlerConflict(endpoint=self.name, pattern=pattern)
            self._add(
                LocalInterest(
                    next(self._ids),
                    InterestRole.HANDLE,
                    pattern,
                    flags=InterestFlag.REDELIVER if redeliver else 0,
                    function=function,
                    payload_type=payload_type,
                )
            )
        return function

    def _add(self, interest: LocalInterest) -> None:
        self._usable()
        if self._draining or self._done.is_set():
            raise errors.EndpointClosed(endpoint=self.name)
        self._interests[interest.id] = interest
        self._set_routes(self._interests.redeliver)
        try:
            self._change(interest, InterestOp.ADD)
        except BaseException:
            self._interests.pop(interest.id, None)
            self._set_routes(self._interests.redeliver)
            with contextlib.suppress(Exception):
                self._write(interest, InterestOp.REMOVE)
            raise
        if interest.function is not None:
            self._running.expect()

    def _remove(self, interest: LocalInterest) -> None:
        with self._changing:
            if self._closed or self._forked() or interest.id not in self._interests:
                return
            del self._interests[interest.id]
            try:
                # Without a dispatcher nobody routes by it, and the log tells the next one.
                with contextlib.suppress(errors.BusDown, errors.Evicted, errors.EndpointClosed):
                    self._change(interest, InterestOp.REMOVE)
            finally:
                self._set_routes(self._interests.redeliver)

    def _change(self, interest: LocalInterest, operation: InterestOp) -> None:
        version = self._write(interest, operation)
        if not self._await_interests(version, CONFIRM):
            raise no_answer(self._bus, self._bus_mapping, CONFIRM)
        self._log.drop_old()  # the dispatcher has the new one by now

    def _write(self, interest: LocalInterest, operation: InterestOp) -> int:
        """Into the log; returns the version that has it."""
        serial = self._log.write(operation, interest, self._interests.values())
        return self._announce_interests(serial)

    def _resolve(self, type: str) -> Route:
        return self._interests.route(type, self._types_known.find(type))

    # Receiving -------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message that has no callback; None after `timeout` seconds (None: never).

        Callbacks of other messages run in this thread meanwhile. Raises `ReceiveConflict` while
        `run` is active, `BusDown`, `Evicted`, `EndpointClosed`.
        """
        if self._running.threads:
            self._refuse_receiving()
        return self._receive(timeout, False)

    def receive_many(self, n: int, timeout: float | None = None) -> list[Message]:
        """Up to `n` messages: waits up to `timeout` seconds for the first, then takes what is
        there. Raises like `receive`, where nothing is there."""
        found: list[Message] = []
        wait = timeout
        while len(found) < n:
            try:
                message = self.receive(wait)
            except errors.BusError:
                if not found:
                    raise
                break
            if message is None:
                break
            found.append(message)
            wait = 0.0
        return found

    def __iter__(self) -> Iterator[Message]:
        """Messages that have no callback, until the endpoint is closed; callbacks run on the way.
        Raises like `receive`."""
        if self._running.threads:
            self._refuse_receiving()
        self._usable()
        return self._messages()

    def _refuse_receiving(self) -> NoReturn:
        raise self._conflict("it is inside run(), which takes its messages")

    def run(self, *, threads: int = 1, reconnect: bool = True) -> None:
        """Run callbacks and handlers in this thread (and `threads` - 1 more) until the endpoint is
        closed or drained.

        `reconnect`: wait where the dispatcher dies, until it is started again. Ctrl-C lets what
        was accepted be finished (`drain`) and is raised again. Raises `ReceiveConflict` where a
        subscription has no callback, `BusDown`, `Evicted`.
        """
        self._runnable(threads)
        others = [self._running.start(reconnect) for _ in range(threads - 1)]
        try:
            self._running.run(reconnect)
        except KeyboardInterrupt:
            try:
                self.drain()
            except errors.DrainTimeout as why:
                log.warning("%s", why)
            raise
        for thread in others:
            thread.join()

    def start(self, *, threads: int = 1, reconnect: bool = True) -> None:
        """Like `run`, but in threads of its own; returns at once."""
        self._runnable(threads)
        for _ in range(threads):
            self._running.start(reconnect)

    def _runnable(self, threads: int) -> None:
        self._usable()
        if threads < 1:
            raise errors.InvalidSetting(
                setting="threads", value=threads, reason="too small", remedy="Give at least 1"
            )
        if uncalled := self._interests.uncalled():
            raise self._conflict(
                f"run() needs a callback for every subscription, {uncalled[0]!r} has none"
            )

    # Others ----------------------------------------------------------------------------------

    def wait_for(self, pattern: str, *, receivers: int = 1, timeout: float | None = 5.0) -> None:
        """Wait until `receivers` live endpoints would get what matches `pattern`, so that nobody
        misses the first message. Who subscribes counts as well as who handles, so a request may
        still end with `NoRoute` where only subscribers have come. Raises `WaitTimeout` after
        `timeout` seconds, `InvalidPattern`, `BusDown`."""
        patterns.check_pattern(pattern)
        timeout = seconds(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while True:
            self._usable(served=True)
            found = sum(1 for info in self.bus.find(pattern) if info.routed)
            if found >= receivers:
                return
            if end is not None and time.monotonic() >= end:
                raise errors.WaitTimeout(
                    pattern=pattern, receivers=receivers, found=found, seconds=timeout or 0.0
                )
            if self._done.wait(pause):
                self._usable()
            pause = min(pause * 1.5, 0.02)

    def on_death(self, name: str, callback: Callable[[Death], None]) -> Subscription:
        """Call `callback` once when the endpoint of this name ends, however it does, or at once if
        there is none now. It is called in a thread of this endpoint's own, with no lock held.
        Raises `InvalidName`."""
        names.check_endpoint(name)
        self._usable()
        if self._deaths is None:
            self._deaths = DeathWatch(self.name, self._bus_mapping, self._done)
        return Subscription(name, None, self._deaths.add(name, callback))

    # Ending ----------------------------------------------------------------------------------

    def drain(self, timeout: float | None = 30.0) -> None:
        """Finish what has been accepted, then close: no new messages come, those that are here are
        handled, what was sent is forwarded. `timeout`: seconds (None: no limit). Raises
        `DrainTimeout` once it is closed, where messages were left."""
        timeout = seconds(timeout)
        with self._as_closer() as may:
            if may and not self._draining:  # handlers that drain, too, run within ours
                self._draining = True
                try:
                    self._drain(timeout)
                finally:
                    self._draining = False

    def _drain(self, timeout: float | None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        # Who else runs handlers does it; without anybody, and where all have callbacks, we do.
        own = not self._running.others and not self._interests.uncalled()
        self._set_state(UpState.CLOSING)
        while not self._await_state(DownState.DRAINED, 0.005 if own else _left(end)):
            if self._trouble_now() & ~Trouble.STOPPING or (end and time.monotonic() >= end):
                break
            if own:
                self._receive(0.0, True)
        self._stop(False)
        if own:
            self._running.run(True, timeout=_left(end))
        self._running.await_others(_left(end))
        if self._closed:  # by a handler
            return
        left = self._unfinished() if self._interests and (own or self._running.threads) else 0
        self._close(CLOSING)
        if left and timeout is not None:
            raise errors.DrainTimeout(endpoint=self.name, left=left, seconds=timeout)

    def close(self) -> None:
        """Leave the bus. What was sent is forwarded; handlers at work are waited for (a limited
        time); messages that nobody has begun are handed on where that is possible, else counted.
        Harmless if done before."""
        with self._as_closer() as may:
            if may:
                self._close(CLOSING)

    @contextlib.contextmanager
    def _as_closer(self) -> Iterator[bool]:
        """One thread closes; others wait for it, but not handlers: it waits for them."""
        handler = threading.get_ident() in self._running.threads
        if self._closed or self._forked() or not self._ending.acquire(blocking=not handler):
            yield False
            return
        try:
            yield not self._closed
        finally:
            self._ending.release()

    def _close(self, patience: float) -> None:
        self._running.warn_if_missing()
        self._done.set()
        self._stop(True)
        try:
            self._running.await_others(patience)
        finally:  # Ctrl-C ends that wait, and not the leaving
            with uninterrupted():
                if not self._closed:  # by a signal's handler
                    self._leave(patience)

    def _leave(self, patience: float) -> None:
        try:
            self._set_state(UpState.CLOSING)
            self._await_state(DownState.DRAINED, patience)
        finally:  # what a signal's handler raises ends a wait, and not the leaving
            self._finish()
            self._go(patience)

    def _go(self, patience: float) -> None:
        gone = False
        try:
            try:
                gone = self._await_state(DownState.RECLAIMED, min(patience, 1.0))
            finally:
                self._shut(patience)
        finally:
            self._closed = True
            _live.discard(self)
            self._pump.fail(errors.EndpointClosed(endpoint=self.name))
            trouble = self._trouble_now()
            if gone or trouble & Trouble.BUS_OVER or not trouble & Trouble.FOR_NOW:
                self._log.unlink()  # else its successor takes over what we leave
                unlink(self._names.up(self._owner))
                unlink_bell(self._names.endpoint_bell(self._owner)[1:])
            os.close(self._connection)
            self._view = None  # and not closed: another thread may be looking at it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._forked():
            return
        try:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
        finally:  # where warnings are errors, too
            self._close(0.0)

    # What stands in the way ------------------------------------------------------------------

    def _usable(self, *, served: bool = False) -> None:
        """Raises what stands in the way; with `served`, a dispatcher must be there, too."""
        if self._closed:
            raise errors.EndpointClosed(endpoint=self.name)
        if self._forked():
            raise errors.ForkedEndpoint(endpoint=self.name, pid=self._owner.pid)
        minds = Trouble.FOR_GOOD
        if served and not self.reconnect:
            minds |= Trouble.FOR_NOW
        if trouble := self._trouble_now() & minds:
            raise self._explain_trouble(trouble)

    def _conflict(self, reason: str) -> errors.ReceiveConflict:
        return errors.ReceiveConflict(
            endpoint=self.name,
            reason=reason,
            remedy="Give every subscription a callback and use run(), or iterate",
        )

    def _explain_trouble(self, trouble: int) -> errors.BusError:
        if trouble & Trouble.CLOSED_HERE:
            return errors.EndpointClosed(endpoint=self.name)
        if trouble & Trouble.TAKEN_OFF:
            return taken_off(self.name, self._bus_mapping, self._slot, self._generation)
        if trouble & Trouble.RING_BAD:
            ring, position = self._bad_ring()
            return errors.RingCorrupt(
                endpoint=self.name,
                ring=ring,
                position=position,
                reason="it holds what no dispatcher writes",
            )
        return bus_down(trouble, self._bus, self._bus_mapping)

    def _explain_fault(self, *facts: Any) -> errors.BusError:
        return fault(lambda: self.bus, self._bus_mapping, *facts)


def _check_callable(function: object, pattern: str) -> None:
    """At once, and not when the first message comes."""
    if function is not None and not callable(function):
        raise TypeError(f"what is to be called for {pattern!r} cannot be: {function!r}")


def _decodable(payload_type: Any, function: Callback | None) -> Any:
    """The payload type that was given, else the one that a callback's annotation says. Raises
    `InvalidPayloadType`."""
    if payload_type is None and function is not None:
        payload_type = payloads.annotated_type(function, {"Message": Message})
    if payload_type is not None:
        payloads.decoder(payload_type)
    return payload_type


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


# The ends of processes ------------------------------------------------------------------------

_live: weakref.WeakSet[Endpoint] = weakref.WeakSet()


def _at_exit() -> None:
    """While threads can still leave their waits: later, none of them could take Python's lock."""
    for endpoint in list(_live):
        if endpoint._forked():
            continue
        with contextlib.suppress(Exception):
            endpoint.close()


def _after_fork() -> None:
    after_fork()
    for endpoint in list(_live):
        # The dispatcher takes the end of this connection for the end of the parent.
        os.close(endpoint._connection)
        endpoint._leave_door()
    _live.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
