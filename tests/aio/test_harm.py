"""What programs do to an endpoint of an event loop, and what must not come of it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import threading
import time
import warnings
from typing import Any

import pytest

import shmbus
import shmbus.aio
from shmbus import Settings, errors
from shmbus.testing import eventually

from .stage import AioAttach, facts


async def test_calls_of_receive_that_waited_in_vain_leave_nothing(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("ep") as ep:
        for _ in range(20):
            assert await ep.receive(0.0001) is None
        await asyncio.sleep(0)
        assert not len(ep._turns.receivers)
        while facts(bus, "ep").receivers:
            await asyncio.sleep(0)


async def test_messages_left_in_a_subscription_that_is_closed_keep_no_others_waiting(
    attach: AioAttach,
) -> None:
    async with attach("ep") as ep, attach("server", concurrency=3) as server:

        @server.handle("echo")
        async def echo(message: shmbus.Message) -> object:
            return message.payload

        server.start()
        sub = await server.subscribe("note")
        aiter(sub)
        for number in range(10):
            await ep.publish("note", number)
        while not server._looped.crowded:
            await asyncio.sleep(0)
        await sub.close()
        assert (await ep.request("echo", 1)).payload == 1


async def test_a_group_s_messages_left_in_a_closed_subscription_go_to_another_member(
    attach: AioAttach,
) -> None:
    async with attach("ep") as ep, attach("one") as one, attach("two") as two:
        sub = await one.subscribe("job", group="workers")
        aiter(sub)
        for number in range(4):
            await ep.publish("job", number)
        while one._looped.jobs < 4:
            one._turns.again()
            await asyncio.sleep(0)
        await two.subscribe("job", group="workers")
        await sub.close()
        got = [message.payload for message in [await two.receive() for _ in range(4)] if message]
        assert sorted(got) == [0, 1, 2, 3]
        assert not one._looped.jobs


@pytest.mark.parametrize("begun", [False, True])
async def test_a_program_that_cancels_all_its_tasks_cancels_handlers_and_requesters_are_told(
    attach: AioAttach, begun: bool
) -> None:
    async with attach("ep") as ep, attach("server") as server:

        @server.handle("work")
        async def work(message: shmbus.Message) -> None:
            await asyncio.sleep(600)

        server.start()
        reply = asyncio.create_task(ep.request("work", timeout=60))
        jobs = server._turns.jobs
        while not (jobs._begun if begun else jobs._tasks):
            await asyncio.sleep(0)
        for task in list(jobs._tasks.values()):
            task.cancel()
        with pytest.raises(errors.RemoteError, match="CancelledError"):
            await reply
        while server._looped.jobs:
            await asyncio.sleep(0)
        assert not jobs._tasks


async def test_a_program_that_cancels_all_its_tasks_while_it_closes_closes_all_the_same(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    for pauses in range(8):
        ep = await attach("ep")
        closing = asyncio.create_task(ep.close())
        for _ in range(pauses):
            await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            if task is closing or "_leave" in repr(task.get_coro()):
                task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        await ep.close()
        while bus.endpoints():
            await asyncio.sleep(0.001)


async def test_an_answer_that_found_no_space_is_sent_once_there_is_some(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    small = Settings(reply_bytes=1 << 14)
    async with attach("server", settings=small) as server:
        kept: list[shmbus.Message] = []

        @server.handle("ask")
        def ask(message: shmbus.Message) -> None:
            message.defer()
            kept.append(message)

        server.start()
        full, answered = threading.Event(), threading.Event()

        def client() -> None:
            async def main() -> None:
                async with shmbus.aio.attach(bus.name, name="client", settings=small) as ep:
                    asking = [asyncio.create_task(ep.request("ask", timeout=60)) for _ in range(30)]
                    while len(kept) < 30:
                        await asyncio.sleep(0.001)
                    full.set()  # this loop sleeps until then
                    answered.wait(60)
                    assert all([len((await one).payload) == 2998 for one in asking[:-1]])
                    asking[-1].cancel()

            asyncio.run(main())

        thread = threading.Thread(target=client)
        thread.start()
        await asyncio.to_thread(full.wait, 60)
        await asyncio.sleep(0)
        for message in kept[:-1]:
            message.reply("x" * 2998)
        assert server._looped.late
        answered.set()
        began = time.monotonic()
        await asyncio.to_thread(thread.join, 60)
        assert time.monotonic() - began < 30


class Odd(BaseException):
    pass


@pytest.mark.parametrize("why", [SystemExit, KeyboardInterrupt, Odd, GeneratorExit])
def test_what_ends_a_program_does_so_from_a_task_and_nothing_else_does(
    bus: shmbus.Bus, loop_factory: Any, why: type[BaseException]
) -> None:
    async def main() -> None:
        async with (
            shmbus.aio.attach(bus.name, name="ep") as ep,
            shmbus.aio.attach(bus.name, name="server") as server,
        ):

            @server.handle("work")
            async def work(message: shmbus.Message) -> None:
                await asyncio.sleep(0)
                raise why

            server.start()
            with pytest.raises(errors.RemoteError, match=why.__name__):
                await ep.request("work", timeout=60)

    ends = why in (SystemExit, KeyboardInterrupt)
    with pytest.raises(why) if ends else contextlib.nullcontext():
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
    eventually(lambda: bus.endpoints() == [])


@pytest.mark.parametrize("iterated", [False, True])
async def test_what_an_endpoint_has_taken_that_nobody_began_goes_to_another_when_it_leaves(
    attach: AioAttach, iterated: bool
) -> None:
    async with attach("ep") as ep, attach("two") as two:
        one = await attach("one", concurrency=3)
        sub = await one.subscribe("job", group="workers")
        one.start()
        if iterated:
            aiter(sub)
        for number in range(6):
            await ep.publish("job", number)
        while not one._looped.crowded:
            await asyncio.sleep(0)
        await two.subscribe("job", group="workers")
        await one.close()
        got = [message.payload for message in [await two.receive() for _ in range(6)] if message]
        assert sorted(got) == [*range(6)]


async def test_callbacks_have_the_context_of_the_attach_whoever_made_the_loop_look(
    attach: AioAttach,
) -> None:
    async with attach("ep") as ep, attach("server") as server:
        where = contextvars.ContextVar("where", default="attach")
        seen: list[str] = []

        @server.handle("task")
        async def task(message: shmbus.Message) -> None:
            seen.append(where.get())
            where.set("task")

        @server.handle("plain")
        def plain(message: shmbus.Message) -> None:
            seen.append(where.get())

        where.set("program")
        asking = [asyncio.create_task(ep.request(each)) for each in ["task", "plain"] * 5]
        await asyncio.sleep(0.01)
        server.start()
        for each in asking:
            server._turns.again()
            await each
        assert set(seen) == {"attach"}


def test_a_loop_that_is_closed_under_tasks_that_wait_ends_its_endpoint_quietly(
    bus: shmbus.Bus, loop_factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with shmbus.attach(bus.name, name="server") as server:
        kept: list[shmbus.Message] = []

        def never(message: shmbus.Message) -> None:
            message.defer()
            kept.append(message)

        server.handle("never", never)
        server.start()
        loop = loop_factory()
        tasks: list[asyncio.Future[Any]] = []

        async def main() -> None:
            ep = await shmbus.aio.attach(bus.name, name="ep")
            tasks.extend(map(asyncio.ensure_future, [ep.request("never"), ep.receive(), ep.run()]))
            while not kept:
                await asyncio.sleep(0.001)

        loop.run_until_complete(main())
        loop.close()
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # the program's fault
        del task, loop
        tasks.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # it was never closed
            eventually(lambda: gc.collect() is not None and len(bus.endpoints()) == 1)
    assert [record.getMessage() for record in caplog.records if record.name == "shmbus"] == []


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no eager tasks")
async def test_tasks_that_begin_at_once_leave_nothing(bus: shmbus.Bus, attach: AioAttach) -> None:
    loop = asyncio.get_running_loop()
    if type(loop).__module__.startswith("uvloop"):
        pytest.skip("it gives the factory an argument that is of Python 3.14")
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    async with attach("ep") as ep, attach("server", concurrency=2) as server:
        seen: list[object] = []

        async def note(message: shmbus.Message) -> None:
            seen.append(message.payload)

        @server.handle("echo")
        async def echo(message: shmbus.Message) -> object:
            return message.payload

        for group in ("one", "two"):
            await server.subscribe("note", note, group=group)
        server.start()
        for number in range(10):
            await ep.publish("note", number)
            assert (await ep.request("echo", number)).payload == number
        while len(seen) < 20 or facts(bus, "server").in_hand:
            await asyncio.sleep(0)
        assert not server._turns.jobs._tasks
        assert not server._looped.jobs
        assert facts(bus, "server").held == 0


async def test_a_task_factory_that_raises_fails_the_requests_and_holds_up_no_others(
    attach: AioAttach,
) -> None:
    async with attach("ep") as ep, attach("server", concurrency=2) as server:

        @server.handle("echo")
        async def echo(message: shmbus.Message) -> object:
            return message.payload

        def factory(*_: Any, **__: Any) -> Any:
            raise ZeroDivisionError

        server.start()
        loop = asyncio.get_running_loop()
        for _ in range(5):
            loop.set_task_factory(factory)
            with pytest.raises(errors.RemoteError, match="ZeroDivisionError"):
                await ep.request("echo")
            loop.set_task_factory(None)
        assert (await ep.request("echo", 1)).payload == 1
