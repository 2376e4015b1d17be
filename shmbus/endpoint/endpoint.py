"""A worker's end of the bus: `Endpoint`, which `attach` makes.

What is done for every message is in `_kernel.pyx`; what is done now and then is in the parts that
an endpoint is made of here: how its interests change (`subscribing`), who runs its handlers
(`runners`), who completes its futures (`futures`), and how it leaves (`ending`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from shmbus import errors
from shmbus.services.calling import caller, client, streaming_caller
from shmbus.services.serving import operations
from shmbus.settings import check_count
from shmbus.shared import names, patterns, shortage
from shmbus.shared._kernel import monotonic, seconds
from shmbus.shared.layout import UpState
from shmbus.shared.messages import Death

from . import termination
from ._kernel import Deadline, EndpointCore, Found, Message, in_force, until
from .deaths import DeathWatch
from .ending import Ending
from .flag import Flag
from .futures import Pump
from .gathering import Gathering, gather
from .interests import Callback, Interests
from .mailboxes import open_mailbox
from .many import ask_many, window_of
from .matching import Matching
from .retry import Retry, check_retry
from .returns import Returns
from .runners import Runners
from .seat import Seat
from .subscribing import CONFIRM, OnError, Subscribing, Subscription, check_callable
from .trouble import Explanations, Trouble, conflict, inside_run
from .upcalls import Upcalls

if TYPE_CHECKING:
    from shmbus.views.observe import BusView

log = logging.getLogger("shmbus")

LOOK = 0.02
"""Seconds that `matched` waits for the dispatcher, before it looks for itself, which takes some
milliseconds."""

Function = TypeVar("Function", bound=Callback)
T = TypeVar("T")


class Endpoint(EndpointCore):
    """A process's place on the bus; made by `attach`. Thread-safe, a context manager.

    Leaving the `with` block closes it. In a forked child it refuses with `ForkedEndpoint`; attach
    anew there.
    """

    _seat: Seat
    _view: BusView | None
    _deaths: DeathWatch | None
    _done: Flag
    _interests: Interests
    _running: Runners
    _pump: Pump
    _ending: Ending
    _subscribing: Subscribing

    def __init__(self) -> None:
        raise TypeError("use shmbus.attach()")

    @classmethod
    def _seated(cls, seat: Seat) -> Self:
        """Make the endpoint, and set its state to attached."""
        interests = Interests(seat.name, seat.types)
        explanations = Explanations(seat, lambda: self.bus)
        returns = Returns(seat.name)
        self = cls.__new__(
            cls,
            seat,
            Upcalls(
                patterns=interests.patterns,
                late=interests.late,
                callbacks=interests.callbacks,
                groups=interests.groups,
                explain_trouble=explanations.trouble,
                explain_full=explanations.full,
                explain_silence=explanations.not_taken,
                explain_shortage=explanations.shortage,
                explain_unmapped=explanations.unmapped,
                open_mailbox=partial(open_mailbox, seat.names),
                look_at_grant=explanations.look_at_grant,
                granted=seat.grant is not None,
                explain_fault=explanations.fault,
                explain_timeout=explanations.timeout,
                find_holder=explanations.holder,
                postpone=returns.add,
            ),
        )
        try:
            self._furnish(seat, interests, explanations, returns)
        except BaseException:
            # Its parts refer to it and to themselves: its segments would stay until a collection.
            for part in (*vars(self).values(), self):
                getattr(part, "__dict__", {}).clear()
            del self, part
            raise
        return self

    def _furnish(
        self, seat: Seat, interests: Interests, explanations: Explanations, returns: Returns
    ) -> None:
        self._seat = seat
        self._view = None
        self._deaths = None
        self._done = Flag()
        self._interests = interests
        self._running = Runners(self, interests, self._done)
        self._pump = Pump(self)
        self._ending = Ending(
            seat,
            self,
            interests,
            self._running,
            self._pump,
            returns,
            done=self._done,
            at_end=self._forget_view,
        )
        self._subscribing = Subscribing(
            seat, self, explanations, interests, self._running, self._ending
        )
        self._connection.set_state(UpState.ATTACHED)

    @property
    def bus(self) -> BusView:
        """The bus as this process sees it: endpoints, routes, health."""
        self._connection.require_own()  # the parent's view may be locked for ever here
        from shmbus.views.observe import BusView

        if self._view is None:
            self._view = BusView(self._seat.names.bus)
        return self._view

    def _forget_view(self) -> None:
        self._view = None  # but not closed: another thread may be using it

    def _note(self, key: str, text: bytes | None) -> None:
        """Have observers read this of it, in place of what was noted under that key before; None:
        nothing any more. Waits for nothing but, now and then, a dispatcher to read a new log."""
        self._subscribing.note(key, text)

    def __repr__(self) -> str:
        closed = ", closed" if self._ending.closed else ""
        return f"<endpoint {self.name!r} on bus {self._seat.names.bus!r}{closed}>"

    # Requests --------------------------------------------------------------------------------

    def request_many(
        self,
        items: Iterable[tuple[str, object]],
        *,
        timeout: float | None = 5.0,
        window: int | None = None,
        reply_type: Any = None,
        inherit_deadline: bool = True,
    ) -> Iterator[Message | errors.BusError]:
        """Send requests, given as pairs of type and payload, and yield the reply of each, in their
        order, or the error that came instead.

        `window`: how many are under way at a time (by default 128, or half of `max_requests` where
        that is fewer); the next are sent as replies are taken. `timeout`: seconds that each waits
        for its reply. `inherit_deadline`: called inside a handler, all end at the latest with the
        request that it serves. Closing the iterator gives up those under way. Raises what iterating
        over `items` raises, after the replies of those before; `InvalidSetting`, `EndpointClosed`.
        """
        self._connection.require()
        limit = window_of(window, self._requests.limit)
        outer = in_force() if inherit_deadline else None
        return ask_many(self, items, seconds(timeout), outer, limit, reply_type)

    def gather(
        self,
        type: str,
        payload: object = None,
        *,
        timeout: float | None = 5.0,
        at_least: int | None = None,
        reply_type: Any = None,
        inherit_deadline: bool = True,
    ) -> dict[str, Message | errors.BusError]:
        """Send a request to every endpoint that handles this type, by the most specific pattern or
        not, and wait for the reply of each: replies by the endpoint's name, or the error that came
        instead.

        Whom it asks is settled at the beginning, this endpoint included if another thread of it
        receives; nobody else gets the request. Those of other buses that a link has joined are
        among them, by ``NAME@SITE``. Each is in the result: `EndpointDied`,
        `RequestTimeout`, `RemoteError`, and what else `request` raises, say what became of it. It
        returns as soon as all have answered, empty where nobody is there. `timeout`: seconds for
        all together; None waits for ever. `at_least`: return as soon as so many have replied; the
        others are withdrawn, and have `Withdrawn` in the result. `TooFewReplies`, which has the
        results, is raised as soon as fewer than that can. `reply_type`, `inherit_deadline`: as with
        `request`. Raises `TooFewReplies`, `RequestTimeout` (the dispatcher does not say who is
        there), `BusDown`, `InvalidSetting`, and like `publish`, except for `QueueFull`.
        """
        deadline = until(timeout, in_force() if inherit_deadline else None)
        found = self._requests.query(patterns.check_type(type), deadline)
        gathering = self._gathering(type, found, deadline, at_least, self._receives_beside())
        return gather(
            self._requests,
            gathering,
            type,
            payload,
            deadline,
            reply_type,
            self._require_open,
        )

    def _require_open(self) -> None:
        if self._connection.trouble() & Trouble.CLOSED_HERE:
            raise errors.EndpointClosed(endpoint=self.name)

    def _gathering(
        self, type: str, found: Found, deadline: Deadline, at_least: int | None, answers: bool
    ) -> Gathering:
        """`answers`: whether this endpoint itself could answer."""
        if at_least is not None:
            check_count("at_least", at_least)
        asked = [a for a in found.addressees if answers or not self._requests.is_self(a)]
        return Gathering(self.name, type, asked, deadline, at_least)

    def _receives_beside(self) -> bool:
        """Whether another thread than the calling one receives."""
        return bool(self._running.others) or self._awaited

    # Interests -------------------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str,
        callback: Callback | None = None,
        *,
        group: str | None = None,
        key: str | None = None,
        overflow: patterns.Overflow = "block",
        depth: int | None = None,
        history: int = 0,
        payload_type: Any = None,
        on_error: OnError = "drop",
        limit: float | None = None,
    ) -> Subscription:
        """Get the events whose type matches `pattern`.

        With a `callback` (an argument: unlike `handle` this is no decorator), that is called with
        each `Message` by a thread inside `run` (or one that iterates); without one, iteration and
        `receive` yield them. `group`: of all members of the group on this bus, one gets each
        message, and it is handed on if that one dies before it is done. `key`, of a group: the
        pattern with a name in braces for some of its `*`, such as "order.{id}.>". All messages with
        the same tokens there go to the same member, in order, until members come or go
        (`$bus.group.rebalanced`); all members give the same. `overflow`: "block" makes senders wait
        (a limited time) for this endpoint where it is full, "drop_newest" loses and counts instead.
        With "drop_oldest" the last `depth` messages wait (64), with "latest" of each type the
        newest alone, of `depth` types (256): in a mailbox that is never full, whose older messages
        are written over and counted; not for a group. `payload_type`: what payloads are decoded to;
        by default what the callback's annotation names. `history`: before all else it gets the last
        so many values of each type that were published with `retain=True` (`message.retained`), at
        most as many as the bus keeps (`Settings(history=)`), and as its mailbox holds, "latest" one
        of each; not for a group. `on_error`: what happens to a group's message whose callback
        raises: "drop" makes it a dead letter, "retry" gives it back like `Message.nack`, for
        another member to try. `limit`: seconds that `callback` may take (None: any time). When they
        are over, this endpoint is overdue until it returns, as with `handle`.

        When this returns, the bus routes by it. Raises `InvalidPattern`, `InvalidName`,
        `InvalidSetting`, `InvalidPayloadType`, `TooManyGroups`, `TooManyMailboxes`, `GroupConflict`
        (the other members have another key), `ReceiveConflict`, `SegmentError`, `BusDown`,
        `AttachTimeout` (the dispatcher has not answered for 5 s), `Evicted`, `EndpointClosed`.
        """
        self._connection.require_own()
        return self._subscribing.subscribe(
            pattern,
            callback,
            group=group,
            key=key,
            overflow=overflow,
            depth=depth,
            history=history,
            payload_type=payload_type,
            on_error=on_error,
            limit=limit,
        )

    def tap(self, pattern: str = ">") -> Subscription:
        """See copies of all that matches: events, commands, requests, replies and errors of
        any endpoint, each with what became of it (`message.tap`). Iteration and `receive` yield
        them.

        A tap delays nobody: copies that do not fit into its ring are lost, and nothing else. The
        bus's own events pass by no tap: subscribe to `$bus.>`. Raises like `subscribe`, and
        `InvalidSetting` for a pattern of those.
        """
        self._connection.require_own()
        return self._subscribing.tap(pattern)

    @overload
    def handle(
        self,
        pattern: str,
        function: None = None,
        *,
        payload_type: Any = None,
        redeliver: bool = False,
        limit: float | None = None,
    ) -> Callable[[Function], Function]: ...
    @overload
    def handle(
        self,
        pattern: str,
        function: Function,
        *,
        payload_type: Any = None,
        redeliver: bool = False,
        limit: float | None = None,
    ) -> Function: ...
    def handle(
        self,
        pattern: str,
        function: Any = None,
        *,
        payload_type: Any = None,
        redeliver: bool = False,
        limit: float | None = None,
    ) -> Any:
        """Handle the commands and requests whose type matches `pattern`: a call, or a decorator.

        `function` is called with each `Message` by a thread inside `run`; what it returns is the
        reply to a request, what it raises reaches the requester as `RemoteError`. The reply may
        overtake events that `function` published before it returned. `redeliver`: a command that
        was begun when this process died is handed on to another handler, so it may be done twice.
        `limit`: seconds that `function` may take (None: any time). When they are over, the
        requester gets `HandlerTimeout`, and this endpoint is overdue until `function` returns, so
        that other endpoints get what they can do instead. `function` itself goes on, and its reply
        is dropped. What it defers is not limited. Raises `HandlerConflict` (this endpoint handles
        the same pattern already), and like `subscribe`.
        """
        self._connection.require_own()
        patterns.check_pattern(pattern)
        if function is None:
            return lambda function: self.handle(
                pattern, function, payload_type=payload_type, redeliver=redeliver, limit=limit
            )
        self._subscribing.handle(
            pattern, function, payload_type=payload_type, redeliver=redeliver, limit=limit
        )
        return function

    # Services --------------------------------------------------------------------------------

    def offer(
        self,
        instance: object,
        service: str,
        *,
        redeliver: bool = False,
        limit: float | None = None,
    ) -> Subscription:
        """Serve the public methods of `instance`: requests of type ``calc.add`` call its method
        ``add``, where `service` is ``calc``.

        Arguments and results are of the types that the methods' annotations name. What a method
        raises reaches the caller as `RemoteError`; a call whose arguments are of other types is
        answered with `InvalidArguments`. `redeliver`, `limit`: of each method, as with `handle`.
        Of a method that yields, or returns an iterator, each value is a part of the reply. Closing
        what is returned ends it. Raises `InvalidService` (a method takes ``*args`` or ``**kwargs``,
        is async, or has a type that msgspec does not know), `InvalidType`, `HandlerConflict`, and
        like `subscribe`.
        """
        self._connection.require_own()
        codec = self._seat.codec
        found = operations(
            instance, service, encodes=codec.encodes, decodes=codec.decodes, tasks=False
        )
        return self._subscribing.offer(service, found, redeliver=redeliver, limit=limit)

    def client(
        self,
        interface: Callable[..., T],
        service: str,
        *,
        timeout: float | None = 5.0,
        retry: Retry | None = None,
    ) -> T:
        """An object with the methods of the class `interface`: calling ``add`` makes a request of
        type ``calc.add``, where `service` is ``calc``, and returns what the method there returns.
        Of a method that yields, it returns an iterator over the parts; closing or dropping that
        breaks it off.

        `interface`: the class that is offered, or a protocol or base class with methods of the same
        names; nobody makes an instance of it. `timeout`: seconds that each call waits, or each part
        is waited for. `retry`: when it is made again, as with `request`; not of methods that yield.
        Raises `InvalidService`, `InvalidType`, `InvalidSetting`. The methods raise `TypeError` for
        arguments that do not fit the signature, `InvalidArguments` where the server expects other
        types, `InvalidResult` where it returns another, and like `request`.
        """
        self._connection.require()
        codec, wait = self._seat.codec, seconds(timeout)
        ask = self.request if retry is None else partial(self.request, retry=check_retry(retry))
        made: T = client(
            interface,
            service,
            lambda method: (
                streaming_caller(method, self.stream, wait)
                if method.info.streams
                else caller(method, ask, wait)
            ),
            encodes=codec.encodes,
            decodes=codec.decodes,
        )
        return made

    # Receiving -------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message that has no callback; None after `timeout` seconds (None: never).

        Callbacks of other messages run in this thread meanwhile. Raises `ReceiveConflict` while
        `run` is active, `BusDown`, `Evicted`, `EndpointClosed`.
        """
        self._connection.require_own()
        if self._running.threads:
            raise inside_run(self.name)
        return self._receive(timeout)

    def receive_many(self, n: int, timeout: float | None = None) -> list[Message]:
        """Up to `n` messages: waits up to `timeout` seconds for the first, then takes what is
        there. Raises like `receive`, where nothing is there."""
        self._connection.require_own()
        check_count("n", n, least=0)
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

    def fileno(self) -> int:
        """A descriptor that is readable while `receive(0)` has something to do, or would raise: for
        select, epoll, and event loops that are not asyncio. -1 once it is closed, as with a socket.

        Whoever finds it readable calls `receive(0)` until that returns None. It then becomes
        readable once for all that comes until the next such call. It belongs to this endpoint:
        neither read nor close it. Raises like `subscribe` where it is asked for the first time;
        `NoResource` or `Refused` where the system gives this process or the dispatcher's no
        descriptor.
        """
        self._connection.require_own()
        with shortage.told(self._seat.names.bus, "descriptor to wait at"):
            return self._connection.descriptor(CONFIRM)

    def __iter__(self) -> Iterator[Message]:
        """Messages that have no callback, until the endpoint is closed. Callbacks of others run
        meanwhile. Raises like `receive`."""
        self._connection.require()
        if self._running.threads:
            raise inside_run(self.name)
        return self._messages()

    def run(self, *, threads: int = 1, reconnect: bool = True) -> None:
        """Run callbacks and handlers in this thread (and `threads` - 1 more) until the endpoint is
        closed or drained.

        `reconnect`: wait where the dispatcher dies, until it is started again. Ctrl-C finishes
        what was accepted (`drain`, 30 s at most; a warning says how much is left) and is raised
        again; a second one ends it at once. SIGTERM finishes it, too: handlers at work go on, and
        `run` returns; a second one ends the process. That is so in the main thread, where the
        program does nothing else about SIGTERM. Raised again is what else ends a thread, too, such
        as `sys.exit()` in a handler, where it is the calling one. Raises `ReceiveConflict` where a
        subscription has no callback, `NoThread`, `BusDown`, `Evicted`.
        """
        self._runnable(threads)
        others = self._running.start(threads - 1, reconnect=reconnect)
        try:
            with termination.drained(self.name, self.drain):
                self._running.run(reconnect=reconnect)
        except KeyboardInterrupt:
            try:
                self._drain_at_interruption()
            except KeyboardInterrupt:
                left = self._unfinished()
                log.warning("endpoint %r ends at once, with %d messages undone", self.name, left)
                self._ending.close_at_once()
            raise
        for thread in others:
            thread.join()

    def _drain_at_interruption(self) -> None:
        if left := self._unfinished():
            log.warning(
                "endpoint %r is interrupted: it finishes the messages that it has (%d), for 30 s "
                "at most; Ctrl-C again ends it at once",
                self.name,
                left,
            )
        try:
            self.drain()
        except errors.DrainTimeout as why:
            log.warning("%s", why)

    def start(self, *, threads: int = 1, reconnect: bool = True) -> None:
        """Like `run`, but in threads of its own; returns at once. Nothing that a handler raises
        ends them. Raises like `run`."""
        self._runnable(threads)
        self._running.start(threads, reconnect=reconnect)

    def _runnable(self, threads: int) -> None:
        self._connection.require()
        check_count("threads", threads)
        if uncalled := self._interests.uncalled():
            raise conflict(
                self.name,
                f"run() needs a callback for every subscription, {uncalled[0]!r} has none",
            )

    # Others ----------------------------------------------------------------------------------

    def wait_for(self, pattern: str, *, receivers: int = 1, timeout: float | None = 5.0) -> None:
        """Wait until `receivers` live endpoints would get what matches `pattern`, so that nobody
        misses the first message. Subscribers count as well as handlers, so a request may still
        end with `NoRoute` where only subscribers have come. Raises `WaitTimeout` after
        `timeout` seconds, `InvalidPattern`, `BusDown`."""
        self._connection.require_own()
        for pause in self._looks_for(pattern, receivers, timeout):
            self._done.wait(pause)

    def _looks_for(self, pattern: str, receivers: int, timeout: float | None) -> Iterator[float]:
        """The pauses between looks, in seconds, until there are so many receivers."""
        patterns.check_pattern(pattern)
        check_count("receivers", receivers, least=0)
        timeout = seconds(timeout)
        end = None if timeout is None else monotonic() + timeout
        pause = 0.001
        while True:
            self._connection.require(served=True)
            found = sum(1 for info in self.bus.find(pattern) if info.routed)
            if found >= receivers:
                return
            if end is not None and monotonic() >= end:
                raise errors.WaitTimeout(
                    pattern=pattern, receivers=receivers, found=found, seconds=timeout or 0.0
                )
            yield pause
            pause = min(pause * 1.5, 0.02)

    def on_match(self, pattern: str, callback: Callable[[int], object]) -> Subscription:
        """Call `callback` with the number of receivers when the first endpoint comes that would get
        events of any type which `pattern` matches, at once if there are some, and with 0 when the
        last one has gone: so nothing need be produced while nobody is there.

        Receivers are those that subscribe and the members of groups, this endpoint included. Who
        runs other callbacks of this endpoint runs this one, too, one call at a time; what comes and
        goes meanwhile is not told of one by one. Closing what is returned ends it. An endpoint may
        have 64 of these. Raises like `subscribe`.
        """
        self._connection.require_own()
        return self._subscribing.on_match(pattern, callback, Matching(callback))

    def _count_matches(self, pattern: str, handlers: bool) -> int:
        patterns.check_pattern(pattern)
        with suppress(errors.BusDown, errors.RequestTimeout):
            self._connection.require(served=True)
            found = self._requests.query(pattern, until(LOOK, None))
            self._learn_matches(pattern, found)
            return found.handlers if handlers else found.receivers
        role: Literal["handle", "subscribe"] = "handle" if handlers else "subscribe"
        self._connection.require()
        return sum(1 for info in self.bus.find(pattern, role=role) if info.routed)

    def on_death(self, name: str, callback: Callable[[Death], None]) -> Subscription:
        """Call `callback` once when the endpoint of this name ends, however it does, or at once if
        there is none now. It is called in a thread of this endpoint's own, with no lock held.
        Raises `InvalidName`, `NoThread`."""
        self._connection.require()
        names.check_attached(name)
        check_callable(callback, name)
        if self._deaths is None:
            self._deaths = DeathWatch(self.name, self._seat.bus, self._done)
        return Subscription(name, None, self._deaths.add(name, callback))

    # Ending ----------------------------------------------------------------------------------

    def drain(self, timeout: float | None = 30.0) -> None:
        """Finish what has been accepted, then close: no new messages come, those in its ring are
        handled, deferred requests are answered, what was sent is forwarded. `timeout`: seconds
        (None: no limit). Raises `DrainTimeout` once it is closed, where messages were left."""
        self._connection.require_own()
        self._ending.drain(seconds(timeout))

    def close(self) -> None:
        """Leave the bus. What was sent is forwarded; handlers at work are waited for (a limited
        time); messages not begun are handed on where that is possible, else counted as lost.
        Harmless if done before. In the main thread, an exception from a signal's handler ends the
        wait for handlers; what signals call after that waits until it has left, 12 s at most."""
        self._ending.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        ending: Ending | None = getattr(self, "_ending", None)
        if ending is None or ending.closed or ending.forked():
            return
        try:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=2)
        finally:  # where warnings are errors, too
            ending.close_at_once()
