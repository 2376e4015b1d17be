"""Replies in parts: a handler that yields streams its reply."""

import concurrent.futures
import gc
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmbus
from shmbus import errors
from shmbus.testing import eventually
from shmbus.testing.fixtures import Attach


def thread_times() -> dict[int, float]:
    """The seconds of CPU that each thread of this process has had."""
    return {one.id: one.user_time + one.system_time for one in psutil.Process().threads()}


def parts_of(stream: Iterator[shmbus.Message]) -> list[object]:
    return [part.payload for part in stream]


class Counter:
    """Counts to what it is asked for, and notes how far it came and that it was closed."""

    def __init__(self, endpoint: shmbus.Endpoint) -> None:
        self.reached = 0
        self.closed = threading.Event()
        endpoint.handle("count", self.count)

    def count(self, message: shmbus.Message) -> Iterator[int]:
        try:
            for number in range(message.payload):
                self.reached = number
                yield number
        finally:
            self.closed.set()


@pytest.mark.smoke
def test_a_handler_that_yields_streams_its_reply(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    Counter(server)
    server.start()
    with client.stream("count", 1000) as stream:
        first = next(stream)
        assert (first.payload, first.source, first.kind, first.type) == (
            0,
            "server",
            "part",
            "count",
        )
        assert parts_of(stream) == list(range(1, 1000))
    assert parts_of(client.stream("count", 0)) == []
    assert list(stream) == []


def test_a_reply_that_is_not_yielded_is_one_part(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    server.handle("double", lambda message: 2 * message.payload)
    server.start()
    assert parts_of(client.stream("double", 21)) == [42]


def test_asking_for_one_reply_of_a_handler_that_yields_names_stream(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    Counter(server)
    server.start()
    with pytest.raises(
        errors.RemoteError, match=r"ask with ep.stream\(\), not with request\(\) or gather\(\)"
    ):
        client.request("count", 3)


def test_a_slow_reader_makes_the_handler_wait_and_nobody_else(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.handle("double", lambda message: 2 * message.payload)
    server.start()  # one thread
    with client.stream("count", 1_000_000) as stream:
        assert next(stream).payload == 0
        for number in range(50):
            assert client.request("double", number).payload == 2 * number
        assert counter.reached < 10_000
        assert [next(stream).payload for _ in range(20_000)] == list(range(1, 20_001))
        assert not counter.closed.is_set()
    assert counter.closed.wait(5.0)
    assert counter.reached < 100_000
    eventually(lambda: server._deferred() == 0)


def test_an_exception_half_way_comes_after_the_parts_before_it(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")

    @server.handle("fail")
    def fail(message: shmbus.Message) -> Iterator[int]:
        yield from range(100)
        raise ValueError("no more")

    server.start()
    stream = client.stream("fail")
    assert [next(stream).payload for _ in range(100)] == list(range(100))
    with pytest.raises(errors.RemoteError, match="no more") as caught:
        next(stream)
    assert caught.value.error == "ValueError"
    assert list(stream) == []


@pytest.mark.parametrize("how", ["close", "drop", "with"])
def test_breaking_off_closes_the_generator(bus: shmbus.Bus, attach: Attach, how: str) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.start()
    stream = client.stream("count", 10_000_000)
    assert next(stream).payload == 0
    if how == "close":
        stream.close()
        assert list(stream) == []
    elif how == "drop":
        del stream
        gc.collect()
    else:
        with pytest.raises(ZeroDivisionError), stream:
            next(stream).payload // 0
    assert counter.closed.wait(5.0)


def test_parts_come_at_once_where_they_come_slowly(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    gate = threading.Semaphore(0)

    @server.handle("slow")
    def slow(message: shmbus.Message) -> Iterator[int]:
        for number in range(10):
            yield number
            gate.acquire()

    server.start()
    stream = client.stream("slow")
    for number in range(10):
        assert next(stream).payload == number
        gate.release()
    assert list(stream) == []


def test_the_timeout_is_between_parts_and_total_for_all(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    closed = threading.Event()

    @server.handle("slow")
    def slow(message: shmbus.Message) -> Iterator[int]:
        try:
            while True:
                time.sleep(0.02)
                yield 1
        finally:
            closed.set()

    @server.handle("never")
    def never(message: shmbus.Message) -> Iterator[int]:
        yield 1
        closed.wait(10.0)
        yield 2

    server.start(threads=2)
    with pytest.raises(errors.RequestTimeout):
        list(client.stream("slow", timeout=5.0, total=0.2))
    assert closed.wait(5.0)
    closed.clear()
    stream = client.stream("never", timeout=0.1)
    assert next(stream).payload == 1
    with pytest.raises(errors.RequestTimeout):
        next(stream)
    assert list(stream) == []
    closed.set()


def test_a_limit_is_from_one_part_to_the_next(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    gate = threading.Event()

    def slow(message: shmbus.Message) -> Iterator[int]:
        yield 1
        yield 2
        gate.wait(60)
        yield 3

    server.handle("slow", slow, limit=0.2)
    server.start()
    stream = client.stream("slow")
    assert next(stream).payload == 1
    time.sleep(0.3)  # the reader takes its time: the handler's is not over
    assert next(stream).payload == 2
    with pytest.raises(errors.HandlerTimeout):
        next(stream)
    gate.set()
    eventually(lambda: server._deferred() == 0)


def test_what_a_generator_asks_of_others_ends_with_the_stream(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")

    @server.handle("left")
    def left(message: shmbus.Message) -> Iterator[bool]:
        for _ in range(3):
            left = shmbus.deadline()
            yield left is not None and 10 < left <= 20

    @server.handle("free")
    def free(message: shmbus.Message) -> Iterator[float | None]:
        yield shmbus.deadline()

    server.start()
    assert parts_of(client.stream("left", total=20)) == [True] * 3
    assert parts_of(client.stream("free")) == [None]
    with shmbus.within(20):
        assert parts_of(client.stream("left")) == [True] * 3
        assert parts_of(client.stream("free", inherit_deadline=False)) == [None]
    assert shmbus.deadline() is None


def test_a_generator_that_computes_for_long_sees_that_nobody_waits(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    begun, seen, closed = threading.Event(), threading.Event(), threading.Event()

    @server.handle("compute")
    def compute(message: shmbus.Message) -> Iterator[int]:
        try:
            yield 1
            begun.set()
            while not message.cancelled:
                pass
            seen.set()
            yield 2
        finally:
            closed.set()

    server.start()
    with client.stream("compute") as stream:
        assert next(stream).payload == 1
        assert begun.wait(10)
        assert not seen.is_set()
    assert seen.wait(10)
    assert closed.wait(10)


def test_many_slow_readers_hold_up_nobody(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    part = bytes(20_000)

    @server.handle("large")
    def large(message: shmbus.Message) -> Iterator[bytes]:
        for _ in range(20):
            yield part

    server.handle("double", lambda message: 2 * message.payload)
    server.start()
    streams = [client.stream("large", timeout=20) for _ in range(30)]
    for number in range(200):
        assert client.request("double", number).payload == 2 * number
    for stream in reversed(streams):
        assert [len(part.payload) for part in stream] == [len(part)] * 20
    assert bus.health().reasons == ()


def test_parts_as_large_as_can_be(bus: shmbus.Bus, attach: Attach) -> None:
    server = attach("server", settings=shmbus.Settings(pool_bytes=1 << 20))
    client = attach("client")
    part = bytes(64 * 1024 - 128)

    @server.handle("large")
    def large(message: shmbus.Message) -> Iterator[bytes]:
        for _ in range(50):
            yield part
        for _ in range(20):
            yield bytes(300_000)
        yield bytes((1 << 20) + 1)

    server.start()
    with client.stream("large") as stream:
        assert all(len(next(stream).payload) == len(part) for _ in range(50))
        assert all(len(next(stream).payload) == 300_000 for _ in range(20))
        with pytest.raises(errors.RemoteError, match="MessageTooLarge"):
            next(stream)


def test_one_endpoint_streams_to_itself_and_through_itself(bus: shmbus.Bus, attach: Attach) -> None:
    both = attach("both")
    Counter(both)

    @both.handle("squares")
    def squares(message: shmbus.Message) -> Iterator[int]:
        for part in both.stream("count", message.payload):
            yield part.payload**2

    both.start(threads=2)
    assert parts_of(both.stream("squares", 2000)) == [n * n for n in range(2000)]


def test_a_command_runs_a_generator_to_its_end(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.start()
    client.send("count", 1000)
    assert counter.closed.wait(10)
    assert counter.reached == 999


def test_a_handler_that_has_answered_yields_in_vain(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")

    def parts() -> Iterator[int]:
        yield from pytest.fail("nobody takes them")

    @server.handle("both")
    def both(message: shmbus.Message) -> Iterator[int]:
        message.reply("whole")
        return parts()

    server.start()
    assert parts_of(client.stream("both")) == ["whole"]


def test_parts_are_decoded_to_their_type(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")

    @server.handle("mixed")
    def mixed(message: shmbus.Message) -> Iterator[object]:
        yield [1, 2]
        yield "three"

    server.start()
    stream = client.stream("mixed", part_type=tuple[int, int])
    assert next(stream).payload == (1, 2)
    part = next(stream)
    with pytest.raises(errors.DecodeError):
        part.payload  # noqa: B018


def test_taps_and_counters_see_parts_and_the_end(bus: shmbus.Bus, attach: Attach) -> None:
    server, client, observer = attach("server"), attach("client"), attach("observer")
    observer.tap("count")
    Counter(server)
    server.start()
    assert len(parts_of(client.stream("count", 3))) == 3
    kinds = [observer.receive(5.0).tap.kind for _ in range(5)]  # type: ignore[union-attr]
    assert kinds == ["request", "part", "part", "part", "end"]
    about = {info.name: info for info in bus.endpoints()}
    assert (about["server"].sent.parts, about["server"].sent.replies) == (3, 1)
    assert about["client"].received.parts == 3
    eventually(lambda: [info.unforwarded for info in bus.endpoints()] == [0, 0, 0])
    with client.stream("count", 1_000_000) as stream:
        next(stream)
        eventually(lambda: [info.streaming for info in bus.endpoints()] == [1, 0, 0])
    eventually(lambda: [info.streaming for info in bus.endpoints()] == [0, 0, 0])


def test_a_timeout_says_how_many_parts_had_come(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    gate = threading.Event()

    @server.handle("slow")
    def slow(message: shmbus.Message) -> Iterator[int]:
        yield from range(3)
        gate.wait(60)

    server.start()
    stream = client.stream("slow", timeout=0.1)
    assert [next(stream).payload for _ in range(3)] == [0, 1, 2]
    with pytest.raises(errors.RequestTimeout, match="no part after 3 of the reply to") as caught:
        next(stream)
    assert (caught.value.parts, caught.value.endpoint, caught.value.begun) == (3, "server", True)
    gate.set()


def test_nobody_handles_it(bus: shmbus.Bus, attach: Attach) -> None:
    with pytest.raises(errors.NoRoute):
        next(attach("client").stream("nobody"))


PARTS = st.lists(
    st.one_of(
        st.none(),
        st.integers(-(2**63), 2**63 - 1),
        st.text(max_size=20),
        st.integers(0, 60_000).map(bytes),
        st.lists(st.booleans(), max_size=5),
    ),
    max_size=40,
)


class Asked(NamedTuple):
    """What a handler yields, and what becomes of that."""

    parts: list[object]
    raises: bool
    taken: int
    """By the reader, before it breaks off; more than there are: all."""


@given(asked=st.lists(st.builds(Asked, PARTS, st.booleans(), st.integers(0, 45)), max_size=4))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_is_yielded_comes_in_order_and_ends_once(
    bus: shmbus.Bus, asked: list[Asked]
) -> None:
    with bus.attach("server") as server, bus.attach("client") as client:

        @server.handle("parts")
        def parts(message: shmbus.Message) -> Iterator[object]:
            what = asked[message.payload]
            yield from what.parts
            if what.raises:
                raise ValueError("enough")

        server.start()
        streams = [client.stream("parts", number) for number in range(len(asked))]
        for stream, what in zip(streams, asked, strict=True):  # others are under way meanwhile
            got = [part.payload for part in islice(stream, min(what.taken, len(what.parts)))]
            assert got == what.parts[: what.taken]
            if what.taken <= len(what.parts):
                stream.close()
            elif what.raises:
                with pytest.raises(errors.RemoteError, match="enough"):
                    next(stream)
            assert list(stream) == []
        eventually(lambda: server._deferred() == 0)


def test_a_part_that_takes_long_to_encode_has_the_memory_of_a_kept_value(
    bus: shmbus.Bus, attach: Attach
) -> None:
    encoded = []

    def encode(value: object) -> bytes:
        encoded.append(value)
        time.sleep(0.02)
        return bytes(600_000)

    small = shmbus.Settings(pool_bytes=1_000_000)
    server, client = attach("server", settings=small, encode=encode), attach("client")

    @server.handle("parts")
    def parts(message: shmbus.Message) -> Iterator[object]:
        yield object()

    def waits() -> int:
        return next(pool.waits for pool in bus.pools() if pool.endpoint == "server")

    server.publish("kept", bytes(500_000), retain=True)
    before = waits()
    server.start()
    assert [len(part.payload) for part in client.stream("parts", timeout=30)] == [600_000]
    assert len(encoded) == 1
    assert waits() == before + 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_part_that_waits_for_memory_holds_up_nobody(
    bus: shmbus.Bus, attach: Attach, threads: int
) -> None:
    server = attach("server", settings=shmbus.Settings(pool_bytes=1_000_000))
    client = attach("client")
    server.handle("echo", lambda message: message.payload)

    @server.handle("parts")
    def parts(message: shmbus.Message) -> Iterator[bytes]:
        for _ in range(4):
            yield bytes(400_000)

    others = thread_times().keys()  # also those of the dispatcher
    server.start(threads=threads)
    with server.loan("x", 900_000) as loan, concurrent.futures.ThreadPoolExecutor() as pool:
        streams = [client.stream("parts", timeout=60) for _ in range(3)]
        taken = [pool.submit(parts_of, stream) for stream in streams]
        eventually(lambda: any(p.waiting for p in bus.pools() if p.endpoint == "server"))
        for n in range(20):
            assert client.request("echo", n, timeout=30).payload == n
        before = thread_times()
        time.sleep(0.2)
        used = [
            now - before.get(one, 0.0) for one, now in thread_times().items() if one not in others
        ]
        assert max(used) < 0.1  # they sleep
        assert not any(one.done() for one in taken)
        loan.discard()
        assert [one.result(60) for one in taken] == [[bytes(400_000)] * 4] * 3
