"""Whoever works on a request learns when nobody waits for its reply any more."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Never

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.testing import Attach, BusProcess, StartWorker, eventually
from shmbus.views.facts import EndpointInfo
from tests.kept import Kept


def kept_by(server: shmbus.Endpoint, type: str = "ask") -> Kept:
    """The requests that this server, which runs from here on, has in hand."""
    kept = Kept()
    server.handle(type, kept)
    server.start()
    return kept


def info(bus: shmbus.Bus | shmbus.BusView, name: str) -> EndpointInfo:
    return next(one for one in bus.endpoints() if one.name == name)


@pytest.mark.smoke
def test_a_handler_at_work_sees_that_its_request_was_withdrawn(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    begun, seen = threading.Event(), threading.Event()

    @server.handle("compute")
    def compute(message: Message) -> str:
        begun.set()
        eventually(lambda: message.cancelled)
        seen.set()
        return "too late"

    server.handle("echo", lambda message: message.payload)
    server.start()
    future = client.request_async("compute", timeout=None)
    assert begun.wait(60)
    assert future.cancel()
    assert seen.wait(60)
    assert client.request("echo", 1, timeout=60).payload == 1
    eventually(lambda: bus.health().orphans == 1)  # the late reply
    assert (bus.health().cancels, bus.health().cancels_lost) == (1, 0)


def test_other_requests_are_not_cancelled_with_it(bus: shmbus.Bus, attach: Attach) -> None:
    client, kept = attach("client"), kept_by(attach("server"))
    futures = [client.request_async("ask", n, timeout=None) for n in range(20)]
    eventually(lambda: len(kept) == 20)
    for future in futures[::2]:
        future.cancel()
    eventually(lambda: sum(message.cancelled for message in kept) == 10)
    assert [message.cancelled for message in kept] == [n % 2 == 0 for n in range(20)]
    for message in kept[1::2]:
        message.reply(message.payload)
    assert [future.result(60).payload for future in futures[1::2]] == list(range(1, 20, 2))


def test_what_was_not_begun_is_not_begun_any_more(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    begun: list[object] = []
    server.handle("ask", lambda message: begun.append(message.payload))
    futures = [client.request_async("ask", n, timeout=None) for n in range(10)]
    eventually(lambda: info(bus, "server").untouched == 10)
    for future in futures[:9]:
        future.cancel()
    eventually(lambda: info(bus, "client").outgoing.depth == 0)
    server.start()
    assert futures[9].result(60).payload is None
    assert begun == [9]
    assert info(bus, "server").withdrawn == 9
    assert info(bus, "server").expired == 0


@pytest.mark.bus(prefetch=1)
def test_what_waits_until_somebody_is_free_is_dropped(bus: shmbus.Bus, attach: Attach) -> None:
    servers, client = [attach("a"), attach("b")], attach("client")
    begun: list[object] = []
    for server in servers:
        server.handle("ask", lambda message: begun.append(message.payload))
    futures = [client.request_async("ask", n, timeout=None) for n in range(6)]
    eventually(lambda: sum(backlog.waiting for backlog in bus.backlogs()) == 4)
    for future in futures[:5]:
        future.cancel()
    eventually(lambda: info(bus, "client").outgoing.depth == 0)
    for server in servers:
        server.start()
    assert futures[5].result(60).payload is None
    assert begun == [5]


def test_a_timeout_withdraws_the_request(bus: shmbus.Bus, attach: Attach) -> None:
    client, kept = attach("client"), kept_by(attach("server"))
    future = client.request_async("ask", timeout=0.05)
    eventually(lambda: kept)
    with pytest.raises(errors.RequestTimeout):
        future.result()
    assert kept[0].cancelled
    with pytest.raises(errors.RequestTimeout):
        client.request("ask", timeout=0.05)
    eventually(lambda: all(message.cancelled for message in kept))


def test_what_a_handler_returns_or_raises_once_it_sees_the_deadline_is_no_answer(
    bus: shmbus.Bus, attach: Attach
) -> None:
    client, server = attach("client"), attach("server")

    def until_cancelled(message: Message) -> None:
        while not message.cancelled:
            pass

    @server.handle("raise")
    def end(message: Message) -> None:
        until_cancelled(message)
        raise InterruptedError

    server.handle("return", until_cancelled)
    server.start()
    for type in ("return", "raise") * 3:
        with pytest.raises(errors.RequestTimeout):
            client.request(type, timeout=0.02)


def test_closing_the_iterator_of_many_requests_withdraws_those_under_way(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    server.handle("echo", lambda message: message.payload)
    kept = kept_by(server)
    asked = [("echo", 0), *(("ask", n) for n in range(5))]
    replies = client.request_many(asked, timeout=None, window=6)
    assert isinstance(next(replies), Message)
    eventually(lambda: len(kept) == 5)
    assert not any(message.cancelled for message in kept)
    del replies
    eventually(lambda: all(message.cancelled for message in kept))


def test_an_exception_of_a_signals_handler_withdraws_the_request(
    bus: shmbus.Bus, attach: Attach
) -> None:
    client, kept = attach("client"), kept_by(attach("server"))

    class Enough(Exception):
        pass

    def stop(number: int, frame: FrameType | None) -> Never:
        raise Enough

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Enough):
            client.request("ask", timeout=None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    eventually(lambda: kept and kept[0].cancelled)


def ask_for_ever(endpoint: shmbus.Endpoint) -> None:
    endpoint.request("ask", timeout=None)


def test_a_requester_that_closes_or_dies_waits_for_nothing(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    client, kept = attach("client"), kept_by(attach("server"))
    client.request_async("ask", timeout=None)
    dying = worker(ask_for_ever, name="dying")
    eventually(lambda: len(kept) == 2)
    assert not any(message.cancelled for message in kept)
    dying.kill()
    eventually(lambda: [m.cancelled for m in kept] == [m.source == "dying" for m in kept])
    client.close()
    assert all(message.cancelled for message in kept)


def test_nobody_waits_for_a_handler_that_has_taken_longer_than_its_limit(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    ended = threading.Event()

    def overdue(message: Message) -> None:
        eventually(lambda: message.cancelled)
        ended.set()

    server.handle("ask", overdue, limit=0.05)
    server.start()
    with pytest.raises(errors.HandlerTimeout):
        client.request("ask", timeout=None)
    assert ended.wait(60)


def test_what_is_no_request_is_not_cancelled(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    events: list[Message] = []
    endpoint.subscribe("event", events.append)
    endpoint.handle("echo", lambda message: message.cancelled)
    endpoint.start()
    endpoint.publish("event")
    eventually(lambda: events)
    assert not events[0].cancelled
    reply = attach("client").request("echo", timeout=60)
    assert reply.payload is False
    assert not reply.cancelled


def test_an_answered_request_is_not_withdrawn(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    messages: list[Message] = []
    server.handle("ask", messages.append)
    server.start()
    future = client.request_async("ask", timeout=60)
    assert future.result(60).payload is None
    assert not future.cancel()
    assert not messages[0].cancelled


@pytest.mark.bus(in_bytes=16384, out_bytes=16384, block_timeout=3600)
def test_where_there_is_no_space_the_server_learns_it_later(
    bus_process: BusProcess, attach: Attach
) -> None:
    client, server = attach("client"), attach("server")
    server.handle("echo", lambda message: message.payload)
    kept = kept_by(server)
    replies = client.request_many([("echo", 0), *[("ask", 1)] * 4], timeout=None, window=5)
    next(replies)
    eventually(lambda: len(kept) == 4)
    bus_process.pause()
    with pytest.raises(errors.QueueFull):
        client.publish_many([("x", None)] * 1000, timeout=0)
    del replies  # which does not wait
    assert not any(message.cancelled for message in kept)
    bus_process.resume()
    eventually(lambda: all(message.cancelled for message in kept))  # and nobody calls there


@pytest.mark.bus(
    max_requests=2, in_bytes=16384, out_bytes=16384, reply_bytes=16384, block_timeout=3600
)
def test_a_full_ring_keeps_no_request_from_its_entry(
    bus_process: BusProcess, attach: Attach
) -> None:
    client, kept = attach("client"), kept_by(attach("server"))
    futures = [client.request_async("ask", n, timeout=None) for n in range(2)]
    eventually(lambda: len(kept) == 2)
    bus_process.pause()
    with pytest.raises(errors.QueueFull):
        client.publish_many([("x", None)] * 1000, timeout=0)
    for future in futures:
        assert future.cancel()
    with pytest.raises(errors.BusError) as caught:
        client.request("ask", timeout=0.01)
    bus_process.resume()
    assert isinstance(caught.value, errors.QueueFull)  # not RequestsFull
    assert client.request_async("ask", timeout=60).cancel()


def test_a_server_is_told_by_the_next_dispatcher(bus_process: BusProcess, attach: Attach) -> None:
    client, server = attach("client", reconnect=True), attach("server", reconnect=True)
    kept = kept_by(server)
    futures = [client.request_async("ask", n, timeout=None) for n in range(3)]
    eventually(lambda: len(kept) == 3)
    bus_process.kill()
    assert futures[0].cancel()
    bus_process.start()
    eventually(lambda: kept[0].cancelled)
    for message in kept[1:]:
        assert not message.cancelled
        message.reply()
    assert all(future.result(60).payload is None for future in futures[1:])


def test_who_asks_for_cancelled_requests_gets_their_ids(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    kept = kept_by(server)
    futures = [client.request_async("ask", n, timeout=None) for n in range(3)]
    eventually(lambda: len(kept) == 3)
    assert server._requests.take_cancelled() == []
    for future in futures:
        future.cancel()
    found: list[bytes] = []

    def all_have_come() -> bool:
        found.extend(server._requests.take_cancelled())
        return len(found) == 3

    eventually(all_have_come)
    assert found == [message.correlation_id.bytes for message in kept if message.correlation_id]
    assert server._requests.take_cancelled() == []
