"""An endpoint that belongs to an event loop: `Endpoint`, which `attach` makes.

It has a synchronous endpoint inside, which is attached and closed in a thread of its own. All that
is done for every message is done by the loop, natively and without waiting
(`endpoint/kernel/looped.pxi`); `turns` has what happens when something has come.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NoReturn,
    Self,
    SupportsIndex,
    TypeVar,
    overload,
)

from shmbus import errors
from shmbus.endpoint import endpoint as synchronous
from shmbus.endpoint._kernel import (
    Looped,
    LoopIteration,
    LoopStream,
    Message,
    in_force,
    until,
    ways,
)
from shmbus.endpoint.matching import AsynchronousMatching, Matching
from shmbus.endpoint.retry import Retry, check_retry
from shmbus.endpoint.subscribing import OnError
from shmbus.endpoint.subscribing import Subscription as Synchronous
from shmbus.services.calling import awaiting_caller, client, streaming_caller_later
from shmbus.services.serving import operations
from shmbus.settings import check_count
from shmbus.shared import patterns
from shmbus.shared._kernel import seconds
from shmbus.shared.messages import Death

from . import ending, termination
from .batch import Batch
from .ending import Ending
from .gates import Gates
from .gathering import gather
from .lending import Loan
from .line import NO_LINE
from .posting import EVENT, SEND, Posting
from .receiving import Receiving
from .requests import Requests
from .subscribing import Callback, Subscription, is_asynchronous
from .threads import begin_in_thread, in_thread, to_the_end
from .turns import Turns

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from shmbus.views.observe import BusView

log = logging.getLogger("shmbus")

Function = TypeVar("Function", bound=Callback)
T = TypeVar("T")


class Endpoint:
    """A process's place on the bus, in the event loop in which it was attached; made by `attach`.
    An asynchronous context manager: leaving the block closes it.

    Its calls have the names and meanings of `shmbus.Endpoint`, and raise what those raise. A call
    that has nothing to wait for does not suspend its task; one that finds a ring or a table full
    suspends its task, never the loop. A call from another loop or thread raises `WrongLoop`.
    """

    _inner: synchronous.Endpoint
    _concurrency: int
    _looped: Looped
    _turns: Turns
    _ending: Ending
    _posting: Posting
    _requests: Requests
    _gates: Gates
    _receiving: Receiving
    _here: Callable[[], None]
    """Raises `WrongLoop` where it is called outside of the endpoint's loop."""

    def __init__(self) -> None:
        raise TypeError("use shmbus.aio.attach()")

    @classmethod
    def _of(cls, inner: synchronous.Endpoint, concurrency: int) -> Self:
        self = cls.__new__(cls)
        self._inner = inner
        loop = asyncio.get_running_loop()
        self._concurrency = concurrency
        self._looped = Looped(inner, concurrency)
        self._turns = Turns(inner._connection, self._looped, loop)
        self._here = self._turns.here
        self._posting = Posting(self._looped, self._turns)
        self._requests = Requests(inner._requests, self._looped, self._turns, loop)
        self._gates = Gates(inner._subscribing, self._looped, self._turns, concurrency)
        self._receiving = Receiving(self._looped, self._turns, inner.name)
        self._ending = Ending(inner, self._looped, self._turns, loop, self.start)
        inner._subscribing.loop_thread = threading.get_ident()
        self._turns.begin()
        return self

    @property
    def name(self) -> str:
        """The only one of that name on the bus."""
        return self._inner.name

    @property
    def reconnect(self) -> bool:
        """Whether calls wait for the next dispatcher where one dies, as `attach` was told."""
        return self._inner.reconnect

    @property
    def bus(self) -> BusView:
        """The bus as this process sees it: endpoints, routes, health. Looking takes the loop some
        milliseconds."""
        return self._inner.bus

    def __repr__(self) -> str:
        return f"{self._inner!r}".replace("<endpoint", "<asyncio endpoint")

    # Sending ---------------------------------------------------------------------------------

    async def publish(
        self,
        type: str,
        payload: object = None,
        *,
        timeout: float | None = 5.0,
        retain: bool = False,
        urgent: bool = False,
    ) -> None:
        """Send an event to all who subscribe to a matching pattern. It is accepted when this
        returns, which is at once unless this endpoint's ring is full. Arguments and errors are
        those of `shmbus.Endpoint.publish`."""
        self._here()
        flags = ways(retain, urgent)
        line = self._looped.post(EVENT, flags, type, payload, NO_LINE)
        if line != NO_LINE:
            await self._posting.in_line(line, EVENT, flags, type, payload, timeout)

    async def send(self, type: str, payload: object = None, *, timeout: float | None = 5.0) -> None:
        """Send a command to the one endpoint that handles the most specific matching pattern; like
        `publish`."""
        self._here()
        line = self._looped.post(SEND, 0, type, payload, NO_LINE)
        if line != NO_LINE:
            await self._posting.in_line(line, SEND, 0, type, payload, timeout)

    def loan(
        self,
        type: str,
        nbytes: SupportsIndex,
        *,
        align: int = 64,
        retain: bool = False,
        urgent: bool = False,
        timeout: float | None = 5.0,
    ) -> Loan:
        """Memory for an event of `nbytes` bytes, to be filled in place in an `async with` block, at
        whose end it is published. Arguments and errors are those of `shmbus.Endpoint.loan`."""
        self._here()
        made = self._inner.loan(type, nbytes, align=align, retain=retain, urgent=urgent)
        return self._posting.loan(made, timeout)

    def loan_array(
        self,
        type: str,
        shape: int | tuple[int, ...],
        dtype: DTypeLike,
        *,
        order: Literal["C", "F"] = "C",
        retain: bool = False,
        urgent: bool = False,
        timeout: float | None = 5.0,
    ) -> Loan:
        """Likewise of an array of numpy; see `shmbus.Endpoint.loan_array`."""
        self._here()
        made = self._inner.loan_array(type, shape, dtype, order=order, retain=retain, urgent=urgent)
        return self._posting.loan(made, timeout)

    async def publish_many(
        self, items: Iterable[tuple[str, object]], *, timeout: float | None = 5.0
    ) -> None:
        """Send events, given as pairs of type and payload, with one publication and one bell for
        many of them. Others in the loop have a turn after every 128 of them. Raises like `publish`,
        with the `index` of the message that failed; those before it are accepted."""
        self._here()
        await self._posting.many(items, timeout)

    def batch(
        self,
        *,
        max_messages: int | None = 256,
        max_bytes: int | None = None,
        max_delay: float | None = None,
    ) -> Batch:
        """Messages that are published together, in an `async with` block; see
        `shmbus.Endpoint.batch`."""
        self._here()
        made = self._inner.batch(
            max_messages=max_messages, max_bytes=max_bytes, max_delay=max_delay
        )
        return Batch(made, self._posting.batched)

    async def request(
        self,
        type: str,
        payload: object = None,
        *,
        timeout: float | None = 5.0,
        reply_type: Any = None,
        retry: Retry | None = None,
        inherit_deadline: bool = True,
    ) -> Message:
        """Send a request to the endpoint that handles the most specific matching pattern, and wait
        for its reply.

        Cancelling the task, also by `asyncio.timeout`, withdraws the request, and its server learns
        of that (`Message.cancelled`). Arguments and errors are those of `shmbus.Endpoint.request`.
        """
        self._here()
        deadline = until(timeout, in_force() if inherit_deadline else None)
        if retry is not None:
            return await self._requests.ask_again(type, payload, deadline, reply_type, retry)
        return await self._requests.ask(type, payload, deadline, reply_type)

    def request_many(
        self,
        items: Iterable[tuple[str, object]],
        *,
        timeout: float | None = 5.0,
        window: int | None = None,
        reply_type: Any = None,
        inherit_deadline: bool = True,
    ) -> AsyncGenerator[Message | errors.BusError, None]:
        """Send requests, given as pairs of type and payload, and yield the reply of each, in their
        order, or the error that came instead; `async for reply in ep.request_many(...)`. Leaving it
        early by `aclose()` withdraws those under way. Arguments and errors are those of
        `shmbus.Endpoint.request_many`."""
        return self._requests.ask_many(items, timeout, window, reply_type, inherit_deadline)

    async def gather(
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
        instead. This endpoint is among them if it handles it and receives. Cancelling the task
        withdraws all. Arguments and errors are those of `shmbus.Endpoint.gather`."""
        self._here()
        deadline = until(timeout, in_force() if inherit_deadline else None)
        found = await self._requests.find(patterns.check_type(type), deadline)
        answers = bool(self._turns.runs or len(self._turns.receivers))
        gathering = self._inner._gathering(type, found, deadline, at_least, answers)
        return await gather(
            self._looped, self._turns, gathering, type, payload, deadline, reply_type
        )

    def stream(
        self,
        type: str,
        payload: object = None,
        *,
        timeout: float | None = 5.0,
        total: float | None = None,
        part_type: Any = None,
        inherit_deadline: bool = True,
    ) -> LoopStream:
        """Send a request to the endpoint that handles the most specific matching pattern, and
        iterate over its reply, which comes in parts: `async for part in ep.stream(...)`. Where
        there is no space for the request, it is sent when the first part is asked for.

        Leaving it early by `aclose()`, at the end of its `async with` block, or because the task is
        cancelled breaks it off, and the handler's generator is closed. Arguments and errors are
        those of `shmbus.Endpoint.stream`.
        """
        self._here()
        whole = until(total, in_force() if inherit_deadline else None, what="total")
        return self._looped.stream(type, payload, timeout, whole, part_type)

    # Interests -------------------------------------------------------------------------------

    async def subscribe(
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
        concurrency: int | None = None,
    ) -> Subscription:
        """Get the events whose type matches `pattern`.

        `callback`: an `async def` is called in a task for each message, a plain function in the
        loop. Without one, iterating over the subscription yields its messages, or else iterating
        over the endpoint does. `concurrency`: how many messages an `async def` works on at a time,
        by default as many as the endpoint may; 1 keeps their order. With "latest" and "drop_oldest"
        messages stay in the mailbox until an iteration asks, or a place for a task is free. When
        this returns, the bus routes by it. All else is as in `shmbus.Endpoint.subscribe`.
        """
        self._here()
        own = self._gates.of_iteration(concurrency) if callback is None else None
        gate = own if callback is None else self._gates.of_callback(callback, concurrency)
        inner = await in_thread(
            self.name,
            "subscribing",
            lambda: self._inner._subscribing.subscribe(
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
                gate=gate,
            ),
            undo=Synchronous.close,
        )
        if own is None:
            return Subscription(inner, self._apart)
        return Subscription(
            inner,
            self._apart,
            partial(self._gates.iterate, own),
            partial(self._turns.receivers.forget, own),
            partial(self._looped.release, own),
        )

    async def tap(self, pattern: str = ">") -> Subscription:
        """See copies of all that matches, as `shmbus.Endpoint.tap` does; iterating over it, or over
        the endpoint, yields them."""
        self._here()
        inner = await in_thread(
            self.name,
            "subscribing",
            lambda: self._inner._subscribing.tap(pattern),
            undo=Synchronous.close,
        )
        return Subscription(inner, self._apart, self.__aiter__)

    async def _apart(self, close: Callable[[], None]) -> None:
        await to_the_end(begin_in_thread(self.name, "unsubscribing", close))

    @overload
    def handle(
        self,
        pattern: str,
        function: None = None,
        *,
        payload_type: Any = None,
        redeliver: bool = False,
        limit: float | None = None,
        concurrency: int | None = None,
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
        concurrency: int | None = None,
    ) -> Function: ...
    def handle(
        self,
        pattern: str,
        function: Any = None,
        *,
        payload_type: Any = None,
        redeliver: bool = False,
        limit: float | None = None,
        concurrency: int | None = None,
    ) -> Any:
        """Handle the commands and requests whose type matches `pattern`: a call, or a decorator.

        `function`: an `async def` is called in a task for each message, a plain function in the
        loop; what it returns is the reply, or what it yields are the parts of that. Where the
        requester withdraws the request, the task is cancelled. `concurrency`: how many messages an
        `async def` works on at a time, by default as many as the endpoint may. The bus routes by it
        when this returns, for which the loop waits some 0.1 ms, and 20 at the most: where the
        dispatcher is held up, or gone, it does so later.
        All else is as in `shmbus.Endpoint.handle`.
        """
        self._here()
        patterns.check_pattern(pattern)
        if function is None:
            return lambda function: self.handle(
                pattern,
                function,
                payload_type=payload_type,
                redeliver=redeliver,
                limit=limit,
                concurrency=concurrency,
            )
        self._inner._subscribing.handle(
            pattern,
            function,
            payload_type=payload_type,
            redeliver=redeliver,
            limit=limit,
            gate=self._gates.of_callback(function, concurrency),
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
        concurrency: int | None = None,
    ) -> Subscription:
        """Serve the public methods of `instance`: requests of type ``calc.add`` call its method
        ``add``, where `service` is ``calc``.

        An ``async def`` is called in a task for each request, which is cancelled where the caller
        withdraws it; a plain method in the loop. `concurrency`: how many calls the asynchronous
        methods work on at a time, all together, by default as many as the endpoint may; 1 keeps
        their order. All else is as in `shmbus.Endpoint.offer`; the loop waits as in `handle`.
        """
        self._here()
        codec = self._inner._seat.codec
        found = operations(
            instance, service, encodes=codec.encodes, decodes=codec.decodes, tasks=True
        )
        first = next((each.handler for each in found if each.asynchronous), found[0].handler)
        inner = self._inner._subscribing.offer(
            service,
            found,
            redeliver=redeliver,
            limit=limit,
            gate=self._gates.of_callback(first, concurrency),
        )
        return Subscription(inner, self._apart)

    def client(
        self,
        interface: Callable[..., T],
        service: str,
        *,
        timeout: float | None = 5.0,
        retry: Retry | None = None,
    ) -> T:
        """An object with the methods of the class `interface`: calling ``add`` returns what is to
        be awaited, which makes a request of type ``calc.add``, where `service` is ``calc``.

        Let `interface` be a class or protocol whose methods are ``async def``: that is what they
        are here, whatever those of the server are. What a method yields is iterated over by
        ``async for``. All else is as in `shmbus.Endpoint.client`.
        """
        self._here()
        self._inner._connection.require()
        codec, wait = self._inner._seat.codec, seconds(timeout)
        ask = self.request if retry is None else partial(self.request, retry=check_retry(retry))
        made: T = client(
            interface,
            service,
            lambda method: (
                streaming_caller_later(method, self.stream, wait)
                if method.info.streams
                else awaiting_caller(method, ask, wait)
            ),
            encodes=codec.encodes,
            decodes=codec.decodes,
        )
        return made

    # Receiving -------------------------------------------------------------------------------

    def __aiter__(self) -> LoopIteration:
        """Messages that have no callback, and whose subscription nobody iterates over, until the
        endpoint is closed. Callbacks of others run meanwhile. The loop has a turn after every
        128 of them at the latest."""
        self._here()
        return LoopIteration(self._looped, None, self._turns.message)

    async def receive(self, timeout: float | None = None) -> Message | None:
        """The next message that has no callback; None after `timeout` seconds (None: never). A
        message of a group is done when this task receives the next one, or ends. Raises `BusDown`,
        `Evicted`, `EndpointClosed`."""
        self._here()
        return await self._receiving.receive(timeout)

    async def receive_many(self, n: int, timeout: float | None = None) -> list[Message]:
        """Up to `n` messages: waits up to `timeout` seconds for the first, then takes what is
        there."""
        check_count("n", n, least=0)
        found: list[Message] = []
        while len(found) < n:
            message = await self.receive(0.0 if found else timeout)
            if message is None:
                break
            found.append(message)
        return found

    def start(self) -> None:
        """Run callbacks and handlers in the loop from here on, until the endpoint is closed."""
        self._here()
        self._inner._connection.require()
        asynchronous = any(i.gate is not None and i.gate.limit for i in self._inner._interests)
        self._turns.start(self._concurrency if asynchronous else 1)

    async def run(self, *, reconnect: bool = True) -> None:
        """Run callbacks and handlers until the endpoint is closed or drained. `reconnect`: wait
        where the dispatcher dies, until it is started again. Where the task is cancelled, as Ctrl-C
        does, what was accepted is finished first (`drain`, 5 s at the most). SIGTERM drains it, for
        30 s at the most, and `run` returns; a second one ends the process. That is so in the main
        thread, and where nothing else was made of SIGTERM. Raises `BusDown`, `Evicted`."""
        self.start()
        try:
            with termination.drained(self._drain_at_termination):
                while not self._turns.over:
                    trouble = self._turns.trouble
                    if trouble is not None and not (reconnect and self._looped.recoverable):
                        self._turns.close_parts(None)  # nobody runs on with them
                        raise trouble
                    await self._turns.disturbed()
        except asyncio.CancelledError:
            try:
                await self.drain(ending.PATIENCE)
            except errors.DrainTimeout as why:
                log.warning("%s", why)
            raise

    async def _drain_at_termination(self) -> None:
        try:
            await self.drain()
        except errors.BusError as why:
            log.warning("endpoint %r: %s", self.name, why)

    # Others ----------------------------------------------------------------------------------

    async def wait_for(
        self, pattern: str, *, receivers: int = 1, timeout: float | None = 5.0
    ) -> None:
        """Wait until `receivers` live endpoints would get what matches `pattern`, as
        `shmbus.Endpoint.wait_for`."""
        self._here()
        for pause in self._inner._looks_for(pattern, receivers, timeout):
            await asyncio.sleep(pause)
            if self._turns.over:
                raise errors.EndpointClosed(endpoint=self.name)

    def matched(self, type: str, *, handlers: bool = False) -> int:
        """How many endpoints would get an event of this type, or handle commands and requests of
        it, as `shmbus.Endpoint.matched`. Nothing is awaited: where the routes have changed, the
        loop waits some 0.1 ms, and 20 at the most."""
        self._here()
        return self._inner.matched(type, handlers=handlers)

    async def on_match(self, pattern: str, callback: Callable[[int], Any]) -> Subscription:
        """Call `callback`, an `async def` or a plain function, in the loop with the number of
        receivers when the first endpoint comes that would get events of any type which `pattern`
        matches, and with 0 when the last one has gone, as `shmbus.Endpoint.on_match`."""
        self._here()
        asynchronous = is_asynchronous(callback)
        told = AsynchronousMatching(callback) if asynchronous else Matching(callback)
        gate = self._gates.of_callback(told, 1) if asynchronous else None
        inner = await in_thread(
            self.name,
            "subscribing",
            lambda: self._inner._subscribing.on_match(pattern, callback, told, gate=gate),
            undo=Synchronous.close,
        )
        return Subscription(inner, self._apart)

    def on_death(self, name: str, callback: Callable[[Death], Any]) -> Subscription:
        """Call `callback`, an `async def` or a plain function, in the loop once when the endpoint
        of this name ends, however it does, or at once if there is none now. Raises `InvalidName`,
        `NoThread`."""
        self._here()
        inner = self._inner.on_death(name, lambda death: self._turns.tell(callback, death))
        return Subscription(inner, self._apart)

    # Ending ----------------------------------------------------------------------------------

    async def drain(self, timeout: float | None = 30.0) -> None:
        """Finish what has been accepted, then close: no new messages come, those in its ring are
        handled, tasks at work end, deferred requests are answered, what was sent is forwarded.
        `timeout`: seconds (None: no limit). Raises `DrainTimeout` once it is closed, where messages
        were left. Where the caller is cancelled, it cancels the tasks at work, and closes."""
        self._here()
        await self._ending.drain(seconds(timeout))

    async def close(self) -> None:
        """Leave the bus. What was sent is forwarded; tasks at work are waited for for 5 s, then
        cancelled. Messages not begun are handed on where that is possible, else counted as lost.
        Harmless if done before."""
        self._here()
        await self._ending.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # Of the other kind -----------------------------------------------------------------------

    def __enter__(self) -> NoReturn:
        raise self._other("with", "async with")

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def __iter__(self) -> NoReturn:
        raise self._other("for", "async for")

    def request_async(self, *_: object, **__: object) -> NoReturn:
        """Refused: a task is what a future is there."""
        raise self._other("request_async()", "asyncio.create_task(ep.request(...))")

    def _other(self, what: str, instead: str) -> TypeError:
        return TypeError(f"{self!r} belongs to an event loop: use {instead} instead of {what}")
