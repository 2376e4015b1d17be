"""Receiving in an event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import shmbus
from shmbus import errors
from shmbus.aio import turns
from shmbus.aio.line import NO_LINE

from .stage import AioAttach, facts


@pytest.mark.smoke
async def test_events_come_in_order_to_who_iterates_over_the_endpoint_or_a_subscription(
    attach: AioAttach,
) -> None:
    async with attach("one") as one, attach("two") as two, attach("source") as source:
        await one.subscribe("line.*")
        lines = await two.subscribe("line.*")
        others = await two.subscribe("word.>")
        await source.publish_many([(f"line.{n}", n) for n in range(1000)])
        await source.publish("word.a.b", "last")
        got = []
        async for message in one:
            got.append(message.payload)
            if len(got) == 1000:
                break
        assert got == list(range(1000))
        got = []
        async for message in lines:
            got.append(message.payload)
            if len(got) == 1000:
                break
        assert got == list(range(1000))
        assert (await anext(aiter(others))).payload == "last"


async def test_one_subscription_gets_its_own_and_leaves_the_rest_to_the_endpoint(
    attach: AioAttach,
) -> None:
    async with attach("ep") as ep:
        numbers = await ep.subscribe("number")
        await ep.subscribe("word")
        words = asyncio.create_task(ep.receive())
        first = asyncio.create_task(anext(aiter(numbers)))
        await asyncio.sleep(0)
        await ep.publish("word", "a")
        await ep.publish("number", 1)
        message = await words
        assert message is not None
        assert message.payload == "a"
        assert (await first).payload == 1


async def test_two_subscriptions_have_an_event_each_decoded_to_its_own_type(
    attach: AioAttach,
) -> None:
    async with attach("ep") as ep:
        text = await ep.subscribe("value.>", payload_type=float)
        number = await ep.subscribe(">", payload_type=int)
        one, two = aiter(text), aiter(number)
        await ep.publish("value.x", 3)
        first, second = await anext(one), await anext(two)
        assert (type(first.payload), type(second.payload)) == (float, int)
        assert (type(first.payload), type(second.payload)) == (float, int)


async def test_async_callbacks_work_at_the_same_time_up_to_the_bound(attach: AioAttach) -> None:
    async with attach("ep", concurrency=3) as ep:
        at_work, most, done = 0, 0, 0

        async def work(message: shmbus.Message) -> None:
            nonlocal at_work, most, done
            at_work += 1
            most = max(most, at_work)
            for _ in range(3):
                await asyncio.sleep(0)
            at_work -= 1
            done += 1

        await ep.subscribe("job", work)
        ep.start()
        await ep.publish_many([("job", n) for n in range(50)])
        while done < 50:
            await asyncio.sleep(0)
        assert most == 3


async def test_with_a_concurrency_of_one_the_order_is_kept(attach: AioAttach) -> None:
    async with attach("ep") as ep:
        order: list[int] = []

        async def work(message: shmbus.Message) -> None:
            for _ in range(message.payload % 3):
                await asyncio.sleep(0)
            order.append(message.payload)

        await ep.subscribe("job", work, concurrency=1)
        ep.start()
        await ep.publish_many([("job", n) for n in range(200)])
        while len(order) < 200:
            await asyncio.sleep(0)
        assert order == list(range(200))


async def test_a_busy_callback_does_not_hold_up_another(attach: AioAttach) -> None:
    async with attach("ep") as ep:
        gate, seen = asyncio.Event(), asyncio.Event()

        async def wait(message: shmbus.Message) -> None:
            await gate.wait()

        await ep.subscribe("slow", wait, concurrency=1)
        await ep.subscribe("fast", lambda message: seen.set())
        ep.start()
        await ep.publish_many([("slow", n) for n in range(10)])
        await ep.publish("fast")
        await seen.wait()
        gate.set()


@pytest.mark.bus(in_bytes=4096, out_bytes=4096)
async def test_a_full_ring_suspends_the_task_and_never_the_loop(attach: AioAttach) -> None:
    async with attach("source") as source, attach("sink") as sink:
        sub = await sink.subscribe("data")
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(400):
                await source.publish("data", bytes(200) + number.to_bytes(2, "big"), timeout=None)
                sent += 1

        sending = asyncio.create_task(send())
        while not source._looped.waiting:
            await asyncio.sleep(0)
        assert sent < 400
        got = []
        async for message in sub:
            got.append(int.from_bytes(message.payload[-2:], "big"))
            if len(got) == 400:
                break
        assert got == list(range(400))
        await sending


@pytest.mark.bus(in_bytes=4096, out_bytes=4096, block_timeout=60.0)
async def test_a_ring_that_stays_full_says_so(attach: AioAttach) -> None:
    async with attach("source") as source, attach("sink") as sink:
        await sink.subscribe("data")
        with pytest.raises(errors.QueueFull, match="source"):
            await source.publish_many([("data", bytes(500))] * 100, timeout=0.05)
        task = asyncio.create_task(source.publish("data", bytes(500), timeout=None))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async for _ in sink:
            if source._looped.post(1, 0, "data", b"", 0) == NO_LINE:
                break


@pytest.mark.bus(in_bytes=4096, out_bytes=4096, block_timeout=60.0)
async def test_who_comes_later_does_not_pass_one_that_waits_for_space(attach: AioAttach) -> None:
    async with attach("source") as source, attach("sink") as sink:
        messages = aiter(await sink.subscribe("data"))
        with pytest.raises(errors.QueueFull):
            await source.publish_many([("data", b"")] * 300, timeout=0.05)
        first = asyncio.create_task(source.publish("data", bytes(800), timeout=None))
        while not source._looped.waiting:
            await asyncio.sleep(0)
        for _ in range(4):
            await anext(messages)
        for _ in range(2):  # there is space for small ones by now
            while source._looped.post(1, 0, "data", b"", 0) != NO_LINE:
                await asyncio.sleep(0)
        later = asyncio.create_task(source.publish_many([("data", b"later")], timeout=None))
        got = [0, 0]
        while got[-1] != 5:
            got.append(len((await anext(messages)).payload))
        assert got[-2:] == [800, 5]
        await asyncio.gather(first, later)


async def test_receive_waits_no_longer_than_it_may_and_loses_nothing_when_cancelled(
    attach: AioAttach,
) -> None:
    async with attach("ep") as ep:
        await ep.subscribe("note")
        assert await ep.receive(0) is None
        assert await ep.receive(0.01) is None
        for number in range(50):
            task = asyncio.create_task(ep.receive())
            await asyncio.sleep(0)
            await ep.publish("note", number)
            if number % 2:
                await asyncio.sleep(0.001)
            task.cancel()
            try:
                message = await task
            except asyncio.CancelledError:
                message = await ep.receive()
            assert message is not None
            assert message.payload == number
        assert [m.payload for m in await ep.receive_many(5, timeout=0.01)] == []


async def test_as_many_are_received_at_once_as_are_there(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("ep") as ep:
        await ep.subscribe("note")
        await ep.publish_many([("note", number) for number in range(400)])
        while facts(bus, "ep").untouched < 400:
            await asyncio.sleep(0)
        assert [m.payload for m in await ep.receive_many(500)] == list(range(400))


async def test_a_flood_leaves_others_in_the_loop_their_turn(attach: AioAttach) -> None:
    async with attach("ep") as ep:
        sub = await ep.subscribe("flood")
        turns, over = 0, False

        async def others() -> None:
            nonlocal turns
            while not over:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        async with asyncio.TaskGroup() as group:
            group.create_task(ep.publish_many([("flood", n) for n in range(4000)]))
            got = 0
            async for _ in sub:
                got += 1
                if got == 4000:
                    break
        over = True
        await other
        assert turns >= 4000 // 128


@pytest.mark.bus(max_deliveries=100)
async def test_a_group_s_message_whose_task_raises_goes_to_another_member(
    attach: AioAttach,
) -> None:
    async with attach("one") as one, attach("two") as two, attach("source") as source:
        done: list[tuple[str, int]] = []

        async def fail(message: shmbus.Message) -> None:
            raise RuntimeError("not I")

        async def work(message: shmbus.Message) -> None:
            await asyncio.sleep(0)
            done.append((message.payload, message.attempt))

        await one.subscribe("job", fail, group="workers", on_error="retry")
        one.start()
        await source.publish("job", "a")
        await asyncio.sleep(0.02)
        await two.subscribe("job", work, group="workers")
        two.start()
        while not done:
            await asyncio.sleep(0.001)
        assert done[0][0] == "a"
        assert done[0][1] > 1


@pytest.mark.bus(max_deliveries=100)
async def test_a_group_s_message_may_be_given_back_by_a_task(attach: AioAttach) -> None:
    async with attach("one") as one, attach("source") as source:
        attempts: list[int] = []

        async def work(message: shmbus.Message) -> None:
            attempts.append(message.attempt)
            await asyncio.sleep(0)
            if message.attempt < 3:
                message.nack()

        await one.subscribe("job", work, group="workers")
        one.start()
        await source.publish("job", "a")
        while len(attempts) < 3:
            await asyncio.sleep(0.001)
        assert attempts == [1, 2, 3]


async def test_who_iterates_over_a_group_is_done_with_a_message_at_the_next(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("one") as one, attach("source") as source:
        sub = await one.subscribe("job", group="workers")
        await source.publish_many([("job", n) for n in range(3)])
        messages = aiter(sub)
        for number in range(3):
            assert (await anext(messages)).payload == number
            assert facts(bus, "one").in_hand >= 1
        del messages
        while facts(bus, "one").in_hand:
            await asyncio.sleep(0.001)


async def test_what_a_callback_raises_is_counted_and_ends_nothing(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("ep") as ep:
        seen: list[Any] = []

        async def work(message: shmbus.Message) -> None:
            seen.append(message.payload)
            raise RuntimeError("broken")

        def plain(message: shmbus.Message) -> None:
            raise RuntimeError("broken, too")

        await ep.subscribe("job", work)
        await ep.subscribe("job", plain)
        ep.start()
        await ep.publish_many([("job", 1), ("job", 2)])
        while len(seen) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert facts(bus, "ep").handler_errors == 4


async def test_a_tap_is_iterated_over(attach: AioAttach) -> None:
    async with attach("ep") as ep, attach("observer") as observer:
        tap = await observer.tap("note")
        await ep.subscribe("note")
        await ep.publish("note", 1)
        message = await anext(aiter(tap))
        assert message.tap is not None
        assert message.tap.target == "ep"


async def test_a_subscription_ends(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("ep") as ep:
        async with await ep.subscribe("note") as sub:
            waiting = asyncio.create_task(anext(aiter(sub)))
            await asyncio.sleep(0)
            assert [info.name for info in bus.find("note")] == ["ep"]
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert bus.find("note") == []


async def test_a_message_is_in_hand_while_its_task_works(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("ep") as ep:
        begun, finish = list[int](), asyncio.Event()

        async def work(message: shmbus.Message) -> None:
            begun.append(message.payload)
            await finish.wait()

        await ep.subscribe("note", work, group="team")
        ep.start()
        for number in range(3):
            await ep.publish("note", number)
            while len(begun) <= number:
                await asyncio.sleep(0)
        at_work = facts(bus, "ep")
        assert (at_work.in_hand, at_work.held) == (3, 3)
        finish.set()
        while facts(bus, "ep").in_hand:
            await asyncio.sleep(0)
        assert facts(bus, "ep").held == 0


async def test_others_have_their_turn_once_one_of_too_many_is_taken(attach: AioAttach) -> None:
    async with attach("ep", concurrency=4) as ep:
        sub, came = await ep.subscribe("note"), asyncio.Event()
        await ep.subscribe("other", lambda message: came.set())
        ep.start()
        await ep.publish_many([("note", number) for number in range(4)])
        while not ep._looped.crowded:
            await ep.publish("other")
            await asyncio.sleep(0)
        came.clear()
        await ep.publish("other")
        assert (await anext(aiter(sub))).payload == 0
        await came.wait()


async def test_who_works_in_tasks_says_so_also_after_its_start(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("ep", concurrency=7) as ep:
        ep.start()

        @ep.handle("work")
        async def work(message: shmbus.Message) -> None:
            """It has nothing to do."""

        await ep.request("work")
        assert facts(bus, "ep").receivers == 7


@pytest.mark.parametrize(
    ("callback", "concurrency", "reason"),
    [(None, 2, "no callback"), (print, 2, "one message at a time"), (print, 0, "at least 1")],
)
async def test_a_concurrency_that_means_nothing_is_refused(
    attach: AioAttach, callback: Any, concurrency: int, reason: str
) -> None:
    async with attach("ep") as ep:
        with pytest.raises(errors.InvalidSetting, match=reason):
            await ep.subscribe("x", callback, concurrency=concurrency)


async def test_a_batch_comes_in_order(attach: AioAttach) -> None:
    async with attach("ep") as ep:
        sub = await ep.subscribe("note")
        async with ep.batch() as batch:
            for number in range(10):
                await batch.publish("note", number)
        messages = aiter(sub)
        assert [(await anext(messages)).payload for _ in range(10)] == list(range(10))


async def test_several_tasks_may_iterate_over_one_subscription(attach: AioAttach) -> None:
    async with attach("ep") as ep:
        sub, got = await ep.subscribe("note"), list[int]()

        async def iterate() -> None:
            async for message in sub:
                got.append(message.payload)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(iterate()) for _ in range(3)]
        await asyncio.sleep(0)
        for number in range(30):
            await ep.publish("note", number)
        while len(got) < 30:
            await asyncio.sleep(0)
        await sub.close()
        await asyncio.gather(*tasks)
        assert sorted(got) == list(range(30))


async def test_who_leaves_messages_lying_that_keep_others_waiting_is_warned(
    attach: AioAttach, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.02)
    async with attach("ep", concurrency=4) as ep:
        sub, handled = await ep.subscribe("note"), asyncio.Event()
        await ep.subscribe("other", lambda message: handled.set())
        ep.start()
        messages = aiter(sub)
        await ep.publish_many([("note", number) for number in range(10)])
        await ep.publish("other")
        while "takes no messages" not in caplog.text:
            await asyncio.sleep(0.005)
        assert not handled.is_set()
        for _ in range(10):
            await anext(messages)
        await handled.wait()
