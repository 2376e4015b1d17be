"""Replies in parts, and the ends of those who have to do with them."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import Attach, BusProcess, StartWorker, eventually

from .test_streams import Counter, parts_of


def count(endpoint: shmbus.Endpoint, closed: str = "") -> None:
    """A worker: counts to what it is asked for; says `closed` where its generator is closed."""

    @endpoint.handle("count")
    def parts(message: shmbus.Message) -> Iterator[int]:
        try:
            yield from range(message.payload)
        finally:
            if closed:
                endpoint.publish(closed)

    endpoint.run()


def read_one(endpoint: shmbus.Endpoint) -> None:
    """A worker: reads one part of many, and no more."""
    stream = endpoint.stream("count", 10_000_000)
    next(stream)
    endpoint.publish("read")
    time.sleep(600)


def test_the_death_of_the_server_comes_behind_the_parts_that_had_come(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    server, client = worker(count, name="server"), attach("client")
    client.wait_for("count")
    stream = client.stream("count", 10_000_000)
    got = [next(stream).payload for _ in range(1000)]
    server.kill()
    with pytest.raises(errors.EndpointDied) as caught:
        got.extend(part.payload for part in stream)
    assert got == list(range(len(got)))
    assert (caught.value.endpoint, caught.value.begun) == ("server", True)
    assert list(stream) == []


def test_the_death_of_the_reader_closes_the_generator(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    server = attach("server")
    read = threading.Event()
    server.subscribe("read", lambda message: read.set())
    counter = Counter(server)
    server.start()
    reader = worker(read_one)
    assert read.wait(20.0)
    assert not counter.closed.is_set()
    reader.kill()
    assert counter.closed.wait(10.0)
    eventually(lambda: server._deferred() == 0)


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_where_the_dispatcher_dies(
    bus_process: BusProcess, attach: Attach
) -> None:
    server, client = attach("server"), attach("client", reconnect=True)
    Counter(server)
    server.start()
    total = 60_000
    with client.stream("count", total, timeout=60) as stream:
        for number in range(total):
            assert next(stream).payload == number
            if number in (1_000, 20_000, 40_000):
                bus_process.restart()
        assert list(stream) == []


def test_whoever_breaks_off_while_there_is_no_dispatcher_is_heard_by_the_next(
    bus_process: BusProcess, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.start()
    stream = client.stream("count", 10_000_000)
    next(stream)
    bus_process.kill()
    stream.close()
    bus_process.start()
    assert counter.closed.wait(20.0)


def test_drain_goes_on_until_the_reader_has_all(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    Counter(server)
    server.start()
    stream = client.stream("count", 50_000)
    assert next(stream).payload == 0
    draining = threading.Thread(target=server.drain)
    draining.start()
    eventually(lambda: [info.state for info in bus.endpoints()] == ["leaving", "attached"])
    assert parts_of(stream) == list(range(1, 50_000))
    draining.join(20.0)
    assert not draining.is_alive()


def test_drain_ends_by_its_timeout_where_the_reader_takes_nothing(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.start()
    stream = client.stream("count", 10_000_000)
    assert next(stream).payload == 0
    with pytest.raises(errors.DrainTimeout):
        server.drain(0.2)
    assert counter.closed.is_set()
    with pytest.raises(errors.EndpointDied):
        list(stream)


def test_closing_the_server_closes_its_generators_and_ends_the_stream(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.start()
    stream = client.stream("count", 10_000_000)
    first = next(stream).payload
    server.close()
    assert counter.closed.is_set()
    got = [first]
    with pytest.raises(errors.EndpointDied) as caught:
        got.extend(part.payload for part in stream)
    assert got == list(range(len(got)))
    assert caught.value.reason == "detached"


def test_closing_the_reader_ends_the_stream_there_and_closes_the_generator(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.start()
    stream = client.stream("count", 10_000_000)
    next(stream)
    client.close()
    with pytest.raises(errors.EndpointClosed):
        for _ in stream:
            pass
    assert counter.closed.wait(10.0)


def test_whoever_closes_the_endpoint_ends_the_wait_for_a_part(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    ended = threading.Event()

    @server.handle("never")
    def never(message: shmbus.Message) -> Iterator[int]:
        ended.wait(60)
        yield 1

    server.start()
    stream = client.stream("never", timeout=None)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            next(stream)
        except BaseException as why:
            raised.append(why)

    thread = threading.Thread(target=read)
    thread.start()
    eventually(lambda: [info.in_hand for info in bus.endpoints()] == [1, 0])
    client.close()
    thread.join(20.0)
    assert type(raised[0]) is errors.EndpointClosed
    ended.set()


def test_another_thread_that_closes_the_stream_ends_the_wait(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    ended = threading.Event()

    @server.handle("never")
    def never(message: shmbus.Message) -> Iterator[int]:
        ended.wait(60)
        yield 1

    server.start()
    stream = client.stream("never", timeout=None)
    threading.Timer(0.05, stream.close).start()
    assert list(stream) == []
    ended.set()


def test_an_evicted_server_closes_its_generators(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    counter = Counter(server)
    server.start()
    stream = client.stream("count", 10_000_000)
    next(stream)
    bus.evict("server")
    with pytest.raises(errors.EndpointDied) as caught:
        list(stream)
    assert caught.value.reason == "evicted"
    assert counter.closed.wait(10.0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_no_part_in_it(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    Counter(server)
    server.start()
    stream = client.stream("count", 1000)
    next(stream)
    child = os.fork()
    if not child:
        code = 1
        try:
            next(stream)
        except errors.ForkedEndpoint:
            stream.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert parts_of(stream) == list(range(1, 1000))
