"""Full rings, batches, and what is lost and counted."""

import threading
import time

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import Attach, eventually

SMALL = shmbus.Settings(in_bytes=8192, out_bytes=8192)


def test_a_full_ring_makes_the_sender_wait_and_then_says_so(bus_name: str) -> None:
    settings = shmbus.Settings(in_bytes=8192, out_bytes=8192, block_timeout=60)
    with (
        shmbus.serve(bus_name, settings=settings),
        shmbus.attach(bus_name, name="sender") as sender,
        shmbus.attach(bus_name, name="deaf") as deaf,
    ):
        deaf.subscribe("x")
        with pytest.raises(errors.QueueFull) as caught:
            sender.publish_many([("x", bytes(1000))] * 1000, timeout=0.05)
        error = caught.value
        assert (error.endpoint, error.type, error.setting) == ("sender", "x", "out_bytes")
        assert 0 < error.depth <= error.capacity == 8192
        assert error.seconds == 0.05


@pytest.mark.smoke
def test_a_waiting_sender_goes_on_when_there_is_room(bus_name: str) -> None:
    settings = shmbus.Settings(in_bytes=8192, out_bytes=8192, block_timeout=60)
    with (
        shmbus.serve(bus_name, settings=settings),
        shmbus.attach(bus_name, name="slow") as slow,
        shmbus.attach(bus_name, name="sender") as sender,
    ):
        slow.subscribe("x")
        count = 200

        def send() -> None:
            for i in range(count):
                sender.publish("x", bytes([i]) * 1000, timeout=60)

        thread = threading.Thread(target=send)
        thread.start()
        got: list[int] = []
        while len(got) < count:
            message = slow.receive(30)
            assert message is not None
            assert message.lost == 0
            got.append(message.payload[0])
        thread.join()
        assert got == list(range(count))


@pytest.mark.smoke
def test_a_receiver_that_does_not_read_learns_what_it_lost(bus_name: str) -> None:
    settings = shmbus.Settings(in_bytes=8192, out_bytes=8192, block_timeout=0.05)
    with (
        shmbus.serve(bus_name, settings=settings) as bus,
        shmbus.attach(bus_name, name="deaf") as deaf,
        shmbus.attach(bus_name, name="sender") as sender,
    ):
        deaf.subscribe("x")
        deaf.subscribe("y")
        for i in range(100):
            sender.publish("x", bytes([i]) * 1000, timeout=30)
        eventually(lambda: bus.endpoints()[1].forwarded == 100)
        first = [message.payload[0] for message in deaf.receive_many(100, timeout=10)]
        assert first == list(range(len(first)))
        sender.publish("y")
        message = deaf.receive(10)
        assert message is not None
        assert message.lost == 100 - len(first) == bus.endpoints()[0].lost


def test_each_loss_is_told_once(bus_name: str) -> None:
    settings = shmbus.Settings(in_bytes=8192, out_bytes=8192, block_timeout=0.05)
    with (
        shmbus.serve(bus_name, settings=settings) as bus,
        shmbus.attach(bus_name, name="deaf") as deaf,
        shmbus.attach(bus_name, name="sender") as sender,
    ):
        deaf.subscribe("x")
        told = 0
        for _ in range(3):
            for _ in range(40):
                sender.publish("x", bytes(1000), timeout=30)
            eventually(lambda: bus.endpoints()[1].sent.total == bus.endpoints()[1].forwarded)
            told += sum(message.lost for message in deaf.receive_many(100, timeout=10))
        eventually(lambda: not bus.endpoints()[0].slow)
        sender.publish("x")
        for message in deaf.receive_many(2, timeout=10):
            told += message.lost
        assert told == bus.endpoints()[0].lost > 40


