"""`Endpoint.fileno()`: any event loop sees when there is something to receive."""

from __future__ import annotations

import os
import resource
import select
import selectors
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import shmbus
from shmbus import Bus, Endpoint, errors
from shmbus.testing import TIMEOUT, BusProcess, StartWorker, eventually, run_python


def by_select(endpoint: Endpoint, timeout: float) -> bool:
    return bool(select.select([endpoint], [], [], timeout)[0])


def by_poll(endpoint: Endpoint, timeout: float) -> bool:
    poll = select.poll()
    poll.register(endpoint, select.POLLIN)
    return bool(poll.poll(1e3 * timeout))


def by_epoll(endpoint: Endpoint, timeout: float) -> bool:
    with select.epoll() as epoll:
        epoll.register(endpoint, select.EPOLLIN)
        return bool(epoll.poll(timeout))


def by_selectors(endpoint: Endpoint, timeout: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(endpoint, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def readable(endpoint: Endpoint) -> bool:
    return by_select(endpoint, 0)


def awaited(endpoint: Endpoint) -> bool:
    return by_select(endpoint, TIMEOUT)


def payloads(endpoint: Endpoint) -> list[object]:
    """What a loop takes when it finds the endpoint readable."""
    found = []
    while (message := endpoint.receive(0)) is not None:
        found.append(message.payload)
    return found


@pytest.mark.smoke
@pytest.mark.parametrize("way", [by_select, by_poll, by_epoll, by_selectors])
def test_it_is_readable_while_something_waits_to_be_received(
    bus: Bus, way: Callable[[Endpoint, float], bool]
) -> None:
    with bus.attach("loop") as loop, bus.attach("other") as other:
        assert not way(loop, 0)
        loop.subscribe("x")
        assert not way(loop, 0)
        for number in range(3):
            other.publish("x", number)
            assert way(loop, TIMEOUT)
            assert payloads(loop) == [number]
            assert not way(loop, 0)
        other.publish_many([("x", 3), ("x", 4)])
        assert way(loop, TIMEOUT)
        message = loop.receive(TIMEOUT)
        assert message is not None
        assert way(loop, 0)
        assert payloads(loop) == [4]


def test_what_waits_when_it_is_first_asked_for_counts(bus: Bus) -> None:
    with bus.attach("loop") as loop:
        loop.subscribe("x")
        loop.publish("x", 1)
        eventually(loop._data_waits)
        assert readable(loop)
        assert payloads(loop) == [1]
        assert not readable(loop)


def test_an_edge_comes_with_the_first_message_after_nothing_was_found(bus: Bus) -> None:
    with bus.attach("loop") as loop, bus.attach("other") as other, select.epoll() as epoll:
        loop.subscribe("x")
        epoll.register(loop, select.EPOLLIN | select.EPOLLET)
        epoll.poll(0)
        payloads(loop)
        assert epoll.poll(0) == []
        found: list[object] = []
        for number in range(100):
            other.publish("x", number)
            while number not in found:
                assert epoll.poll(TIMEOUT)
                other.publish("x", "behind it")
                found += payloads(loop)


def test_callbacks_and_handlers_run_in_the_loop_that_receives(bus: Bus) -> None:
    with bus.attach("loop") as loop, bus.attach("other") as other:
        ran: list[int] = []
        loop.handle("double", lambda message: 2 * message.payload)
        loop.subscribe("x", lambda message: ran.append(threading.get_ident()))
        loop.fileno()
        future = other.request_async("double", 21)
        assert awaited(loop)
        assert loop.receive(0) is None
        assert future.result(TIMEOUT).payload == 42
        other.publish("x")
        assert awaited(loop)
        assert loop.receive(0) is None
        assert ran == [threading.get_ident()]
        assert not readable(loop)


@pytest.mark.parametrize("how", ["evicted", "the bus ends", "it is left to a successor"])
def test_it_is_readable_where_receiving_raises(bus: Bus, how: str) -> None:
    with bus.attach("loop") as loop:
        assert not readable(loop)
        if how == "evicted":
            bus.evict("loop")
        else:
            bus.close(handover=how == "it is left to a successor")
        assert awaited(loop)
        for _ in range(2):
            with pytest.raises(errors.Evicted if how == "evicted" else errors.BusDown):
                loop.receive(0)
            assert readable(loop)
    bus.close()
    shmbus.serve(bus.name).close()


@pytest.mark.slow
def test_who_waits_for_the_next_dispatcher_is_told_of_what_comes_by_that(
    bus_name: str, bus_process: BusProcess
) -> None:
    with (
        shmbus.attach(bus_name, reconnect=True) as loop,
        shmbus.attach(bus_name) as impatient,
    ):
        loop.subscribe("x")
        loop.fileno()
        assert not readable(impatient)
        bus_process.kill()
        assert awaited(impatient)
        with pytest.raises(errors.BusDown):
            impatient.receive(0)
        bus_process.start()
        with shmbus.attach(bus_name) as other:
            other.publish("x", 1)
        found: list[object] = []
        while not found:
            assert awaited(loop)
            found = payloads(loop)
        assert found == [1]


def test_other_threads_may_receive_too_and_nothing_is_overlooked(bus: Bus) -> None:
    count = 3000
    with bus.attach("loop") as loop, bus.attach("other") as other:
        loop.subscribe("x")
        loop.fileno()
        taken: list[object] = []
        done = threading.Event()

        def take() -> None:
            while not done.is_set():
                message = loop.receive(0.001)
                if message is not None:
                    taken.append(message.payload)

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()

        def send() -> None:
            for number in range(count):
                other.publish("x", number)

        sender = threading.Thread(target=send)
        sender.start()
        while len(taken) < count:
            if by_select(loop, 0.01):
                taken += payloads(loop)
        done.set()
        for thread in (*threads, sender):
            thread.join()
        assert sorted(taken) == list(range(count))  # type: ignore[type-var]
        assert payloads(loop) == []
        assert not readable(loop)
        other.publish("x")
        assert awaited(loop)


def test_a_closed_endpoint_has_no_descriptor_and_can_be_unregistered(bus: Bus) -> None:
    with selectors.DefaultSelector() as selector:
        endpoint = bus.attach("loop")
        assert endpoint.fileno() == endpoint.fileno()
        selector.register(endpoint, selectors.EVENT_READ)
        endpoint.close()
        assert endpoint.fileno() == -1
        selector.unregister(endpoint)
    never_asked = bus.attach("other")
    never_asked.close()
    assert never_asked.fileno() == -1


def test_a_forked_child_gets_none(bus: Bus, bus_name: str) -> None:
    code = """
import os, select, sys, warnings, shmbus
warnings.simplefilter("ignore")  # from 3.12 on, of forking beside threads
with shmbus.attach(sys.argv[1]) as endpoint:
    endpoint.subscribe("x")
    descriptor = endpoint.fileno()
    if (child := os.fork()) == 0:
        try:
            endpoint.fileno()
        except shmbus.errors.ForkedEndpoint as error:
            print(type(error).__name__)
        try:
            os.fstat(descriptor)
        except OSError:
            print("closed")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    endpoint.publish("x", "still here")
    select.select([endpoint], [], [])
    print(endpoint.receive(0).payload)
"""
    assert run_python(code, bus_name).split("\n") == ["ForkedEndpoint", "closed", "still here", ""]


@pytest.mark.bus(stall_after=0.05)
def test_a_loop_that_does_not_come_for_what_waits_is_shown(bus: Bus) -> None:
    with bus.attach("loop") as loop:
        assert not bus.endpoints()[0].looped
        loop.fileno()
        assert bus.endpoints()[0].looped
        loop.subscribe("x")
        loop.publish("x")
        (reason,) = eventually(lambda: bus.health().reasons)
        assert "stalled: 1 messages wait" in reason
        assert "see where it is blocked" in reason


def events_here() -> int:
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += "eventfd" in os.readlink(file)
    return count


def watch(endpoint: Endpoint) -> None:
    endpoint.subscribe("x")
    endpoint.fileno()
    endpoint.publish("ready")
    threading.Event().wait()


def test_the_dispatcher_goes_on_where_the_owner_of_an_event_dies_and_closes_it(
    bus: Bus, worker: StartWorker
) -> None:
    with bus.attach("me") as me:
        me.subscribe("ready")
        before = events_here()
        watcher = worker(watch)
        assert me.receive(TIMEOUT) is not None
        assert events_here() == before + 1
        watcher.kill()
        for _ in range(100):
            me.publish("x")
        eventually(lambda: [info.name for info in bus.endpoints()] == ["me"])
        eventually(lambda: events_here() == before)
        me.subscribe("y")
        me.publish("y", "goes on")
        message = me.receive(TIMEOUT)
        assert message is not None
        assert message.payload == "goes on"


def test_no_descriptor_is_left_for_it(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    with bus.attach("loop") as loop:
        lowest = os.dup(0)
        os.close(lowest)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(errors.NoResource, match="descriptor to wait at"):
                loop.fileno()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not readable(loop)
