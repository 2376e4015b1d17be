"""Replies in parts in an event loop: asynchronous generators, and tasks that take their parts."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

import shmbus
import shmbus.aio
from shmbus import errors
from shmbus.aio.attach import Attaching
from shmbus.testing import BusProcess, StartWorker, eventually

from .stage import AioAttach, facts


class Counter:
    """Counts to what it is asked for, and notes how far it came, and that it was closed."""

    def __init__(self, endpoint: shmbus.aio.Endpoint, *, plain: bool = False) -> None:
        self.reached = 0
        self.under_way = self.most = 0
        self.closed = asyncio.Event()
        endpoint.handle("count", self.plain if plain else self.count)
        endpoint.start()

    async def count(self, message: shmbus.Message) -> AsyncIterator[int]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for number in range(message.payload):
                self.reached = number
                yield number
        finally:
            await asyncio.sleep(0)
            self.under_way -= 1
            self.closed.set()

    def plain(self, message: shmbus.Message) -> Iterator[int]:
        try:
            for number in range(message.payload):
                self.reached = number
                yield number
        finally:
            self.closed.set()


async def until_idle(server: shmbus.aio.Endpoint) -> None:
    while server._inner._unfinished() or server._looped.jobs:
        await asyncio.sleep(0.001)


@pytest.mark.smoke
@pytest.mark.parametrize("plain", [False, True])
async def test_a_handler_that_yields_streams_its_reply(attach: AioAttach, plain: bool) -> None:
    async with attach("server") as server, attach("client") as client:
        Counter(server, plain=plain)
        stream = client.stream("count", 1000)
        first = await anext(stream)
        assert (first.payload, first.source, first.kind, first.type) == (
            0,
            "server",
            "part",
            "count",
        )
        assert [part.payload async for part in stream] == list(range(1, 1000))
        assert [part.payload async for part in stream] == []
        assert [part.payload async for part in client.stream("count", 0)] == []
        await until_idle(server)


async def test_what_is_not_yielded_is_one_part_and_a_single_reply_is_asked_for_by_request(
    attach: AioAttach,
) -> None:
    async with attach("server") as server, attach("client") as client:
        Counter(server)

        @server.handle("double")
        async def double(message: shmbus.Message) -> object:
            return 2 * message.payload

        @server.handle("returns")
        async def returns(message: shmbus.Message) -> object:
            await asyncio.sleep(0)
            return (number for number in range(message.payload))

        assert [part.payload async for part in client.stream("double", 21)] == [42]
        assert [part.payload async for part in client.stream("returns", 3)] == [0, 1, 2]
        with pytest.raises(
            errors.RemoteError, match=r"ask with ep.stream\(\), not with request\(\)"
        ):
            await client.request("count", 3)
        await client.send("count", 3)
        await until_idle(server)


@pytest.mark.parametrize("plain", [False, True])
async def test_a_slow_reader_makes_the_handler_wait_and_nobody_else(
    attach: AioAttach, plain: bool
) -> None:
    async with attach("server") as server, attach("client") as client:
        counter = Counter(server, plain=plain)

        @server.handle("double")
        async def double(message: shmbus.Message) -> object:
            return 2 * message.payload

        async with client.stream("count", 1_000_000) as stream:
            assert (await anext(stream)).payload == 0
            for number in range(50):
                assert (await client.request("double", number)).payload == 2 * number
            assert counter.reached < 10_000
            got = [(await anext(stream)).payload for _ in range(20_000)]
            assert got == list(range(1, 20_001))
            assert not counter.closed.is_set()
        await counter.closed.wait()
        assert counter.reached < 100_000
        await until_idle(server)


async def test_an_exception_half_way_comes_after_the_parts_before_it(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:

        @server.handle("fail")
        async def fail(message: shmbus.Message) -> AsyncIterator[object]:
            for number in range(100):
                yield number
            if message.payload:
                yield object()
            raise ValueError("no more")

        server.start()
        for payload, why in ((False, "no more"), (True, "cannot be encoded")):
            stream = client.stream("fail", payload)
            assert [(await anext(stream)).payload for _ in range(100)] == list(range(100))
            with pytest.raises(errors.RemoteError, match=why):
                await anext(stream)
            assert stream.ended
            assert [part async for part in stream] == []
        await until_idle(server)


@pytest.mark.parametrize("how", ["break", "drop", "cancel", "raise"])
@pytest.mark.parametrize("plain", [False, True])
async def test_breaking_off_closes_the_generator(attach: AioAttach, plain: bool, how: str) -> None:
    async with attach("server") as server, attach("client") as client:
        counter = Counter(server, plain=plain)
        stream = client.stream("count", 10_000_000)
        async for part in stream:
            if part.payload == 10:
                break
        if how == "break":
            await stream.aclose()
            assert [part async for part in stream] == []
        elif how == "drop":
            del stream
            gc.collect()
        elif how == "raise":
            with pytest.raises(ZeroDivisionError):
                async with stream:
                    (await anext(stream)).payload // 0
        else:

            async def read() -> None:
                async for _ in stream:
                    await asyncio.sleep(0)

            task = asyncio.create_task(read())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if not stream.ended:  # it was cancelled between two parts
                await stream.aclose()
        await counter.closed.wait()
        await until_idle(server)


async def test_a_task_that_waits_for_a_part_withdraws_it_when_it_is_cancelled(
    attach: AioAttach,
) -> None:
    async with attach("server") as server, attach("client") as client:
        ended = list[str]()

        @server.handle("wait")
        async def wait(message: shmbus.Message) -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            finally:
                await asyncio.sleep(0)
                ended.append("finally")

        server.start()
        stream = client.stream("wait")
        assert (await anext(stream)).payload == 1
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="another task waits"):
            await anext(stream)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stream.ended
        await until_idle(server)
        assert ended == ["cancelled", "finally"]


async def test_the_timeout_is_between_parts_and_total_for_all(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        closed = asyncio.Event()

        @server.handle("slow")
        async def slow(message: shmbus.Message) -> AsyncIterator[int]:
            try:
                while True:
                    await asyncio.sleep(message.payload)
                    yield 1
            finally:
                closed.set()

        server.start()
        with pytest.raises(errors.RequestTimeout):
            await _all(client.stream("slow", 0.01, total=0.1))
        await closed.wait()
        closed.clear()
        stream = client.stream("slow", 3600.0, timeout=0.05)
        with pytest.raises(errors.RequestTimeout):
            await anext(stream)
        assert stream.ended
        await closed.wait()


async def test_the_deadline_of_the_request_is_in_force_at_each_step(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:

        @server.handle("steps")
        async def steps(message: shmbus.Message) -> AsyncIterator[float | None]:
            for _ in range(2):
                yield shmbus.deadline()
                await asyncio.sleep(0)

        @server.handle("endless")
        async def endless(message: shmbus.Message) -> AsyncIterator[int]:
            while True:
                yield 1
                await asyncio.sleep(0.01)

        server.start()
        got = [part.payload async for part in client.stream("steps", total=60.0)]
        assert all(0 < left <= 60 for left in got)
        assert len(got) == 2
        with shmbus.within(0.05), pytest.raises(errors.RequestTimeout) as caught:
            await _all(client.stream("endless"))
        assert caught.value.inherited is not None


async def test_streams_count_as_jobs(attach: AioAttach) -> None:
    async with attach("server", concurrency=2) as server, attach("client") as client:
        counter = Counter(server)
        streams = [client.stream("count", 100_000) for _ in range(3)]
        for stream in streams[:2]:
            await anext(stream)
        await asyncio.sleep(0.01)
        assert counter.most == 2
        await streams[0].aclose()
        assert (await anext(streams[2])).payload == 0
        assert counter.most == 2


async def test_where_there_is_no_space_for_the_request_it_waits_in_line(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    few = shmbus.Settings(max_requests=2)
    async with attach("server") as server, attach("client", settings=few) as client:
        Counter(server)
        first, second = client.stream("count", 100_000), client.stream("count", 100_000)
        with pytest.raises(errors.RequestsFull):
            await anext(client.stream("count", 3, timeout=0.02))
        third = asyncio.create_task(_all(client.stream("count", 3)))
        await asyncio.sleep(0.01)
        assert not third.done()
        await first.aclose()
        assert await third == [0, 1, 2]
        assert (await anext(second)).payload == 0


async def _all(stream: shmbus.aio.Stream) -> list[object]:
    return [part.payload async for part in stream]


async def test_many_streams_at_a_time_keep_their_order(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        Counter(server)
        got = await asyncio.gather(*(_all(client.stream("count", 500)) for _ in range(20)))
        assert got == [list(range(500))] * 20


async def test_parts_that_find_no_space_wait_for_it(bus: shmbus.Bus, attach: AioAttach) -> None:
    small = shmbus.Settings(reply_bytes=8192, max_requests=8)
    async with attach("server", settings=small) as server:

        @server.handle("large")
        async def large(message: shmbus.Message) -> AsyncIterator[bytes]:
            for number in range(200):
                yield bytes([number]) * 1500

        @server.handle("plain")
        def plain(message: shmbus.Message) -> Iterator[bytes]:
            for number in range(200):
                yield bytes([number]) * 1500

        server.start()
        async with attach("one") as one, attach("two") as two:
            tasks = [_all(ep.stream(type)) for ep in (one, two) for type in ("large", "plain")]
            wanted = [bytes([number]) * 1500 for number in range(200)]
            assert await asyncio.gather(*tasks) == [wanted] * 4
        await until_idle(server)


async def test_close_breaks_off_and_drain_goes_on_to_the_end(attach: AioAttach) -> None:
    async with attach("client") as client:
        for plain in (False, True):
            server = await attach("server")
            counter = Counter(server, plain=plain)
            stream = client.stream("count", 10_000_000)
            await anext(stream)
            async with asyncio.timeout(4):
                await server.close()
            assert counter.closed.is_set()
            with pytest.raises(errors.EndpointDied):
                await _all(stream)
            server = await attach("server")
            Counter(server, plain=plain)
            stream = client.stream("count", 20_000)
            assert (await anext(stream)).payload == 0
            draining = asyncio.create_task(server.drain())
            assert [p.payload async for p in stream] == list(range(1, 20_000))
            await draining


async def test_a_drain_that_takes_too_long_breaks_off(attach: AioAttach) -> None:
    async with attach("client") as client:
        server = await attach("server")
        counter = Counter(server)
        stream = client.stream("count", 10_000_000)
        await anext(stream)
        with pytest.raises(errors.DrainTimeout):
            await server.drain(0.1)
        assert counter.closed.is_set()


async def test_the_end_of_its_own_endpoint_ends_it_after_the_parts_that_had_come(
    attach: AioAttach,
) -> None:
    async with attach("server") as server:
        counter = Counter(server)
        client = await attach("client")
        stream = client.stream("count", 10_000_000)
        await anext(stream)

        @server.handle("never")
        async def never(message: shmbus.Message) -> AsyncIterator[int]:
            await asyncio.sleep(3600)
            yield 1

        waiting = asyncio.create_task(_all(client.stream("never")))
        await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(errors.EndpointClosed):
            await waiting
        with pytest.raises(errors.EndpointClosed):
            await _all(stream)
        with pytest.raises(errors.EndpointClosed):
            client.stream("count", 1)
        await counter.closed.wait()


async def dies(ep: shmbus.aio.Endpoint) -> None:
    @ep.handle("count")
    async def count(message: shmbus.Message) -> AsyncIterator[int]:
        for number in range(10):
            yield number
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    await ep.run()


async def test_the_death_of_the_server_comes_after_the_parts_that_had_come(
    bus: shmbus.Bus, attach: AioAttach, worker: StartWorker
) -> None:
    worker(dies)
    async with attach("client") as client:
        await client.wait_for("count", timeout=30.0)
        stream, got = client.stream("count"), list[object]()

        async def read() -> None:
            async for part in stream:
                got.append(part.payload)

        with pytest.raises(errors.EndpointDied):
            await read()
        assert got == list(range(10))


async def reads_and_dies(ep: shmbus.aio.Endpoint) -> None:
    async for part in ep.stream("count", 10_000_000):
        if part.payload == 10:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True])
async def test_the_death_of_who_asked_closes_the_generator(
    attach: AioAttach, worker: StartWorker, plain: bool
) -> None:
    async with attach("server") as server:
        counter = Counter(server, plain=plain)
        worker(reads_and_dies)
        await counter.closed.wait()
        await until_idle(server)


async def test_a_task_that_the_program_cancels_ends_the_reply_with_that(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        counter = Counter(server)
        stream = client.stream("count", 10_000_000)
        await anext(stream)
        for task in asyncio.all_tasks():
            if task.get_name() == "shmbus:server:count":
                task.cancel()
        with pytest.raises(errors.RemoteError, match="CancelledError"):
            await _all(stream)
        assert counter.closed.is_set()
        await until_idle(server)


async def test_a_limit_is_for_each_part(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        closed = asyncio.Event()

        async def slow(message: shmbus.Message) -> AsyncIterator[int]:
            try:
                for number in range(10):
                    yield number
                    await asyncio.sleep(0.02)
                await asyncio.sleep(3600)
            finally:
                closed.set()

        server.handle("slow", slow, limit=0.15)
        server.start()
        stream = client.stream("slow")
        assert [(await anext(stream)).payload for _ in range(10)] == list(range(10))
        with pytest.raises(errors.HandlerTimeout):
            await anext(stream)
        await closed.wait()
        await until_idle(server)


async def test_who_closes_within_its_own_generator_can(attach: AioAttach) -> None:
    async with attach("client") as client:
        server, ended = await attach("server"), asyncio.Event()

        @server.handle("leave")
        async def leave(message: shmbus.Message) -> AsyncIterator[int]:
            yield 1
            await server.close()
            ended.set()

        server.start()
        stream = client.stream("leave")
        assert (await anext(stream)).payload == 1
        with pytest.raises(errors.EndpointDied):
            await anext(stream)
        await ended.wait()


async def test_generators_go_on_while_messages_flood_in(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client, attach("flood") as flood:
        Counter(server, plain=True)
        seen = 0

        def note(message: shmbus.Message) -> None:
            nonlocal seen
            seen += 1

        await server.subscribe("note", note)

        async def pour() -> None:
            while True:
                await flood.publish_many([("note", 0)] * 200)

        task = asyncio.create_task(pour())
        while not seen:
            await asyncio.sleep(0)
        assert await _all(client.stream("count", 5000)) == list(range(5000))
        task.cancel()


async def test_a_synchronous_endpoint_understands_it(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("server") as server:
        Counter(server)
        with shmbus.attach(bus.name, name="thread") as thread:

            def read() -> list[object]:
                return [part.payload for part in thread.stream("count", 5000)]

            assert await asyncio.to_thread(read) == list(range(5000))
            thread.handle("echo", lambda message: iter_of(message.payload))
            thread.start()
            got = [part.payload async for part in server.stream("echo", 5000)]
            assert got == list(range(5000))
        await until_idle(server)


def iter_of(count: int) -> Iterator[int]:
    yield from range(count)


async def test_others_in_the_loop_have_their_turn(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        Counter(server)
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(tick())
        assert len(await _all(client.stream("count", 10_000))) == 10_000
        task.cancel()
        assert turns > 50


class Notes:
    async def lines(self, count: int) -> AsyncIterator[str]:
        for number in range(count):
            yield f"line {number}"
            await asyncio.sleep(0)

    def words(self, count: int) -> Iterator[str]:
        yield from ("a", "b", "c")[:count]

    async def wrong(self) -> AsyncIterator[int]:
        yield "text"  # type: ignore[misc]


class Client:
    def lines(self, count: int) -> AsyncIterator[str]:
        raise NotImplementedError

    def words(self, count: int) -> AsyncIterator[str]:
        raise NotImplementedError

    def wrong(self) -> AsyncIterator[int]:
        raise NotImplementedError


async def test_methods_of_services_yield(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        offered = server.offer(Notes(), "notes")
        server.start()
        notes = client.client(Client, "notes")
        assert [line async for line in notes.lines(3)] == ["line 0", "line 1", "line 2"]
        assert [word async for word in notes.words(2)] == ["a", "b"]
        with pytest.raises(errors.InvalidResult):
            async for _ in notes.wrong():
                pass
        with pytest.raises(errors.InvalidArguments):
            async for _ in notes.lines("many"):  # type: ignore[arg-type]
                pass
        with pytest.raises(TypeError):
            notes.lines()  # type: ignore[call-arg]
        values = client.client(Client, "notes").lines(1_000_000)
        assert await anext(values) == "line 0"
        await values.aclose()  # type: ignore[attr-defined]
        await until_idle(server)
        eventually(lambda: not facts(bus, "client").pending)
        await offered.close()


@pytest.mark.parametrize("plain", [False, True])
async def test_with_reconnect_a_dispatcher_s_death_is_ridden_out(
    bus_name: str, bus_process: BusProcess, plain: bool
) -> None:
    def attached(name: str) -> Attaching:
        return shmbus.aio.attach(bus_name, name=name, reconnect=True)

    async with attached("server") as server, attached("client") as client:
        Counter(server, plain=plain)
        stream = client.stream("count", 50_000)
        got = [(await anext(stream)).payload for _ in range(10)]
        bus_process.kill()
        rest = asyncio.create_task(_all(stream))
        await asyncio.to_thread(bus_process.start)
        assert got + await rest == list(range(50_000))
        await until_idle(server)


async def test_without_it_that_ends_the_reply(bus_name: str, bus_process: BusProcess) -> None:
    async with shmbus.aio.attach(bus_name, name="server", reconnect=True) as server:
        Counter(server)
        async with shmbus.aio.attach(bus_name, name="client") as client:
            stream = client.stream("count", 10_000_000)
            await anext(stream)
            bus_process.kill()
            with pytest.raises(errors.BusDown):
                await _all(stream)
            assert stream.ended


@pytest.mark.parametrize("plain", [False, True])
async def test_who_does_not_run_on_without_a_dispatcher_closes_its_generators(
    bus_name: str, bus_process: BusProcess, plain: bool
) -> None:
    async with shmbus.aio.attach(bus_name, name="server") as server:
        counter = Counter(server, plain=plain)
        client = await shmbus.aio.attach(bus_name, name="client")
        await anext(client.stream("count", 10_000_000))
        bus_process.kill()
        with pytest.raises(errors.BusDown):
            await server.run(reconnect=False)
        await counter.closed.wait()
        await client.close()


async def test_who_is_evicted_closes_its_generators(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("client") as client:
        server = await attach("server")
        counter = Counter(server)
        stream = client.stream("count", 10_000_000)
        await anext(stream)
        bus.evict("server")
        with pytest.raises(errors.EndpointDied):
            await _all(stream)
        await counter.closed.wait()
        await server.close()


async def test_who_takes_parts_that_are_there_lets_others_have_their_turn(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("client") as client, asyncio.timeout(30):
        with shmbus.attach(bus.name, name="server") as server:
            server.handle("count", lambda message: iter_of(message.payload))
            server.start()
            stream, turns = client.stream("count", 400), 0
            while facts(bus, "client").incoming_replies.depth < 400 * 64:  # they have come
                time.sleep(0.001)

            async def tick() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(tick())
            assert len(await _all(stream)) == 400
            assert turns >= 2
            task.cancel()


async def test_more_generators_than_go_on_in_a_turn_come_to_their_end(attach: AioAttach) -> None:
    async with attach("server", concurrency=1) as server, attach("client") as client:
        at_work, finish = asyncio.Event(), asyncio.Event()

        @server.handle("slow")
        def slow(message: shmbus.Message) -> Iterator[int]:
            for number in range(4):
                yield number
                time.sleep(0.0012)

        @server.handle("block")  # meanwhile no message is taken
        async def block(message: shmbus.Message) -> None:
            at_work.set()
            await finish.wait()

        server.start()
        streams = [client.stream("slow") for _ in range(20)]
        assert [(await anext(stream)).payload for stream in streams] == [0] * 20
        blocked = asyncio.create_task(client.request("block"))
        await at_work.wait()
        assert await asyncio.gather(*map(_all, streams)) == [[1, 2, 3]] * 20
        finish.set()
        await blocked