@pytest.mark.slow
def test_replies_are_not_stuck_behind_events_on_either_side(bus_name: str) -> None:
    settings = shmbus.Settings(in_bytes=8192, out_bytes=8192, block_timeout=600)
    with (
        shmbus.serve(bus_name, settings=settings),
        shmbus.attach(bus_name, name="deaf") as deaf,
        shmbus.attach(bus_name, name="server") as server,
        shmbus.attach(bus_name, name="client") as client,
    ):
        server.handle("ask", lambda message: message.payload)
        server.start()
        reply = client.request_async("ask", "first", timeout=60)  # the ring to there is not full
        assert reply.result().payload == "first"
        deaf.subscribe("flood")
        client.subscribe("flood")  # and does not read it
        with pytest.raises(errors.QueueFull):
            server.publish_many([("flood", bytes(1000))] * 1000, timeout=0.05)
        assert client.request("ask", "again", timeout=60).payload == "again"


def test_drop_newest_delays_nobody(bus_name: str) -> None:
    settings = shmbus.Settings(in_bytes=8192, out_bytes=8192, block_timeout=60)
    with (
        shmbus.serve(bus_name, settings=settings) as bus,
        shmbus.attach(bus_name, name="deaf") as deaf,
        shmbus.attach(bus_name, name="sender") as sender,
    ):
        deaf.subscribe("x", overflow="drop_newest")
        for _ in range(100):
            sender.publish("x", bytes(1000), timeout=30)
        eventually(lambda: bus.endpoints()[1].forwarded == 100)
        assert bus.endpoints()[0].lost > 0


@pytest.mark.smoke
def test_a_batch_is_sent_together_and_in_order(bus: shmbus.Bus, attach: Attach) -> None:
    sender, receiver = attach("s"), attach("r")
    receiver.subscribe("x")
    with sender.batch() as batch:
        for i in range(1000):
            batch.publish("x", i)
    got: list[int] = []
    while len(got) < 1000:
        message = receiver.receive(10)
        assert message is not None
        got.append(message.payload)
    assert got == list(range(1000))


def test_a_batch_keeps_back_until_it_is_full(bus: shmbus.Bus, attach: Attach) -> None:
    sender, receiver = attach("s"), attach("r")
    receiver.subscribe("x")
    with sender.batch(max_messages=3) as batch:
        batch.publish("x", 0)
        batch.publish("x", 1)
        assert receiver.receive(0.02) is None
        batch.publish("x", 2)
        assert [receiver.receive(10) is not None for _ in range(3)] == [True] * 3
        batch.publish("x", 3)
        assert receiver.receive(0.02) is None
        batch.flush()
        assert receiver.receive(10) is not None


def test_a_batch_is_flushed_by_size(bus: shmbus.Bus, attach: Attach) -> None:
    sender, receiver = attach("s"), attach("r")
    receiver.subscribe("x")
    with sender.batch(max_bytes=1000) as batch:
        batch.publish("x", bytes(100))
        assert receiver.receive(0.02) is None
        batch.publish("x", bytes(1000))
        assert receiver.receive(10) is not None


def test_a_batch_is_flushed_when_its_time_comes_though_the_sender_computes(
    bus: shmbus.Bus, attach: Attach
) -> None:
    sender, receiver = attach("s"), attach("r")
    receiver.subscribe("x")
    got = threading.Event()

    def receive() -> None:
        if receiver.receive(30) is not None:
            got.set()

    thread = threading.Thread(target=receive)
    thread.start()
    with sender.batch(max_delay=0.01) as batch:
        batch.publish("x")
        end = time.monotonic() + 30
        while not got.is_set() and time.monotonic() < end:
            sum(range(100))
        assert got.is_set()
    thread.join()


