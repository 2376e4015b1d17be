"""What has been closed has given its memory back, without a collection, whatever is still held."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmbus
from shmbus import errors
from shmbus.shared.names import names_of
from shmbus.testing import BusProcess, eventually


def mapped(bus: str) -> list[str]:
    """What this process has mapped of a bus, bells included."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split(None, 5)[5] for line in lines if names_of(bus).prefix in line]


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def converse(endpoint: shmbus.Endpoint) -> list[shmbus.Message]:
    """Everything that an endpoint can do, with itself; returns messages of each kind."""
    kept: list[shmbus.Message] = []
    endpoint.subscribe("event", kept.append)
    endpoint.subscribe("shared", kept.append, group="g")
    tap = endpoint.tap("tapped")

    @endpoint.handle("ask")
    def answer(message: shmbus.Message) -> object:
        kept.append(message)
        return message.payload

    endpoint.on_death("nobody", lambda death: None)
    endpoint.publish("tapped", b"x")
    copy = endpoint.receive(60)
    assert copy is not None
    kept.append(copy)
    tap.close()
    endpoint.start(threads=2)
    for n in range(300):  # more interests than the first log has room for
        endpoint.subscribe(f"more.{n}", kept.append)
    endpoint.publish("event", {"a": 1})
    endpoint.publish("shared", b"one")
    kept.append(endpoint.request("ask", 1, timeout=60))
    future = endpoint.request_async("ask", 2, timeout=60)
    future.add_done_callback(lambda done: kept.append(done.result()))
    kept.append(future.result())
    for reply in endpoint.request_many([("ask", 3)] * 3, timeout=60):
        assert isinstance(reply, shmbus.Message)
    with pytest.raises(errors.NoRoute):
        endpoint.request("nobody", timeout=60)
    assert endpoint.bus.health().state != "unhealthy"
    endpoint.wait_for("event")
    eventually(lambda: {"event", "shared"} <= {message.type for message in kept})
    return kept


@pytest.mark.parametrize("end", ["close", "with", "drain"])
def test_an_endpoint_that_was_closed_has_given_its_memory_back(
    bus_process: BusProcess, end: str
) -> None:
    with shmbus.attach(bus_process.name, name="e") as endpoint:
        kept = converse(endpoint)
        if end != "with":
            getattr(endpoint, end)()
            assert mapped(bus_process.name) == []
    assert mapped(bus_process.name) == []
    assert {message.kind for message in kept} >= {"event", "request", "reply", "tap"}
    for message in kept:
        assert message.payload is not None
        assert message.source == "e"
        message.done()
        if message.tap is not None:
            assert (message.tap.kind, message.tap.target) == ("event", None)
    request = next(message for message in kept if message.kind == "request")
    with pytest.raises(errors.AlreadyReplied):
        request.reply()
    for call in (
        lambda: endpoint.publish("x"),
        lambda: endpoint.request("x"),
        lambda: endpoint.receive(0),
        lambda: endpoint.request_async("x"),
        lambda: list(endpoint),
        lambda: endpoint.subscribe("x"),
        lambda: endpoint.tap(),
        lambda: endpoint.run(),
        lambda: endpoint.wait_for("x"),
        lambda: endpoint.publish_many([("x", 1)]),
    ):
        with pytest.raises(errors.EndpointClosed):
            call()
    endpoint.close()
    endpoint.drain()
    assert "closed" in repr(endpoint)


def test_an_endpoint_of_a_bus_that_has_ended_gives_its_memory_back(
    bus_process: BusProcess,
) -> None:
    endpoint = shmbus.attach(bus_process.name)
    kept = converse(endpoint)
    bus_process.stop()
    with pytest.raises(errors.BusDown):
        endpoint.request("ask", timeout=60)
    endpoint.close()
    assert mapped(bus_process.name) == []
    assert all(message.payload is not None for message in kept)


def test_a_request_that_is_kept_beyond_the_end_cannot_be_answered(bus_process: BusProcess) -> None:
    endpoint = shmbus.attach(bus_process.name, name="e")
    kept: list[shmbus.Message] = []

    @endpoint.handle("ask")
    def later(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    endpoint.start()
    future = endpoint.request_async("ask", {"n": 1}, timeout=None)
    eventually(lambda: kept)
    endpoint.close()
    assert mapped(bus_process.name) == []
    assert (kept[0].payload, kept[0].source) == ({"n": 1}, "e")
    with pytest.raises(errors.EndpointClosed):
        kept[0].reply()
    assert isinstance(future.exception(), errors.BusError)
    kept.clear()


def test_a_handler_that_outlasts_the_end_of_its_endpoint_comes_to_no_harm(
    bus_process: BusProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shmbus.endpoint.ending.CLOSING", 0.01)
    endpoint = shmbus.attach(bus_process.name)
    begun, go_on, said = threading.Event(), threading.Event(), list[str]()

    @endpoint.handle("ask")
    def slow(message: shmbus.Message) -> int:
        begun.set()
        go_on.wait()
        try:
            endpoint.publish("x")
        except errors.EndpointClosed as why:
            said.append(str(why))
        return 1

    endpoint.start()
    endpoint.send("ask")
    assert begun.wait(60)
    endpoint.close()
    assert mapped(bus_process.name) == []
    go_on.set()
    eventually(lambda: not endpoint._running.threads)
    assert len(said) == 1


def test_a_view_that_was_closed_has_given_its_memory_back(bus_process: BusProcess) -> None:
    with shmbus.attach(bus_process.name, name="e") as endpoint:
        converse(endpoint)
        own = mapped(bus_process.name)
        with shmbus.observe(bus_process.name) as view:
            view.look()
            infos, backlogs = view.endpoints(), view.backlogs()
            view.requests("e")
            view.waiting("e")
            view.route("ask")
        assert sorted(mapped(bus_process.name)) == sorted(own)
        with pytest.raises(errors.ViewClosed):
            view.endpoints()
    assert mapped(bus_process.name) == []
    assert len(infos) == 1
    assert len(backlogs) == 1


@pytest.mark.parametrize("handover", [False, True])
def test_a_host_that_ended_its_bus_has_given_its_memory_back(bus_name: str, handover: bool) -> None:
    with shmbus.serve(bus_name) as bus:
        with bus.attach("first") as endpoint:
            converse(endpoint)
        second = bus.attach("second")
        converse(second)
        bus.health()
        bus.close(handover=handover)
        second.close()
        assert mapped(bus_name) == []
    if handover:
        with shmbus.serve(bus_name):  # adopts it
            pass
        assert mapped(bus_name) == []


def test_an_attach_that_was_refused_keeps_nothing(bus_process: BusProcess) -> None:
    with shmbus.attach(bus_process.name, name="e"):
        own = mapped(bus_process.name)
        with pytest.raises(errors.NameTaken) as caught:
            shmbus.attach(bus_process.name, name="e", timeout=60)
        assert sorted(mapped(bus_process.name)) == sorted(own), caught.value
    bus_process.pause()
    with pytest.raises(errors.AttachTimeout) as late:
        shmbus.attach(bus_process.name, timeout=0.1)
    bus_process.resume()
    assert mapped(bus_process.name) == [], late.value
