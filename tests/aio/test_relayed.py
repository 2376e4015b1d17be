"""What a link does with messages in an event loop: it passes them on, and answers later."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator

import msgspec
import pytest

import shmbus
from shmbus import errors
from shmbus.aio.attach import attach_as
from shmbus.aio.line import NO_LINE
from shmbus.aio.relay import Relay
from shmbus.endpoint._kernel import Encoded, Origin, entry_in, entry_of, events_in
from shmbus.endpoint.payloads import MSGPACK, RAW
from shmbus.shared.failures import Passed
from shmbus.shared.layout import Kind, RecordFlag
from shmbus.shared.sites import SiteNote, encode
from shmbus.testing import eventually

from .stage import AioAttach, facts

CAMERA = Origin("camera", "paris", 123_000, 77, 999, 0)
ONE = Encoded(MSGPACK, msgspec.msgpack.encode("one"), CAMERA)
LARGE = Encoded(RAW, bytes(range(256)) * 4096, CAMERA)
MANY = 64  # as many as an endpoint may hold
HOLDS = shmbus.Settings(prefetch=2 * MANY, in_bytes=1 << 22)


async def test_every_call_that_takes_a_payload_takes_one_that_is_encoded(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach_as("@link", bus.name) as link, attach("worker") as worker:
        await worker.subscribe("event")
        got: list[object] = []

        async def answer(message: shmbus.Message) -> object:
            got.append((message.payload, message.site))
            return message.payload

        worker.handle("question", answer)
        worker.handle("order", answer)
        worker.start()
        await link.publish("event", ONE)
        await link.publish_many([("event", LARGE), ("event", ONE)])
        async with link.batch() as batch:
            await batch.publish("event", ONE)
        events = [await worker.receive(60) for _ in range(4)]
        assert [m and m.payload for m in events] == ["one", bytes(LARGE.data), "one", "one"]
        assert {m and m.site for m in events} == {"paris"}
        assert (await link.request("question", ONE)).payload == "one"
        assert [part.payload async for part in link.stream("question", ONE)] == ["one"]
        (reply,) = (await link.gather("question", LARGE)).values()
        assert not isinstance(reply, errors.BusError)
        assert reply.payload == LARGE.data
        await link.send("order", ONE)
        while len(got) < 4:
            await asyncio.sleep(0)
        assert got == [(payload, "paris") for payload in ("one", "one", LARGE.data, "one")]


async def test_a_run_that_cannot_be_sent_at_all_says_so_of_the_event_it_was_to_begin_with(
    bus: shmbus.Bus,
) -> None:
    async with attach_as("@link", bus.name) as link:
        relay, origin = Relay(link), Origin("camera", "paris", 1, 1, 1, 0)
        table = b"".join(entry_of(number, 1) for number in (1, 2, 3))
        relay.post_run("event", origin, RAW, "", b"abc", table, 0, 0)
        assert relay.run_at == 3
        for number in (0, 1):
            with pytest.raises(errors.InvalidType):
                relay.post_run("x" * 300, origin, RAW, "", b"abc", table, 0, number)
            assert relay.run_at == number


async def test_what_is_taken_in_runs_is_all_that_came_in_order(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    chance = random.Random(19)
    expected: dict[str, list[tuple[str, bytes]]] = {"one": [], "two": []}
    runs: list[int] = []
    async with (
        attach_as("@link", bus.name) as link,
        attach("one") as one,
        attach("two") as two,
    ):
        await link.subscribe("a.>")
        relay, iteration = Relay(link), link.__aiter__()
        for _ in range(40):
            for _ in range(chance.choice((1, 2, 8))):
                type = chance.choice(("a.x", "a.x", "a.y"))
                size = chance.choice((0, 1, 64, 64, 3000, 200_000))
                payload = bytes([chance.randrange(256)]) * size
                end = chance.choice((one, two))
                for _ in range(chance.choice((1, 1, 9))):
                    await end.publish(type, payload, retain=chance.random() < 0.1)
                    expected[end.name].append((type, payload))
            while any(expected.values()):
                message = await iteration.__anext__()
                payloads, table = relay.take_run(message)
                assert len(payloads) <= 48 << 10 or events_in(table, len(payloads)) == 1
                times = []
                for i in range(events_in(table, len(payloads))):
                    at, length, sent = entry_in(table, i)
                    got = message.type, bytes(payloads[at : at + length])
                    assert got == expected[message.source].pop(0)
                    times.append(sent)
                assert times[0] == message.sent_ns
                assert times == sorted(set(times))
                runs.append(len(times))
    assert max(runs) > 1


@pytest.mark.parametrize(
    ("table", "size"),
    [
        (b"", 0),
        (entry_of(1, 3)[:-1], 3),
        (entry_of(1, 3) + b"x", 3),
        (entry_of(1, 3), 2),
        (entry_of(1, 3), 4),
        (entry_of(1, 3) + entry_of(2, 2**64 - 1), 2),
        (entry_of(2**63, 3), 3),
    ],
    ids=["none", "cut", "longer", "few-bytes", "many-bytes", "wraps", "never"],
)
def test_a_table_that_is_none_of_its_payloads_is_found_out(table: bytes, size: int) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        events_in(table, size)


async def test_a_handler_answers_in_parts_or_at_once_as_its_requester_wants(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach_as("@link", bus.name) as link, attach("client") as client:

        async def parts(message: shmbus.Message) -> AsyncGenerator[object]:
            yield ONE
            yield LARGE
            raise Passed(errors.EndpointDied(type="x", endpoint="worker@paris", reason="killed"))

        async def once(message: shmbus.Message) -> object:
            return ONE

        handles = await Relay(link).handle(
            "question", lambda message: (parts if message._streams else once)(message)
        )
        link.start()
        reply = await client.request("question")
        assert (reply.payload, reply.source) == ("one", "camera@paris")
        got = []
        stream = client.stream("question")
        for _ in range(2):
            part = await anext(stream)
            got.append((part.size, part.source))
        with pytest.raises(errors.EndpointDied, match="worker@paris"):
            await anext(stream)
        assert got == [(4, "camera@paris"), (len(LARGE), "camera@paris")]
        await handles.close()
        with pytest.raises(errors.NoRoute):
            await client.request("question")


async def test_a_handler_is_cancelled_when_its_requester_withdraws(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach_as("@link", bus.name) as link, attach("client") as client:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def answer(message: shmbus.Message) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        link.handle("question", answer)
        link.start()
        asking = asyncio.create_task(client.request("question", timeout=None))
        await asyncio.wait_for(begun.wait(), 60)
        asking.cancel()
        await asyncio.wait_for(cancelled.wait(), 60)


async def test_many_messages_are_kept_until_each_is_done_in_any_order(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with (
        attach_as("@link", bus.name, settings=HOLDS) as link,
        attach("source") as source,
    ):
        await link.subscribe("job", group="workers")
        kept: list[shmbus.Message] = []

        async def order(message: shmbus.Message) -> None:
            assert message._keep()
            kept.append(message)

        link.handle("order", order, redeliver=True)
        link.start()
        for n in range(MANY // 2):
            await source.publish("job", n)
            await source.send("order", n)
        events = 0
        async for message in link:
            assert message._keep()
            kept.append(message)
            events += 1
            if events == MANY // 2:
                break
        while len(kept) < MANY:
            await asyncio.sleep(0)
        assert (facts(bus, "@link").held, facts(bus, "@link").let_go) == (MANY, 0)
        random.Random(1).shuffle(kept)
        for left, message in enumerate(reversed(kept)):
            assert facts(bus, "@link").held == MANY - left
            message.done()
            assert not message._keep()
        assert (facts(bus, "@link").held, facts(bus, "@link").in_hand) == (0, 0)


async def test_what_is_kept_is_given_back_when_its_endpoint_leaves_or_by_nack(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("source") as source, attach("next") as after:
        async with attach_as("@link", bus.name) as link:
            await link.subscribe("job", group="workers")
            await source.publish_many([("job", n) for n in range(3)])
            kept = []
            for _ in range(3):
                message = await link.receive(60)
                assert message is not None
                assert message._keep()
                kept.append(message)
            await after.subscribe("job", group="workers")
            kept[1].nack()
            message = await after.receive(60)
            assert message is not None
            assert (message.payload, message.attempt) == (1, 2)
        kept[0].done()  # too late, and harmless
        assert not kept[2]._keep()
        rest = [await after.receive(60) for _ in range(2)]
        assert {m and m.payload for m in rest} == {0, 2}
        eventually(lambda: not bus.health().dead_letters)


async def test_what_a_link_notes_is_read_by_observers_until_it_takes_that_back(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach_as("@link", bus.name) as link, attach("asker") as asker:
        notes = [
            SiteNote(site=f"site-{n}", space="lan", run="", state="up", since=1.0 * n)
            for n in range(40)
        ]
        for note in notes:  # more than the first log takes
            Relay(link).note(note.key, encode(note))
        await link.subscribe("event")
        for note in notes[2:]:
            Relay(link).note(note.key, None)
        Relay(link).note("never", None)
        Relay(link).note(notes[1].key, encode(msgspec.structs.replace(notes[1], state="down")))
        eventually(lambda: [s.state for s in bus.sites()] == ["up", "down"])
        await asker.publish("event", 1)
        message = await link.receive(60)
        assert message is not None
        assert message.payload == 1


async def test_who_gives_back_what_came_with_an_origin_that_is_none_stays(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach_as("@link", bus.name) as link, attach("worker") as worker:
        got = asyncio.Queue[tuple[object, object]]()

        async def give_back(message: shmbus.Message) -> None:
            got.put_nowait((message.source, message.site))
            message.nack()

        worker.handle("job", give_back, redeliver=True)
        worker.start()
        flags = int(RecordFlag.RAW | RecordFlag.RELAYED)
        link._looped.post(int(Kind.SEND), flags, "job", bytes(200), NO_LINE)
        for _ in range(2):
            assert await got.get() == ("@link", None)
        assert "worker" in [endpoint.name for endpoint in bus.endpoints()]
