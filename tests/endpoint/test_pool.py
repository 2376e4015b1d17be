"""Payloads that are too large for rings: they go through the pool of their sender."""

from __future__ import annotations

import contextlib
import resource
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import shmbus
from shmbus import errors
from shmbus.testing import Attach, eventually

from .looks import info

LARGE = 300_000


def pool_of(bus: shmbus.Bus, name: str) -> Any:
    return next(e.pool for e in bus.endpoints() if e.name == name)


def size_at(receiver: shmbus.Endpoint) -> int:
    message = receiver.receive(timeout=10.0)
    assert message is not None
    return message.size


@pytest.mark.smoke
def test_each_way_of_sending_takes_large_payloads(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    sent = list[str]()
    done = threading.Event()

    def note(message: shmbus.Message) -> None:
        sent.append(message.type)
        if message.size == LARGE:
            done.set()

    server.handle("sent", note)
    server.handle("echo", lambda message: message.payload)

    @server.handle("parts")
    def parts(message: shmbus.Message) -> Iterator[bytes]:
        for _ in range(5):
            yield message.payload

    server.start()
    payload = bytes(range(250)) * (LARGE // 250)
    client.subscribe("event")
    client.publish("event", payload)
    client.publish_many([("event", payload)] * 2)
    with client.batch() as batch:
        batch.publish("event", payload)
    got = [client.receive(30) for _ in range(4)]
    assert [message and message.payload == payload for message in got] == [True] * 4
    client.send("sent", payload)
    assert done.wait(30)
    assert client.request("echo", payload, timeout=30).payload == payload
    assert client.request_async("echo", payload, timeout=30).result().payload == payload
    assert [part.payload == payload for part in client.stream("parts", payload)] == [True] * 5
    found = client.gather("echo", payload, timeout=30)
    assert [getattr(reply, "payload", reply) == payload for reply in found.values()] == [True]


def test_a_sender_waits_until_a_receiver_lets_go(bus: shmbus.Bus, attach: Attach) -> None:
    sizes = shmbus.Settings(pool_bytes=2 * LARGE)
    source, sink = attach("source", settings=sizes), attach("sink")
    sink.subscribe("x")
    source.publish("x", np.zeros(LARGE, np.uint8))
    message = sink.receive(30)
    assert message is not None
    array = message.payload
    sending = threading.Thread(target=lambda: source.publish("x", bytes(LARGE + 1), timeout=60))
    sending.start()
    eventually(lambda: pool_of(bus, "source").waiting)
    del message, array
    sending.join(30)
    assert not sending.is_alive()
    message = sink.receive(30)
    assert message is not None
    assert message.size == LARGE + 1


def test_a_payload_needs_one_piece_and_who_lacks_it_is_told(
    bus: shmbus.Bus, attach: Attach
) -> None:
    page = 4096
    source = attach("source", settings=shmbus.Settings(pool_bytes=256 * page))
    sink = attach("sink")
    sink.subscribe("x")
    for _ in range(3):
        source.publish("x", bytes(64 * page))
    messages = [sink.receive(30) for _ in range(3)]
    del messages[2], messages[0]  # the one in the middle is kept
    with pytest.raises(errors.QueueFull, match=f" {128 * page} free in one piece") as caught:
        source.publish("x", bytes(129 * page), timeout=0.02)
    assert caught.value.largest == 128 * page
    assert caught.value.depth == 64 * page
    source.publish("x", bytes(128 * page), timeout=30)


def test_a_first_large_payload_needs_no_time(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    source.subscribe("x")
    source.publish("x", bytes(LARGE), timeout=0)
    source.publish("x", bytes(20 * LARGE), timeout=0)
    for _ in range(2):
        assert source.receive(30) is not None


@pytest.mark.bus(pool_bytes=64 << 20, pool_total_bytes=64 << 20)
@pytest.mark.slow
def test_what_a_call_gave_up_others_may_have(bus: shmbus.Bus, attach: Attach) -> None:
    first, second = attach("first"), attach("second")
    with first.loan("x", 40 << 20):
        pass
    for _ in range(2):  # each has a part of what is there, and waits for more
        with pytest.raises(errors.QueueFull), second.loan("x", 40 << 20, timeout=0):
            pass
    second.publish("x", bytes(40 << 20), timeout=30)


@pytest.mark.bus(pool_bytes=1 << 20, pool_total_bytes=LARGE)
def test_what_all_pools_may_have_bounds_a_message_too(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    with pytest.raises(errors.MessageTooLarge, match="pool_total_bytes") as caught:
        source.publish("x", bytes(LARGE + 1))
    most = LARGE // 4096 * 4096  # whole pages
    assert (caught.value.setting, caught.value.limit) == ("pool_total_bytes", most)
    assert not caught.value.total
    with pytest.raises(errors.MessageTooLarge, match="pool_total_bytes=2097152") as caught:
        source.publish("x", bytes((1 << 20) + 1))
    assert (caught.value.setting, caught.value.total, caught.value.limit) == (
        "pool_bytes",
        True,
        most,
    )
    source.publish("x", bytes(most), timeout=30)
    assert bus.info().payload_limit == most


@pytest.mark.bus(pool_bytes=1 << 20, pool_total_bytes=1 << 20)
def test_pools_that_have_all_that_there_is_are_named(bus: shmbus.Bus, attach: Attach) -> None:
    first, second = attach("first"), attach("second")
    with first.loan("x", 800_000):
        with pytest.raises(errors.QueueFull, match="pool_total_bytes") as caught:
            second.publish("x", bytes(800_000), timeout=0.05)
        assert caught.value.setting == "pool_total_bytes"
        most, size = caught.value.pools[0]
        assert (most, size > 800_000) == ("first", True)
        assert f"'first' {size} bytes" in str(caught.value)
        assert len(caught.value.pools) == 1  # those that have none are not named
    assert caught.value.endpoint == "second"


@pytest.mark.bus(pool_bytes=1 << 20, pool_total_bytes=1 << 20, block_timeout=0.2)
@pytest.mark.slow
def test_what_another_has_of_all_and_does_not_use_is_to_be_had(
    bus: shmbus.Bus, attach: Attach
) -> None:
    first, idle, second = attach("first"), attach("idle"), attach("second")
    first.publish("nobody", bytes(900_000))  # and that is all: it does not use what it has
    second.publish("nobody", bytes(900_000), timeout=60)
    idle.subscribe("x")
    second.publish("x", bytes(900_000), timeout=60)  # which is not taken
    first.publish("nobody", bytes(900_000), timeout=60)
    assert info(bus, "idle").lost_by.slow == 1


def test_a_closed_endpoint_leaves_no_pool(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    with source.loan("x", LARGE) as loan:
        array = loan.array
        source.close()
        array[:] = 7  # still there for who fills it
        with pytest.raises(errors.EndpointClosed):
            loan.publish()
        loan.discard()
    eventually(lambda: bus.pools() == [])
    assert int(array.sum()) == 7 * LARGE


def test_of_one_that_has_gone_only_what_somebody_has_takes_memory(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, sink = attach("source"), attach("sink")
    sink.subscribe("x")
    source.publish("x", bytes(20 * LARGE))
    source.publish("x", np.ones(LARGE, np.uint8))
    source.publish("x", bytes(20 * LARGE))
    first, kept, last = (sink.receive(30) for _ in range(3))
    source.close()
    assert first is not None
    assert kept is not None
    assert last is not None

    def taken() -> int:
        return max(bus.info().pools_granted, sum(pool.reserved for pool in bus.pools()))

    first.release()
    eventually(lambda: taken() < 22 * LARGE)
    last.release()
    eventually(lambda: taken() < 2 * LARGE)
    assert int(kept.payload.sum()) == LARGE


@pytest.mark.parametrize(
    "made", [bytearray, lambda data: memoryview(data), lambda data: memoryview(data * 2)[::2]]
)
def test_bytes_of_any_kind_arrive_as_bytes(bus: shmbus.Bus, attach: Attach, made: Any) -> None:
    source = attach("source")
    source.subscribe("x")
    data = bytes(range(250)) * 2000
    expected = bytes(made(data))
    for payload in (made(data), memoryview(made(data)).tobytes()):
        source.publish("x", payload)
        message = source.receive(30)
        assert message is not None
        assert message.payload == expected


def test_no_memory_is_told_with_the_remedy(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(errors.SegmentError, match="Set a smaller pool_bytes") as caught:
            source.publish("x", bytes(LARGE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ":pool:" in caught.value.name
    source.publish("x", bytes(LARGE))  # now there is


def fill_pool(endpoint: shmbus.Endpoint) -> None:
    """Until something is refused; the type is subscribed to by one that takes nothing."""
    with contextlib.suppress(errors.QueueFull):
        while True:
            endpoint.publish("fill", bytes(LARGE), timeout=0)


@pytest.mark.bus(pool_bytes=3 * LARGE)
@pytest.mark.slow
def test_who_asked_is_told_that_its_reply_finds_no_space(bus: shmbus.Bus, attach: Attach) -> None:
    server, client, idle = attach("server"), attach("client"), attach("idle")
    server.handle("large", lambda _: bytes(LARGE))
    server.start(threads=3)
    idle.subscribe("fill", group="work")  # which nobody takes from it
    fill_pool(server)
    asked = client.request_async("large", timeout=2)
    stream = client.stream("large", timeout=60, total=2)
    told: list[Any] = [client.gather("large", timeout=2)["server"], asked.exception()]
    with pytest.raises(errors.RemoteError) as caught:
        next(stream)
    for error in (*told, caught.value):
        assert error.error == "shmbus.errors.QueueFull", error
        assert "held by 'idle'" in error.message


def test_who_asked_is_told_that_there_is_no_memory_for_its_reply(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    server.handle("large", lambda _: bytes(LARGE))
    server.start()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(errors.RemoteError, match="pool_bytes") as caught:
            client.request("large", timeout=60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.error == "shmbus.errors.SegmentError"
    assert client.request("large", timeout=60).size == LARGE  # now there is


@pytest.mark.bus(pool_bytes=4 * LARGE)
@pytest.mark.smoke
def test_requests_and_replies_that_no_pool_holds_all_end(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.handle("echo", lambda message: message.payload)
    server.start()
    asked = [
        client.request_async("echo", np.full(LARGE, n, np.uint8), timeout=60) for n in range(20)
    ]
    assert [future.result().payload[0] for future in asked] == list(range(20))
    items = (("echo", np.full(LARGE, n, np.uint8)) for n in range(20))
    replies: Any = client.request_many(items, timeout=60)
    assert [reply.payload[0] for reply in replies] == list(range(20))
    assert info(bus, "client").copied > 0


def test_a_closed_endpoint_says_so_whatever_the_payload_takes(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source")
    source.close()
    for call in (source.publish, source.send, source.request, source.loan):
        for size in (10, LARGE):
            payload: Any = size if call == source.loan else bytes(size)
            with pytest.raises(errors.EndpointClosed):
                call("x", payload)


@pytest.mark.bus(pool_bytes=4 * LARGE, block_timeout=0.2)
@pytest.mark.parametrize("urgent", [False, True])
def test_one_that_takes_nothing_holds_up_nobody(
    bus: shmbus.Bus, attach: Attach, urgent: bool
) -> None:
    source, idle, busy, watcher = (
        attach("source"),
        attach("idle"),
        attach("busy"),
        attach("watcher"),
    )
    idle.subscribe("x")
    busy.subscribe("x")
    watcher.subscribe("$bus.lost")
    for n in range(10):
        source.publish("x", np.full(LARGE, n, np.uint8), urgent=urgent, timeout=60)
        message = busy.receive(60)
        assert message is not None
        assert message.payload[0] == n
        del message
    lost = info(bus, "idle").lost_by
    assert (lost.slow, info(bus, "busy").lost) == (10, 0)
    assert pool_of(bus, "source").waits > 0
    told = watcher.receive(60)
    assert told is not None
    assert (told.payload["name"], told.payload["reason"]) == ("idle", "slow")
    source.publish("x", b"small", timeout=60)  # for which there is space
    message = idle.receive(60)
    assert message is not None
    assert (message.payload, message.lost) == (b"small", 10)
    source.publish("x", bytes(LARGE), urgent=urgent, timeout=60)  # it takes again
    message = idle.receive(60)
    assert message is not None
    assert (len(message.payload), message.lost) == (LARGE, 0)


@pytest.mark.bus(pool_bytes=8 * LARGE, block_timeout=300)
def test_one_that_would_rather_lose_loses_at_once(bus: shmbus.Bus, attach: Attach) -> None:
    source, idle, busy = attach("source"), attach("idle"), attach("busy")
    idle.subscribe("x", overflow="drop_newest")
    busy.subscribe("x")
    for _ in range(20):
        source.publish("x", bytes(LARGE), timeout=60)
        assert size_at(busy) == LARGE
    lost = info(bus, "idle").lost_by
    assert (lost.dropped, lost.slow, info(bus, "busy").lost) == (18, 0, 0)
    assert [size_at(idle), size_at(idle)] == [LARGE, LARGE]
    source.publish("x", bytes(LARGE), timeout=60)
    message = idle.receive(60)
    assert message is not None
    assert message.lost == 18


@pytest.mark.bus(pool_bytes=8 * LARGE, pool_total_bytes=4 * LARGE, block_timeout=300)
@pytest.mark.parametrize("size", [LARGE // 2, 3 * LARGE])
def test_one_that_would_rather_lose_delays_nobody_however_large_payloads_are(
    bus: shmbus.Bus, attach: Attach, size: int
) -> None:
    source, idle, busy = attach("source"), attach("idle"), attach("busy")
    idle.subscribe("x", overflow="drop_newest")
    busy.subscribe("x")
    for _ in range(4):
        source.publish("x", bytes(size), timeout=60)
        assert size_at(busy) == size
    lost = info(bus, "idle").lost_by
    assert (lost.dropped, lost.slow, info(bus, "busy").lost) == (2 if size < LARGE else 3, 0, 0)


@pytest.mark.bus(pool_bytes=4 * LARGE, block_timeout=0.1)
def test_work_in_a_pool_is_never_taken_away(bus: shmbus.Bus, attach: Attach) -> None:
    source, idle = attach("source"), attach("idle")
    idle.subscribe("x", group="g")
    for _ in range(3):
        source.publish("x", bytes(LARGE), timeout=60)
    with pytest.raises(errors.QueueFull, match="idle"):
        source.publish("x", bytes(LARGE), timeout=0.5)
    assert info(bus, "idle").lost == 0
    for _ in range(3):
        message = idle.receive(60)
        assert message is not None
        assert len(message.payload) == LARGE


@pytest.mark.bus(pool_bytes=4 * LARGE)
def test_requests_that_are_over_keep_nobody_from_a_pool(bus: shmbus.Bus, attach: Attach) -> None:
    source, idle, other = attach("source"), attach("idle"), attach("other")
    idle.handle("do", lambda m: len(m.payload))
    other.subscribe("x")
    under_way = [source.request_async("do", bytes(LARGE), timeout=60) for _ in range(3)]
    eventually(lambda: info(bus, "idle").untouched == 3)
    for future in under_way:
        future.cancel()
    source.publish("x", bytes(3 * LARGE), timeout=60)
    assert size_at(other) == 3 * LARGE
    assert not info(bus, "idle").slow
    idle.start()
    assert source.request("do", b"last", timeout=60).payload == 4
    served = info(bus, "idle")
    assert (served.received.requests, served.withdrawn) == (1, 3)


@pytest.mark.bus(pool_bytes=4 * LARGE)
def test_requests_that_are_over_do_not_keep_gather_from_a_pool(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, idle, server = attach("source"), attach("idle"), attach("server")
    idle.handle("idle", lambda _: None)
    server.handle("do", lambda m: len(m.payload))
    server.start()
    under_way = [source.request_async("idle", bytes(LARGE), timeout=60) for _ in range(3)]
    eventually(lambda: info(bus, "idle").untouched == 3)
    time.sleep(0.3)  # the dispatcher has looked since they waited for memory
    for future in under_way:
        future.cancel()
    (answer,) = source.gather("do", bytes(3 * LARGE), timeout=60).values()
    assert not isinstance(answer, errors.BusError)
    assert answer.payload == 3 * LARGE


def test_small_rings_of_one_that_only_sends_or_has_gone_make_nobody_use_a_pool(
    bus: shmbus.Bus, attach: Attach
) -> None:
    small = shmbus.Settings(in_bytes=4096)
    sender, receiver = attach("sender"), attach("receiver")
    receiver.subscribe("event")
    attach("publisher", settings=small)
    sender.publish("event", bytes(2000))
    assert size_at(receiver) == 2000
    assert pool_of(bus, "sender") is None
    with attach("reader", settings=small) as reader:
        reader.subscribe("event")
        sender.publish("event", bytes(2000))
        assert size_at(reader) == size_at(receiver) == 2000
        assert pool_of(bus, "sender").reserved > 0
    before = pool_of(bus, "sender").waits
    for _ in range(600):  # more than a pool has blocks
        sender.publish("event", bytes(200))
    assert size_at(receiver) == 200
    sender.publish("event", bytes(2000))
    assert pool_of(bus, "sender").in_use == 0
    assert pool_of(bus, "sender").waits == before


MIB = 1 << 20


@pytest.mark.bus(pool_bytes=8 * MIB, pool_total_bytes=8 * MIB, block_timeout=0.1)
def test_who_lacks_what_it_can_never_have_makes_nobody_else_lose(
    bus: shmbus.Bus, attach: Attach
) -> None:
    lender, source, busy, sink = attach("lender"), attach("source"), attach("busy"), attach("sink")
    busy.subscribe("job")
    with lender.loan("x", 4 * MIB):
        for _ in range(3):
            source.publish("job", bytes(LARGE), timeout=60)
        first = busy.receive(60)  # on which it works
        with pytest.raises(errors.QueueFull):
            sink.publish("x", bytes(6 * MIB), timeout=0.5)
    assert first is not None
    assert [size_at(busy), size_at(busy)] == [LARGE, LARGE]
    assert info(bus, "busy").lost == 0


@pytest.mark.bus(pool_bytes=8 * MIB, pool_total_bytes=2 * MIB, block_timeout=0.1)
def test_what_is_kept_of_one_keeps_no_other_from_its_memory(
    bus: shmbus.Bus, attach: Attach
) -> None:
    first, second = attach("first"), attach("second")
    for n in range(6):
        first.publish(f"v.{n}", bytes(LARGE), retain=True, timeout=60)
    second.publish("x", bytes(5 * LARGE), timeout=60)
    assert bus.info().evicted > 0
