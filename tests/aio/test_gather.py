"""A question to all, and whether anybody is there, in an event loop."""

from __future__ import annotations

import asyncio

import pytest

import shmbus
import shmbus.aio
from shmbus import Message, errors
from shmbus.testing import StartWorker

from .stage import AioAttach, facts

SMALL = shmbus.Settings(max_requests=2, in_bytes=4096, out_bytes=4096, reply_bytes=4096)


def serve(endpoint: shmbus.aio.Endpoint, pattern: str = "ask") -> None:
    endpoint.handle(pattern, lambda message: endpoint.name)
    endpoint.start()


def hang(endpoint: shmbus.aio.Endpoint, begun: asyncio.Event, cancelled: asyncio.Event) -> None:
    @endpoint.handle("ask")
    async def ask(message: Message) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    endpoint.start()


def payloads(results: dict[str, Message | errors.BusError]) -> dict[str, object]:
    return {
        name: type(one) if isinstance(one, errors.BusError) else one.payload
        for name, one in results.items()
    }


@pytest.mark.smoke
async def test_all_who_handle_a_type_answer_and_what_became_of_the_others_is_told(
    attach: AioAttach,
) -> None:
    async with (
        attach("a") as a,
        attach("b") as b,
        attach("bad") as bad,
        attach("hung") as hung,
        attach("asker") as asker,
    ):
        serve(a)
        serve(b, ">")
        bad.handle("ask", lambda message: 1 / 0)
        bad.start()
        hang(hung, asyncio.Event(), asyncio.Event())
        found = await asker.gather("ask", timeout=0.2)
        assert payloads(found) == {
            "a": "a",
            "b": "b",
            "bad": errors.RemoteError,
            "hung": errors.RequestTimeout,
        }


async def test_it_asks_itself_if_it_receives_and_others_in_the_loop_have_turns_meanwhile(
    attach: AioAttach,
) -> None:
    async with attach("asker") as asker, attach("other") as other:
        serve(other)
        asker.handle("ask", lambda message: "I")
        assert payloads(await asker.gather("ask")) == {"other": "other"}
        asker.start()
        assert payloads(await asker.gather("ask")) == {"asker": "I", "other": "other"}


async def test_enough_replies_withdraw_the_others_and_too_few_are_an_error(
    attach: AioAttach,
) -> None:
    async with attach("a") as a, attach("hung") as hung, attach("asker") as asker:
        serve(a)
        cancelled = asyncio.Event()
        begun = asyncio.Event()
        hang(hung, begun, cancelled)
        found = await asker.gather("ask", at_least=1, timeout=None)
        assert payloads(found) == {"a": "a", "hung": errors.Withdrawn}
        with pytest.raises(errors.TooFewReplies) as caught:
            await asker.gather("ask", at_least=3)
        assert caught.value.results.keys() == {"a", "hung"}


async def test_more_handlers_than_places_in_the_table_are_asked_in_portions(
    attach: AioAttach,
) -> None:
    async with attach("asker", settings=SMALL) as asker:
        workers = [await attach(f"worker{n}") for n in range(7)]
        for worker in workers:
            serve(worker)
        assert len(await asker.gather("ask", reply_type=str)) == 7
        for worker in workers:
            await worker.close()


async def test_cancelling_its_task_withdraws_all(attach: AioAttach) -> None:
    async with attach("hung") as hung, attach("asker") as asker:
        begun, cancelled = asyncio.Event(), asyncio.Event()
        hang(hung, begun, cancelled)
        task = asyncio.create_task(asker.gather("ask", timeout=None))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cancelled.wait()
        assert facts(asker.bus, "asker").pending == 0


def take_and_die(endpoint: shmbus.Endpoint) -> None:
    import os
    import signal

    endpoint.handle("ask", lambda message: os.kill(os.getpid(), signal.SIGKILL))
    endpoint.run()


async def test_one_that_dies_of_it_is_told_apart(attach: AioAttach, worker: StartWorker) -> None:
    async with attach("a") as a, attach("asker") as asker:
        serve(a)
        worker(take_and_die, name="dying")
        await asker.wait_for("ask", receivers=2)
        found = await asker.gather("ask")
        assert payloads(found) == {"a": "a", "dying": errors.EndpointDied}


async def test_the_loop_learns_when_the_first_receiver_comes_and_when_the_last_has_gone(
    attach: AioAttach,
) -> None:
    async with attach("producer") as producer, attach("consumer") as consumer:
        plain: asyncio.Queue[int] = asyncio.Queue()
        tasks: asyncio.Queue[int] = asyncio.Queue()
        await producer.on_match("a.*", plain.put_nowait)
        told = await producer.on_match("a.*", tasks.put)
        producer.start()
        assert producer.matched("a.b") == 0
        subscription = await consumer.subscribe("a.b", print)
        assert producer.matched("a.b") == 1
        assert (await plain.get(), await tasks.get()) == (1, 1)
        await told.close()
        await subscription.close()
        assert producer.matched("a.b") == 0
        assert await plain.get() == 0
        assert tasks.empty()