def test_a_batch_is_flushed_at_an_exception_too(bus: shmbus.Bus, attach: Attach) -> None:
    sender, receiver = attach("s"), attach("r")
    receiver.subscribe("x")

    def interrupted() -> None:
        with sender.batch() as batch:
            batch.publish("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert receiver.receive(10) is not None


def test_what_follows_a_batch_does_not_overtake_it(bus: shmbus.Bus, attach: Attach) -> None:
    sender, receiver = attach("s"), attach("r")
    receiver.subscribe("x")
    with sender.batch() as batch:
        batch.publish("x", 1)
        sender.publish("x", 2)
    assert [m.payload for m in receiver.receive_many(2, timeout=10)] in ([1, 2], [1])


def test_an_error_says_which_message_of_the_batch(bus: shmbus.Bus, attach: Attach) -> None:
    sender = attach("s", settings=shmbus.Settings(pool_bytes=4096))
    sender.subscribe("x")
    with sender.batch() as batch:
        batch.publish("x", 0)
        with pytest.raises(errors.EncodeError) as encode:
            batch.publish("x", object())
        assert encode.value.index == 1
    with pytest.raises(errors.MessageTooLarge) as large:
        sender.publish_many([("x", 1), ("x", 2), ("x", bytes(10**6))])
    assert large.value.index == 2
    assert [m.payload for m in (sender.receive(10) for _ in range(3)) if m] == [0, 1, 2]


def test_batching_for_a_whole_endpoint(bus: shmbus.Bus, attach: Attach) -> None:
    settings = shmbus.Settings(batch=shmbus.BatchLimits(max_messages=4))
    sender, receiver = attach("s", settings=settings), attach("r")
    receiver.subscribe("x")
    for i in range(3):
        sender.publish("x", i)
    assert receiver.receive(0.02) is None
    sender.publish("x", 3)
    assert receiver.receive(10) is not None
    sender.publish("x", 4)
    with pytest.raises(errors.NoRoute):
        sender.request("nobody")  # flushes first
    assert [receiver.receive(10) is not None for _ in range(4)] == [True] * 4


def test_many_threads_share_an_endpoint(bus: shmbus.Bus, attach: Attach) -> None:
    sender, receiver = attach("s"), attach("r")
    receiver.subscribe("x")
    threads, each = 8, 500

    def send(thread: int) -> None:
        for i in range(each):
            sender.publish("x", [thread, i])

    workers = [threading.Thread(target=send, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    last = [-1] * threads
    for _ in range(threads * each):
        message = receiver.receive(10)
        assert message is not None
        thread, i = message.payload
        assert i == last[thread] + 1
        last[thread] = i
    for worker in workers:
        worker.join()


@pytest.mark.bus(in_bytes=8192, out_bytes=65536, reply_bytes=16384)
@pytest.mark.usefixtures("bus")
def test_an_endpoint_has_the_sizes_that_its_bus_has_each_way(attach: Attach) -> None:
    asks, answers = attach("asks"), attach("answers")
    answers.handle("size", lambda message: bytes(message.payload))
    answers.start()
    for size in (3000, 5000):
        assert asks.request("size", size, timeout=60).size == size
    (mine,) = (info for info in asks.bus.endpoints() if info.name == "asks")
    assert (mine.incoming.capacity, mine.outgoing.capacity) == (8192, 65536)


@pytest.mark.bus(in_bytes=8192, out_bytes=8192, reply_bytes=8192)
def test_what_is_too_large_for_the_rings_of_some_goes_through_a_pool(
    bus: shmbus.Bus, attach: Attach
) -> None:
    def attached(name: str, data: int = 8192, replies: int = 8192) -> shmbus.Endpoint:
        sizes = shmbus.Settings(in_bytes=data, out_bytes=data, reply_bytes=replies)
        return attach(name, settings=sizes)

    small, large = attach("small"), attached("large", data=65536)
    speaker, mute = attached("speaker", replies=65536), attach("mute")
    for server in (small, speaker, mute):
        server.handle(server.name, lambda message: bytes(10_000))
        server.start()
    large.subscribe("event")
    for source in (large, small):
        source.publish("event", bytes(10_000))
        received = large.receive(60)
        assert received is not None
        assert received.size == 10_000
    for asker, server in ((large, small), (speaker, mute), (large, speaker)):
        assert asker.request(server.name, bytes(10_000), timeout=60).size == 10_000
    assert speaker.request("speaker", timeout=60).size == 10_000
