"""One client: what it asks for, done at an endpoint of its own."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any, assert_never

import msgspec

from shmbus import BusError, aio

from . import lines
from .absence import Absence
from .asking import Asking
from .framing import Cut
from .framing import lines as cut
from .inbox import Inbox
from .lines import BadLine
from .output import Output
from .wording import told

PATIENCE = 5.0
"""Seconds in which what a client has said is still done when it has gone, and in which the last
lines for one that still reads have to be read."""

FAREWELL = 1.0
"""Seconds that a client has to read the last lines when the gateway is stopped."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all clients of a gateway."""

    bus: str
    longest: int
    """Bytes of a line from a client."""


class Session:
    """One client. `run` returns when it, or its endpoint, has ended."""

    def __init__(
        self,
        options: Options,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._options, self._name, self._reader = options, name, reader
        self._output = Output(writer)
        self._descriptor: int = writer.get_extra_info("socket").fileno()
        self._endpoint: aio.Endpoint | None = None
        self._inbox = Inbox(self._output, None)
        self._subscriptions: dict[tuple[str, str | None], aio.Subscription] = {}
        self._asking = Asking(self._output)
        self._over: asyncio.Future[BusError | None] = asyncio.get_running_loop().create_future()
        """Done when the client has gone, or with the error that ended its endpoint."""

    async def run(self, patience: float | None = PATIENCE) -> BusError | None:
        """Do what the client asks for, until it has ended: the error where its endpoint has.
        `patience`: seconds that it has to read the last lines; None: any time."""
        absence = Absence(self._descriptor, lambda: self._end(None))
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait((reading, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done() and self._over.result() is None:
                await asyncio.wait((reading,), timeout=PATIENCE)
            elif not self._over.done():
                answers = asyncio.create_task(self._asking.wait())
                await asyncio.wait((answers, self._over), return_when=asyncio.FIRST_COMPLETED)
                answers.cancel()
            if reading.done():
                reading.result()
        except asyncio.CancelledError:
            patience = FAREWELL
            raise
        finally:
            absence.close()
            reading.cancel()
            await self._leave()
            await self._output.close(patience)
        return self._over.result() if self._over.done() else None

    def _end(self, why: BusError | None) -> None:
        if not self._over.done():
            self._over.set_result(why)

    async def _leave(self) -> None:
        self._inbox.leave()
        self._asking.leave()
        if self._endpoint is not None:
            await self._endpoint.close()
        if self._over.done() and (why := self._over.result()) is not None:
            self._output.put({"error": told(why)})

    # Lines ---------------------------------------------------------------------------------------

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in cut(self._reader, self._options.longest):
                await self._do_line(line)

    async def _do_line(self, line: Cut) -> None:
        identity: lines.Id | None = None
        try:
            if line.content is None:
                raise BadLine(
                    f"it is longer than {self._options.longest} bytes",
                    "Send less at a time, or start the gateway with a larger --longest",
                )
            try:
                said = lines.read(line.content)
            except BadLine:
                identity = lines.id_of(line.content)
                raise
            identity = said.id
            answer = await self._do(said)
        except (BusError, BadLine) as why:
            where = {} if identity is None else {"id": identity}
            await self._output.write({**where, "error": told(why), "line": line.number})
        else:
            if identity is not None and answer is not None:
                await self._output.write({"id": identity, "ok": True, **answer})

    async def _do(self, said: lines.AnyLine) -> dict[str, Any] | None:
        """What the answer has beside its id; None: it comes later. Raises `BadLine`, `BusError`."""
        match said:
            case lines.Attach():
                endpoint = await self._attach(said)
                return {"bus": self._options.bus, "name": endpoint.name}
            case lines.More():
                self._inbox.add_credit(said.n)
            case lines.Reply():
                self._inbox.reply(said.message, said.value())
            case lines.Part():
                self._inbox.part(said.message, said.value(), partial(self._taken, said.id))
                return None
            case lines.Error():
                self._inbox.fail(said.message, _named(said.name)(said.text))
            case lines.Done():
                self._inbox.done(said.message)
            case lines.Nack():
                await self._inbox.nack(said.message, said.delay, said.reason)
            case lines.Cancel():
                self._asking.cancel(said.request)
            case lines.Unsubscribe():
                await self._unsubscribe(said)
            case lines.Request() | lines.Stream():
                await self._asking.begin(await self._attached(), said)
                return None
            case lines.Publish() | lines.Send() | lines.Wait():
                await self._tell(said)
            case lines.Subscribe() | lines.Handle():
                await self._receive(said)
            case _ as never:
                assert_never(never)
        return {}

    def _taken(self, identity: lines.Id | None, problem: BadLine | None) -> None:
        """A part of a reply, which had this id, is taken or never will be."""
        if identity is not None:
            how = {"ok": True} if problem is None else {"error": told(problem)}
            self._output.put({"id": identity, **how})

    # The endpoint --------------------------------------------------------------------------------

    async def _attach(self, said: lines.Attach) -> aio.Endpoint:
        if self._endpoint is not None:
            raise BadLine(
                f"this client is attached already, as {self._endpoint.name!r}",
                "Attach once, before all other lines",
            )
        self._inbox = Inbox(self._output, said.credit)
        self._endpoint = endpoint = await aio.attach(
            self._options.bus,
            name=said.name or self._name,
            reconnect=True,
            concurrency=said.window,
        )
        self._running = asyncio.create_task(self._receive_all(endpoint))
        return endpoint

    async def _attached(self) -> aio.Endpoint:
        return self._endpoint or await self._attach(lines.Attach())

    async def _receive_all(self, endpoint: aio.Endpoint) -> None:
        try:
            await endpoint.run()
        except BusError as why:
            self._end(why)

    async def _receive(self, said: lines.Subscribe | lines.Handle) -> None:
        endpoint = await self._attached()
        if isinstance(said, lines.Handle):
            work = self._inbox.work(said.pattern)
            endpoint.handle(said.pattern, work, limit=said.limit, redeliver=said.redeliver)
            return
        which = said.pattern, said.group
        if which in self._subscriptions:
            raise BadLine(f"it subscribes to {said.pattern!r} already", "Unsubscribe first")
        show = self._inbox.event if said.group is None else self._inbox.work
        self._subscriptions[which] = await endpoint.subscribe(
            said.pattern,
            show(said.pattern),
            group=said.group,
            key=said.key,
            overflow=said.overflow,
            depth=said.depth,
            history=said.history,
        )

    async def _unsubscribe(self, said: lines.Unsubscribe) -> None:
        subscription = self._subscriptions.pop((said.pattern, said.group), None)
        if subscription is None:
            group = "" if said.group is None else f" in group {said.group!r}"
            raise BadLine(
                f"it does not subscribe to {said.pattern!r}{group}",
                "Give pattern and group as they were given to subscribe",
            )
        await subscription.close()

    # Sending -------------------------------------------------------------------------------------

    async def _tell(self, said: lines.Publish | lines.Send | lines.Wait) -> None:
        endpoint = await self._attached()
        match said:
            case lines.Publish():
                await endpoint.publish(
                    said.type,
                    said.value(),
                    timeout=said.timeout,
                    retain=said.retain,
                    urgent=said.urgent,
                )
            case lines.Send():
                await endpoint.send(said.type, said.value(), timeout=said.timeout)
            case lines.Wait():
                await endpoint.wait_for(said.pattern, timeout=said.timeout)


def _named(name: str) -> type[Exception]:
    """An exception of that name: whoever asked sees it in its `RemoteError`."""
    return type(name, (Exception,), {"__module__": "builtins"})
