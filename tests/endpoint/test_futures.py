"""Futures of requests: whoever waits collects, and what a caller does to one hangs no other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Iterator
from functools import partial

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.endpoint._kernel import PendingReply
from shmbus.testing import Attach, BusProcess, eventually, run_python
from tests.in_time import in_time
from tests.kept import Kept


@pytest.fixture
def client(bus: shmbus.Bus, attach: Attach) -> shmbus.Endpoint:
    """Of a server that answers `echo` and keeps `never`."""
    server = attach("server")
    server.handle("echo", lambda message: message.payload)
    server.handle("never", Kept())
    server.handle("wrong", lambda message: 1 / 0)
    server.start()
    return attach("client")


@pytest.mark.smoke
def test_a_future_whose_lock_was_left_taken_hangs_nobody(client: shmbus.Endpoint) -> None:
    left = client.request_async("never", timeout=0.05)
    left._condition.acquire()  # as a signal's handler that raises can leave it
    assert isinstance(in_time(lambda: left.exception(30)), errors.RequestTimeout)
    told: list[object] = []
    left.add_done_callback(told.append)
    answered = client.request_async("echo", 1, timeout=60)
    answered.add_done_callback(told.append)
    assert in_time(lambda: client.request_async("echo", 2, timeout=60).result(30)).payload == 2
    eventually(lambda: len(told) == 2)
    done, _ = in_time(lambda: concurrent.futures.wait([answered], 30))
    assert done == {answered}
    in_time(client.close)


def test_an_exit_ends_with_a_future_whose_lock_was_left_taken(bus: shmbus.Bus) -> None:
    code = """
        import sys, threading, shmbus
        ep = shmbus.attach(sys.argv[1])
        kept = []
        ep.handle("never", lambda message: (message.defer(), kept.append(message))[0])
        ep.start()
        future = ep.request_async("never", timeout=None)
        threading.Thread(target=future._condition.acquire).start()
        future.add_done_callback(lambda future: print("told\\n", end=""))  # in one write
        print("over")
    """
    assert run_python(code, bus.name) == "over\ntold\n"


def test_a_callback_that_hangs_keeps_no_result_and_no_close(client: shmbus.Endpoint) -> None:
    go = threading.Event()
    client.request_async("echo", timeout=60).add_done_callback(lambda future: go.wait(60))
    assert client.request_async("echo", 1, timeout=60).result(30).payload == 1
    with pytest.raises(errors.RequestTimeout):
        client.request_async("never", timeout=0.01).result(30)
    in_time(client.close)
    go.set()


def test_futures_are_those_of_concurrent_futures(client: shmbus.Endpoint) -> None:
    futures = [client.request_async("echo", n, timeout=60) for n in range(5)]
    assert all(isinstance(future, concurrent.futures.Future) for future in futures)
    answered = {f.result().payload for f in concurrent.futures.as_completed(futures, 60)}
    assert answered == set(range(5))
    done, waiting = concurrent.futures.wait(futures, 60)
    assert (len(done), waiting) == (5, set())
    late = client.request_async("never", timeout=60)
    done, waiting = concurrent.futures.wait([late, *futures[:1]], 0.01)
    assert (done, waiting) == ({futures[0]}, {late})
    first = client.request_async("echo", timeout=60)
    done, _ = concurrent.futures.wait([late, first], 60, concurrent.futures.FIRST_COMPLETED)
    assert done == {first}
    failed = client.request_async("wrong", timeout=60)
    done, _ = concurrent.futures.wait([late, failed], 60, concurrent.futures.FIRST_EXCEPTION)
    assert done == {failed}
    assert isinstance(failed.exception(), errors.RemoteError)
    with pytest.raises(TimeoutError):
        late.result(0.01)
    assert late.cancel()
    assert late.cancelled()
    assert late.done()
    assert concurrent.futures.wait([late], 60).done == {late}
    with pytest.raises(concurrent.futures.CancelledError):
        late.result()
    assert not first.cancel()


def test_a_future_gives_the_same_result_and_the_same_error_each_time(
    client: shmbus.Endpoint,
) -> None:
    future = client.request_async("echo", 1, timeout=60)
    assert future.result(60) is future.result(0)
    failed = client.request_async("wrong", timeout=60)
    assert failed.exception(60) is failed.exception(0)


def test_a_future_can_be_awaited(client: shmbus.Endpoint) -> None:
    async def ask() -> list[int]:
        futures = [client.request_async("echo", n, timeout=60) for n in range(10)]
        replies = await asyncio.gather(*map(asyncio.wrap_future, futures))
        return [reply.payload for reply in replies]

    assert asyncio.run(ask()) == list(range(10))


def test_many_threads_may_wait_for_one_future(client: shmbus.Endpoint) -> None:

    def ask(future: concurrent.futures.Future[Message[int]], answers: list[int]) -> None:
        answers.append(future.result(60).payload)

    for n in range(100):
        future = client.request_async("echo", n, timeout=60)
        answers: list[int] = []
        threads = [threading.Thread(target=ask, args=(future, answers)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert answers == [n] * 3


def test_who_waits_for_a_future_is_told_that_another_gave_it_up(client: shmbus.Endpoint) -> None:
    future = client.request_async("never", timeout=60)
    ended: list[str] = []

    def ask() -> None:
        try:
            future.result(60)
        except concurrent.futures.CancelledError:
            ended.append("cancelled")

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: client.bus.endpoints()[0].in_hand == 1)
    future.cancel()
    thread.join(60)
    assert ended == ["cancelled"]


@pytest.mark.bus(block_timeout=0.5)
def test_large_replies_come_while_nobody_waits(bus_process: BusProcess, attach: Attach) -> None:
    """They are more than the reply ring holds, and the caller computes meanwhile."""
    server, client, idle = attach("server"), attach("client"), attach("idle")
    server.handle("large", lambda message: bytes(60_000))
    server.start()
    for _ in range(3):
        futures = [client.request_async("large", timeout=60) for _ in range(60)]
        eventually(lambda: client.bus.endpoints()[1].pending == 0)
        assert {future.result(0).size for future in futures} == {60_000}
        assert idle.receive(0.2) is None  # for a while the client has nothing to attend to


def test_a_future_that_nobody_waits_for_frees_its_place(
    bus: shmbus.Bus, attach: Attach, client: shmbus.Endpoint
) -> None:
    small = attach("small", settings=shmbus.Settings(max_requests=2))
    for n in range(20):
        small.request_async("echo", n, timeout=60)
    for _ in range(2):
        small.request_async("never", timeout=0.01)
    assert small.request("echo", 1, timeout=60).payload == 1


@pytest.mark.slow
def test_a_request_waits_its_timeout_once(bus_process: BusProcess) -> None:
    """First for an entry in the table, then for room in its ring."""
    settings = shmbus.Settings(max_requests=1, in_bytes=4096, out_bytes=4096, reply_bytes=4096)
    ended: list[str] = []

    def expect(name: str, ep: shmbus.Endpoint, timeout: float) -> None:
        with pytest.raises(errors.NotAccepted):
            ep.request("never", bytes(500), timeout=timeout)
        ended.append(name)

    with (
        shmbus.attach(bus_process.name, name="twice", settings=settings) as twice,
        shmbus.attach(bus_process.name, name="once", settings=settings) as once,
    ):
        bus_process.pause()
        for ep in (twice, once):
            ep.request_async("never", timeout=None if ep is once else 1.5)
            with contextlib.suppress(errors.QueueFull):
                while True:
                    ep.publish("x", bytes(500), timeout=0)
        threads = [
            threading.Thread(target=expect, args=("twice", twice, 2.0)),
            threading.Thread(target=expect, args=("once", once, 2.8)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        bus_process.resume()
    assert ended == ["twice", "once"]


@pytest.mark.smoke
def test_many_requests_are_answered_in_their_order(client: shmbus.Endpoint) -> None:
    replies = client.request_many((("echo", n) for n in range(2000)), timeout=60)
    payloads = []
    for reply in replies:
        assert not isinstance(reply, errors.BusError)
        payloads.append(reply.payload)
    assert payloads == list(range(2000))


def test_of_many_requests_each_has_its_own_error(client: shmbus.Endpoint) -> None:
    items: list[tuple[str, object]] = [
        ("echo", 1),
        ("wrong", None),
        ("nobody", None),
        ("echo", object()),
        ("bad..type", None),
        ("never", None),
        ("echo", 2),
    ]
    kinds = [type(reply) for reply in client.request_many(items, timeout=0.5)]
    assert kinds == [
        Message,
        errors.RemoteError,
        errors.NoRoute,
        errors.EncodeError,
        errors.InvalidType,
        errors.RequestTimeout,
        Message,
    ]


def test_many_requests_keep_to_their_window(
    bus: shmbus.Bus, attach: Attach, client: shmbus.Endpoint
) -> None:
    taken = 0

    def items() -> Iterator[tuple[str, object]]:
        nonlocal taken
        for n in range(100):
            taken += 1
            yield "echo", n

    for count, _ in enumerate(client.request_many(items(), timeout=60, window=4), 1):
        assert taken - count <= 4
    assert taken == 100
    with pytest.raises(errors.InvalidSetting):
        client.request_many([], window=0)
    assert list(client.request_many([])) == []


def test_many_requests_that_are_given_up_leave_their_places(client: shmbus.Endpoint) -> None:
    replies = client.request_many((("never", n) for n in range(10)), timeout=0.01)
    assert isinstance(next(replies), errors.RequestTimeout)
    del replies
    assert client.request("echo", timeout=60).payload is None
    eventually(lambda: client.bus.endpoints()[1].pending == 0)


def test_while_one_reply_is_worked_on_the_next_requests_are_under_way(
    attach: Attach, client: shmbus.Endpoint
) -> None:
    begun: list[object] = []
    other = attach("other")
    other.handle("count", lambda message: begun.append(message.payload))
    other.start()
    replies = client.request_many((("count", n) for n in range(10)), timeout=60, window=8)
    next(replies)

    def all_have_come() -> bool:
        (server,) = client.bus.find("count")
        return server.sent.replies == 8 and server.outgoing_replies.depth == 0

    eventually(all_have_come)
    for _ in range(4):  # of which none has to wait
        next(replies)
    eventually(lambda: begun == list(range(10)))
    assert len(list(replies)) == 5


def test_what_the_items_of_many_requests_raise_comes_after_the_replies(
    client: shmbus.Endpoint,
) -> None:
    def items() -> Iterator[tuple[str, object]]:
        yield "echo", 1
        yield "echo", 2
        raise ValueError("no more")

    replies = client.request_many(items(), timeout=60)
    assert [getattr(next(replies), "payload", None) for _ in range(2)] == [1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(replies)


def test_futures_fail_when_the_bus_goes_down(bus_process: BusProcess, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.handle("never", Kept())
    server.start()
    told: list[object] = []
    futures = [client.request_async("never", timeout=60) for _ in range(3)]
    futures[0].add_done_callback(told.append)
    eventually(lambda: client.bus.find("never")[0].in_hand == 3)
    bus_process.kill()
    for future in futures[:2]:
        assert isinstance(in_time(partial(future.exception, 30)), errors.BusDown)
    eventually(lambda: told)
    eventually(futures[2].done)


def holder_of(reply: object) -> tuple[str | None, int | None, bool | None]:
    assert isinstance(reply, PendingReply)
    return reply._holder()


def test_of_a_request_under_way_it_is_known_who_has_it_and_whether_that_was_begun(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client, go_on = attach("server"), attach("client"), threading.Event()
    server.handle("job", lambda message: go_on.wait(60))
    server.start()
    first, second = (client.request_async("job", timeout=60) for _ in range(2))
    eventually(lambda: holder_of(first) == ("server", os.getpid(), True))
    eventually(lambda: holder_of(second) == ("server", os.getpid(), False))
    go_on.set()
    second.result(60)
    assert holder_of(second) == (None, None, None)


def test_who_waits_for_several_sees_those_whose_reply_had_come_before(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    server.handle("echo", lambda message: message.payload)
    server.start()

    def forwarded() -> int:
        return next(e.forwarded for e in bus.endpoints() if e.name == "server")

    for number in range(5, 26, 5):
        futures = [client.request_async("echo") for _ in range(5)]
        eventually(partial(lambda all: forwarded() == all, number))
        assert not concurrent.futures.wait(futures, 60).not_done
