"""Replies in parts: a handler that yields streams its reply."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import eventually
from shmbus.testing.fixtures import Attach


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
    with pytest.raises(errors.RemoteError, match=r"ask with stream\(\), not with request\(\)"):
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
