"""Closing, draining and being collected: nothing accepted is lost uncounted, every wait ends."""

import contextlib
import gc
import sys
import threading
import warnings
from collections.abc import Callable

import pytest

import shmbus
from shmbus import Death, Message, errors
from shmbus.endpoint import door, ending, runners, subscribing
from shmbus.endpoint.returns import Returns
from shmbus.testing import Attach, eventually
from tests.kept import Kept


def test_a_closed_endpoint_refuses_and_says_that_it_was_closed_here(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x")
    endpoint.close()
    endpoint.close()
    calls: list[Callable[[], object]] = [
        lambda: endpoint.publish("x"),
        lambda: endpoint.send("x"),
        lambda: endpoint.request("x"),
        lambda: endpoint.request_async("x"),
        lambda: endpoint.receive(0),
        lambda: endpoint.subscribe("y"),
        lambda: endpoint.handle("y", print),
        lambda: endpoint.run(),
        lambda: endpoint.wait_for("x"),
        lambda: endpoint.on_death("x", print),
    ]
    for call in calls:
        with pytest.raises(errors.EndpointClosed) as caught:
            call()
        assert caught.value.endpoint == "e"


@pytest.mark.smoke
def test_closing_ends_every_wait(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint, server = attach("e"), attach("server")
    endpoint.subscribe("x")
    server.handle("q", Kept())
    server.start()
    ended: list[str] = []

    def iterate() -> None:
        for _ in endpoint:
            pass
        ended.append("iteration")

    def expect(what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except errors.EndpointClosed:
            ended.append(what)

    threads = [
        threading.Thread(target=iterate),
        threading.Thread(target=expect, args=("receive", lambda: endpoint.receive(60))),
        threading.Thread(
            target=expect, args=("request", lambda: endpoint.request("q", timeout=60))
        ),
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: (bus.endpoints()[0].receivers, bus.endpoints()[0].pending) == (2, 1))
    endpoint.close()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["iteration", "receive", "request"]


def test_what_was_sent_before_close_arrives(bus: shmbus.Bus, attach: Attach) -> None:
    receiver = attach("r")
    receiver.subscribe("x")
    with shmbus.attach(bus.name) as sender:
        for i in range(1000):
            sender.publish("x", i)
    got: list[int] = []
    while len(got) < 1000:
        message = receiver.receive(10)
        assert message is not None
        got.append(message.payload)
    assert got == list(range(1000))


@pytest.mark.bus(block_timeout=60)
def test_what_was_sent_before_the_bus_ends_arrives(bus: shmbus.Bus, attach: Attach) -> None:
    small = attach("small", settings=shmbus.Settings(in_bytes=4096, out_bytes=4096))
    sender = attach("sender")
    small.subscribe("x")
    for n in range(30):  # more than its ring takes
        sender.publish("x", bytes([n]) * 400)
    eventually(lambda: bus.endpoints()[0].untouched > 1)
    ending = threading.Thread(target=bus.close, kwargs={"timeout": 60})
    ending.start()
    got = [message.payload[0] for _ in range(30) if (message := small.receive(60)) is not None]
    ending.join()
    assert got == list(range(30))


def test_what_was_received_is_done_when_the_endpoint_closes(
    bus: shmbus.Bus, attach: Attach
) -> None:
    first, sender = attach("first"), attach("sender")
    first.subscribe("job", group="workers")
    sender.publish("job", "received")
    message = first.receive(60)
    assert message is not None
    second = attach("second")
    second.subscribe("job", group="workers")
    first.close()
    sender.publish("job", "next")
    message = second.receive(60)
    assert message is not None
    assert (message.payload, second.receive(0)) == ("next", None)


def test_what_is_accepted_while_the_sender_closes_arrives(bus: shmbus.Bus, attach: Attach) -> None:
    attach("r").subscribe("x", overflow="drop_newest")
    accepted = 0

    def flood() -> None:
        nonlocal accepted
        with contextlib.suppress(errors.EndpointClosed):
            while True:
                sender.publish("x")
                accepted += 1

    for _ in range(20):
        sender, before = bus.attach("s"), accepted
        thread = threading.Thread(target=flood)
        thread.start()
        eventually(lambda: accepted > before)  # noqa: B023
        sender.close()
        thread.join()
    info = bus.endpoints()[0]
    assert info.untouched + info.lost == accepted


@pytest.mark.smoke
def test_draining_handles_what_was_accepted(bus: shmbus.Bus, attach: Attach) -> None:
    sender, worker = attach("s"), attach("w")
    got: list[int] = []
    worker.handle("add", lambda message: got.append(message.payload))
    for i in range(1000):
        sender.send("add", i)
    eventually(lambda: bus.endpoints()[0].forwarded == 1000)
    worker.drain()
    assert got == list(range(1000))


def test_draining_lets_running_handlers_finish(bus: shmbus.Bus, attach: Attach) -> None:
    client, worker = attach("c"), attach("w")
    begun, go = threading.Event(), threading.Event()

    @worker.handle("slow")
    def slow(message: Message) -> str:
        begun.set()
        go.wait(30)
        return "done"

    worker.start(threads=2)
    future = client.request_async("slow", timeout=60)
    begun.wait(30)
    thread = threading.Thread(target=worker.drain)
    thread.start()
    go.set()
    thread.join()
    assert future.result(30).payload == "done"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_handler_may_drain_its_endpoint(
    bus: shmbus.Bus,
    attach: Attach,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    monkeypatch.setattr(runners, "PATIENCE", 3600.0)  # no warning that no thread runs them yet
    sender, worker = attach("s"), attach("w")
    got: list[int] = []

    def add(message: Message) -> None:
        got.append(message.payload)
        worker.drain(timeout=30)

    worker.handle("add", add)
    for i in range(100):
        sender.send("add", i)
    eventually(lambda: bus.endpoints()[1].untouched == 100)
    worker.run(threads=threads)
    assert sorted(got) == list(range(100))
    assert caplog.records == []


def test_subscriptions_change_no_more_while_it_drains(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, worker = attach("s"), attach("w")
    begun, go = threading.Event(), threading.Event()
    told: list[str] = []
    own = worker.subscribe("mine", print)

    def work(message: Message) -> None:
        begun.set()
        go.wait(30)
        own.close()
        try:
            worker.subscribe("more", print)
        except errors.EndpointClosed:
            told.append("closed")

    worker.handle("work", work)
    worker.start()
    sender.send("work")
    begun.wait(30)
    thread = threading.Thread(target=worker.drain)
    thread.start()
    eventually(lambda: [e.state for e in bus.endpoints()] == ["attached", "leaving"])
    monkeypatch.setattr(subscribing, "CONFIRM", 3600.0)  # the test never waits for so long
    go.set()
    thread.join()
    assert told == ["closed"]


def test_draining_says_what_it_could_not_finish(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, worker = attach("s"), attach("w")
    go = threading.Event()
    worker.handle("slow", lambda message: go.wait(30))
    for _ in range(3):
        sender.send("slow")
    eventually(lambda: bus.endpoints()[1].untouched == 3)
    worker.start()
    close = worker._ending._close

    def let_go(patience: float) -> None:
        go.set()
        close(patience)

    monkeypatch.setattr(worker._ending, "_close", let_go)  # when it has counted them
    with pytest.raises(errors.DrainTimeout) as caught:
        worker.drain(timeout=0.01)
    assert (caught.value.endpoint, caught.value.left) == ("w", 3)


def test_a_handler_may_close_its_endpoint(bus: shmbus.Bus, attach: Attach) -> None:
    client, worker = attach("c"), attach("w")
    worker.handle("stop", lambda message: worker.close())
    thread = threading.Thread(target=worker.run)
    thread.start()
    client.send("stop")
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("way", ["close", "drain"])
def test_handlers_of_several_threads_may_close_at_once(
    bus: shmbus.Bus, attach: Attach, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "CLOSING", 3600.0)  # neither waits for the other
    client, worker = attach("c"), attach("w")
    both = threading.Barrier(2)

    @worker.handle("stop")
    def stop(message: Message) -> None:
        both.wait(30)
        getattr(worker, way)()

    for _ in range(2):
        client.send("stop")
    worker.run(threads=2)
    with pytest.raises(errors.EndpointClosed):
        worker.publish("x")


def test_untouched_group_messages_go_on_to_another_member(bus: shmbus.Bus, attach: Attach) -> None:
    sender, leaving, staying = attach("s"), attach("leaving"), attach("staying")
    leaving.subscribe("job", group="g")
    for i in range(3):
        sender.publish("job", i)
    eventually(lambda: bus.endpoints()[1].untouched == 1)
    assert leaving.receive(10) is not None
    eventually(lambda: bus.endpoints()[1].untouched == 1)  # behind the one in hand
    staying.subscribe("job", group="g")
    waited = staying.receive(10)
    assert waited is not None
    assert (waited.payload, waited.redelivered) == (2, False)
    leaving.close()
    untouched = staying.receive(10)
    assert untouched is not None
    assert (untouched.payload, untouched.redelivered) == (1, True)


def test_a_wait_that_closing_ends_says_so(bus: shmbus.Bus) -> None:
    for _ in range(30):
        endpoint = bus.attach("e")
        failed: list[Exception] = []

        def wait() -> None:
            try:
                endpoint.wait_for("nobody", timeout=60)  # noqa: B023
            except Exception as error:
                failed.append(error)  # noqa: B023

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        endpoint.close()
        for thread in threads:
            thread.join()
        assert {type(error) for error in failed} == {errors.EndpointClosed}


def test_a_forgotten_endpoint_leaves_in_good_order_where_warnings_are_errors(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    deaths: list[Death] = []
    forgotten = [bus.attach("forgotten")]
    attach("watcher").on_death("forgotten", deaths.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forgotten.clear()
        gc.collect()
    eventually(lambda: len(deaths) == 1)
    assert (deaths[0].reason, len(raised)) == ("detached", 1)


@pytest.mark.parametrize("older", [False, True])
def test_an_endpoint_that_is_forgotten_leaves_the_bus(
    bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    if older:  # than its connection, by which the order of finalisation is another
        knock = door.knock
        monkeypatch.setattr(door, "knock", lambda *a, **k: gc.collect(0) + 1 and knock(*a, **k))

    def forget() -> None:
        bus.attach("forgotten").publish("x")
        gc.collect()

    with pytest.warns(ResourceWarning, match="forgotten"):
        forget()
    eventually(lambda: bus.endpoints() == [])


@pytest.mark.usefixtures("bus")
def test_what_is_to_be_given_back_takes_no_longer_than_the_drain_may(
    attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[float]()
    monkeypatch.setattr(Returns, "give_all", lambda returns, timeout: given.append(timeout))
    attach("one").drain(timeout=0.1)
    assert given[0] <= 0.1
