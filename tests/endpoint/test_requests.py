"""Every request ends once: with its reply, or with one error that names who failed."""

import os
import threading
import uuid
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import Message, errors
from shmbus.testing import Attach, BusProcess, eventually
from tests.kept import Kept


@pytest.mark.smoke
def test_a_request_gets_its_reply(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    seen: list[Message] = []

    @server.handle("index.query")
    def query(message: Message[dict[str, str]]) -> dict[str, list[str]]:
        seen.append(message)
        return {"hits": [message.payload["text"]]}

    server.start()
    reply = client.request("index.query", {"text": "foo"}, timeout=10)
    assert reply.payload == {"hits": ["foo"]}
    assert reply.source == "server"
    assert reply.kind == "reply"
    assert reply.type == "index.query"
    assert isinstance(reply.correlation_id, uuid.UUID)
    assert seen[0].correlation_id == reply.correlation_id
    assert seen[0].kind == "request"
    assert seen[0].deadline_ns is not None
    assert seen[0].deadline_ns > seen[0].sent_ns


def test_a_reply_of_a_type(bus: shmbus.Bus, attach: Attach) -> None:
    class Hits(msgspec.Struct):
        hits: list[str]

    client, server = attach("client"), attach("server")
    server.handle("q", lambda message: Hits(["a"]))
    server.start()
    assert client.request("q", timeout=30, reply_type=Hits).payload == Hits(["a"])


def test_each_of_many_threads_gets_its_own_reply(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.handle("double", lambda message: message.payload * 2)
    server.start(threads=2)
    wrong: list[Any] = []

    def ask(thread: int) -> None:
        for i in range(300):
            n = thread * 1000 + i
            if client.request("double", n, timeout=30).payload != 2 * n:
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nobody_handles_it(bus: shmbus.Bus, attach: Attach) -> None:
    client = attach("client")
    with pytest.raises(errors.NoRoute) as caught:
        client.request("nobody", timeout=60)
    assert caught.value.type == "nobody"


@pytest.mark.smoke
def test_a_handlers_exception_reaches_the_caller(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")

    @server.handle("bad")
    def bad(message: Message) -> None:
        raise KeyError("no such thing")

    server.start()
    with pytest.raises(errors.RemoteError) as caught:
        client.request("bad", timeout=10)
    error = caught.value
    assert (error.type, error.endpoint, error.error) == ("bad", "server", "KeyError")
    assert "no such thing" in error.message
    assert "raise KeyError" in error.traceback


def test_what_the_handler_cannot_decode_is_told_to_the_caller(
    bus: shmbus.Bus, attach: Attach
) -> None:
    client, server = attach("client"), attach("server")
    server.handle("n", lambda message: message.payload, payload_type=int)
    server.start()
    with pytest.raises(errors.RemoteError, match="DecodeError"):
        client.request("n", "text", timeout=10)


def test_a_reply_that_cannot_be_encoded_is_told_to_both(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    client, server = attach("client"), attach("server")
    told: list[BaseException] = []

    @server.handle("returned")
    def returned(message: Message) -> object:
        return object()

    @server.handle("called")
    def called(message: Message) -> None:
        try:
            message.reply(object())
        except errors.EncodeError as error:
            told.append(error)

    server.start()
    for type in ("returned", "called"):
        with pytest.raises(errors.RemoteError, match="EncodeError"):
            client.request(type, timeout=10)
    assert len(told) == 1
    assert "EncodeError" in caplog.text


def test_a_reply_too_large_for_the_replier(bus: shmbus.Bus, attach: Attach) -> None:
    client = attach("client")
    server = attach("server", settings=shmbus.Settings(pool_bytes=200_000))
    server.handle("big", lambda message: bytes(10**6))
    server.start()
    with pytest.raises(errors.RemoteError, match="MessageTooLarge"):
        client.request("big", timeout=10)


def test_a_reply_larger_than_the_rings_of_the_requester_comes_all_the_same(
    bus: shmbus.Bus, attach: Attach
) -> None:
    client = attach(
        "client", settings=shmbus.Settings(in_bytes=8192, out_bytes=8192, reply_bytes=8192)
    )
    server = attach("server")
    server.handle("big", lambda message: bytes(5000))
    server.start()
    assert client.request("big", timeout=10).payload == bytes(5000)


def test_a_request_larger_than_the_rings_of_its_handler_comes_all_the_same(
    bus: shmbus.Bus, attach: Attach
) -> None:
    client = attach("client")
    server = attach(
        "server", settings=shmbus.Settings(in_bytes=8192, out_bytes=8192, reply_bytes=8192)
    )
    server.handle("x", lambda message: len(message.payload))
    server.start()
    assert client.request("x", bytes(5000), timeout=10).payload == 5000


def time_out(
    endpoint: shmbus.Endpoint, type: str, *, until: Callable[[errors.RequestTimeout], object]
) -> errors.RequestTimeout:
    """Time out again and again, later each time, until `until` accepts the error."""
    for seconds in (0.05, 0.5, 5.0, 50.0):
        with pytest.raises(errors.RequestTimeout) as caught:
            endpoint.request(type, timeout=seconds)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.type, caught.value.seconds) == (type, seconds)
        if until(caught.value):
            break
    return caught.value


def test_a_timeout_says_who_did_not_answer(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    go, begun = threading.Event(), threading.Event()

    @server.handle("slow")
    def slow(message: Message) -> None:
        begun.set()
        go.wait(30)

    server.start()
    error = time_out(client, "slow", until=lambda error: error.begun)
    assert (error.endpoint, error.pid, error.begun) == ("server", os.getpid(), True)
    with pytest.raises(errors.RequestTimeout, match="which had not begun it") as caught:
        client.request("slow", timeout=0.05)  # behind the first
    assert (caught.value.endpoint, caught.value.begun) == ("server", False)
    go.set()
    server.handle("quick", lambda message: 1)
    assert client.request("quick", timeout=10).payload == 1
    # A late reply is dropped and counted, by the dispatcher or by the requester.
    assert begun.is_set()
    late = 1  # of those that came too late to be begun there is none
    eventually(lambda: bus.health().orphans + bus.endpoints()[0].orphans == late)


@pytest.mark.bus(prefetch=1)
def test_a_timeout_says_that_a_request_still_waits_for_somebody_to_be_free(
    bus: shmbus.Bus, attach: Attach
) -> None:
    client, hung = attach("client"), [attach("a"), attach("b")]
    for server in hung:
        server.handle("ask", lambda message: None)  # which nobody runs
    first = [client.request_async("ask", n, timeout=60) for n in range(2)]
    eventually(lambda: [e.untouched for e in bus.find("ask")] == [1, 1])
    with pytest.raises(errors.RequestTimeout, match="waits in the backlog") as caught:
        client.request("ask", timeout=0.1)
    assert (caught.value.endpoint, caught.value.begun) == (None, False)
    assert not any(future.done() for future in first)


def test_a_request_that_nobody_waits_for_is_not_begun(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    begun: list[object] = []
    server.handle("x", lambda message: begun.append(message.payload))
    assert time_out(client, "x", until=lambda error: error.endpoint).endpoint == "server"
    late = bus.endpoints()[1].untouched  # also one that was given up before it was on its way
    server.start()
    client.request("x", "in time", timeout=30)
    assert begun == ["in time"]
    assert bus.endpoints()[1].expired == late > 0


def test_a_request_to_oneself_works_with_a_thread_to_spare(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.handle("inner", lambda message: message.payload + 1)
    endpoint.handle("outer", lambda m: endpoint.request("inner", m.payload, timeout=10).payload + 1)
    endpoint.start(threads=2)
    assert endpoint.request("outer", 1, timeout=10).payload == 3


def test_a_request_to_oneself_that_no_thread_serves_says_so(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e")
    endpoint.handle("inner", lambda message: None)
    failed: list[Exception] = []

    @endpoint.handle("outer")
    def outer(message: Message) -> None:
        failed.append(time_out(endpoint, "inner", until=lambda error: error.endpoint))

    endpoint.start()
    endpoint.request("outer", timeout=60)
    assert "no thread" in str(failed[0])


def test_a_request_to_oneself_that_is_deferred_does_not_blame_the_threads(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e")
    endpoint.handle("later", Kept())
    endpoint.start()
    error = time_out(endpoint, "later", until=lambda error: error.endpoint and not error.hint)
    assert (error.endpoint, error.hint) == ("e", "")


def test_answers_may_come_later_from_another_thread(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    waiting: list[Message] = []

    @server.handle("later")
    def later(message: Message) -> str:
        message.defer()
        waiting.append(message)
        return "not this"

    server.start()
    futures = [client.request_async("later", i, timeout=30) for i in range(3)]
    eventually(lambda: len(waiting) == 3)
    waiting[1].fail(ValueError("no"))
    for message in (waiting[0], waiting[2]):
        message.reply(message.payload * 10)
    assert futures[0].result(10).payload == 0
    assert futures[2].result(10).payload == 20
    with pytest.raises(errors.RemoteError, match="ValueError"):
        futures[1].result(10)
    with pytest.raises(errors.AlreadyReplied):
        waiting[0].reply()


def test_a_deferred_request_is_in_hand_until_it_is_answered(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    deferred: list[Message] = []

    @server.handle("later")
    def later(message: Message) -> None:
        message.defer()
        deferred.append(message)

    server.start()
    client.wait_for("later")
    reply = client.request_async("later", timeout=60)
    eventually(lambda: deferred)
    eventually(lambda: bus.endpoints()[0].receivers and not bus.endpoints()[0].untouched)
    client.publish("x")  # the handler has returned once the next message is looked for
    eventually(lambda: bus.endpoints()[0].in_hand == 1)
    deferred[0].reply("now")
    assert reply.result(60).payload == "now"
    eventually(lambda: bus.endpoints()[0].in_hand == 0)


def test_an_event_takes_no_reply(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x")
    endpoint.publish("x")
    message = endpoint.receive(10)
    assert message is not None
    for act in (message.reply, message.defer, lambda: message.fail(ValueError())):
        with pytest.raises(errors.NotARequest):
            act()


@pytest.mark.slow
def test_an_answer_that_was_not_accepted_can_be_given_again(bus_process: BusProcess) -> None:
    deferred: list[Message] = []
    refused: list[Message] = []
    go = threading.Event()

    def handle(message: Message) -> None:
        if len(deferred) < 5:
            message.defer()
            deferred.append(message)
            return
        go.wait(60)
        try:
            message.reply(bytes(900))
        except errors.QueueFull:
            refused.append(message)

    def answer_all() -> None:
        for message in deferred:
            message.reply(bytes(900))

    small = shmbus.Settings(in_bytes=4096, out_bytes=4096, reply_bytes=4096)
    with (
        shmbus.attach(bus_process.name, name="client") as client,
        shmbus.attach(bus_process.name, name="server", settings=small) as server,
    ):
        server.handle("x", handle)
        server.start()
        futures = [client.request_async("x", timeout=60) for _ in range(6)]
        eventually(lambda: client.bus.find("x")[0].in_hand == 6)
        bus_process.pause()
        with pytest.raises(errors.QueueFull):
            answer_all()
        go.set()
        eventually(lambda: refused)
        bus_process.resume()
        for message in (deferred[-1], *refused):
            message.reply("again")
            with pytest.raises(errors.AlreadyReplied):
                message.reply("and again")
        assert [future.result(60).payload for future in futures[4:]] == ["again", "again"]
        eventually(lambda: client.bus.find("x")[0].in_hand == 0)


@pytest.mark.smoke
def test_futures_have_the_deadlines_and_errors_of_requests(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    go = threading.Event()
    server.handle("slow", lambda message: go.wait(30))
    server.start()
    slow = client.request_async("slow", timeout=60)
    quick = client.request_async("slow", timeout=0.05)
    with pytest.raises(errors.RequestTimeout):
        quick.result(30)
    with pytest.raises(errors.NoRoute):
        client.request_async("nobody").result(30)
    cancelled = client.request_async("slow", timeout=0.01)
    cancelled.cancel()
    go.set()
    assert slow.result(30).payload is True


def test_a_cancelled_future_leaves_its_place(bus: shmbus.Bus, attach: Attach) -> None:
    client = attach("client", settings=shmbus.Settings(max_requests=2))
    server = attach("server")
    server.handle("x", Kept())
    server.handle("y", lambda message: message.payload)
    server.start()
    client.request_async("x", timeout=None)
    for _ in range(10):
        assert client.request_async("x", timeout=None).cancel()
    assert client.request("y", 1, timeout=10).payload == 1


def test_replies_are_not_kept_behind_one_that_is_late(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.handle("late", Kept())
    server.handle("quick", lambda message: message.payload)
    server.start()
    client.request_async("late", timeout=600)
    replies = weakref.WeakSet[Future[Message]]()
    for i in range(3000):
        future = client.request_async("quick", i, timeout=600)
        replies.add(future)
        assert future.result(60).payload == i
    assert len(replies) < 2000


def test_futures_end_when_the_endpoint_is_closed(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.handle("x", Kept())
    server.start()
    future: Future[Message] = client.request_async("x", timeout=None)
    client.close()
    with pytest.raises(errors.EndpointClosed):
        future.result(30)


def test_requests_in_flight_are_limited(bus: shmbus.Bus, attach: Attach) -> None:
    client = attach("client", settings=shmbus.Settings(max_requests=2))
    server = attach("server")
    server.handle("x", Kept())
    server.start()
    for _ in range(2):
        client.request_async("x", timeout=60)
    with pytest.raises(errors.RequestsFull) as caught:
        client.request("x", timeout=0.05)
    assert (caught.value.limit, caught.value.endpoint) == (2, "client")


def test_the_most_specific_pattern_handles(bus: shmbus.Bus, attach: Attach) -> None:
    client, one, two = attach("client"), attach("one"), attach("two")
    for pattern in (">", "a.*"):
        one.handle(pattern, lambda message, pattern=pattern: pattern)
    two.handle("a.b", lambda message: "a.b")
    one.start()
    two.start()
    assert [client.request(t, timeout=10).payload for t in ("a.b", "a.c", "x.y.z")] == [
        "a.b",
        "a.*",
        ">",
    ]


def test_the_same_pattern_twice_is_an_error(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.handle("x", print)
    with pytest.raises(errors.HandlerConflict) as caught:
        endpoint.handle("x", print)
    assert (caught.value.endpoint, caught.value.pattern) == ("e", "x")


@pytest.mark.smoke
def test_a_command_reaches_one_handler(bus: shmbus.Bus, attach: Attach) -> None:
    sender = attach("sender")
    servers = [attach(f"server{i}") for i in range(2)]
    got: list[int] = []
    for server in servers:
        server.handle("add", lambda message: got.append(message.payload))
        server.start()
    for i in range(100):
        sender.send("add", i)
    eventually(lambda: len(got) == 100)
    assert sorted(got) == list(range(100))


def test_a_command_without_handler_is_a_dead_letter(bus: shmbus.Bus, attach: Attach) -> None:
    sender, watcher = attach("sender"), attach("watcher")
    watcher.subscribe("$bus.undeliverable")
    sender.send("nobody", b"payload")
    letter = watcher.receive(10)
    assert letter is not None
    assert letter.source == "$bus"
    assert letter.payload["type"] == "nobody"
    assert letter.payload["source"] == "sender"
    assert letter.payload["payload"] == b"payload"
    assert next(e for e in bus.endpoints() if e.name == "sender").undeliverable == 1


def test_events_do_not_reach_handlers_nor_commands_subscriptions(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint, sender = attach("e"), attach("s")
    handled: list[str] = []
    endpoint.handle("x", lambda message: handled.append(message.kind))
    endpoint.subscribe("x")
    sender.publish("x")
    sender.send("x")
    sender.publish("x")
    kinds = [m.kind for m in (endpoint.receive(10), endpoint.receive(10)) if m is not None]
    assert kinds == ["event", "event"]
    assert handled == ["send"]
