"""The threads of an endpoint's own: whatever kept one from starting, or ended it, does not last."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import shmbus
from shmbus import Death, Message, errors
from shmbus.testing import Attach, StartWorker, eventually
from tests.kept import Kept


@contextmanager
def no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As at the limit of a container's pids."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield


def test_futures_work_once_their_thread_can_be_started(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = attach("client"), attach("server")
    server.handle("echo", lambda message: message.payload)
    server.handle("never", Kept())
    server.start()
    with no_thread_starts(monkeypatch):
        with pytest.raises(errors.NoThread, match=r"'client'.*futures") as caught:
            client.request_async("echo", 1)
        assert isinstance(caught.value, RuntimeError)
    assert client.bus.endpoints()[0].pending == 0
    done: list[object] = []
    client.request_async("echo", 2, timeout=60).add_done_callback(done.append)
    client.request_async("never", timeout=0.01).add_done_callback(done.append)
    eventually(lambda: len(done) == 2)


def test_futures_outlive_a_callback_that_exits(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    client, server = attach("client"), attach("server")
    server.handle("echo", lambda message: message.payload)
    server.handle("never", Kept())
    server.start()
    client.request_async("echo", timeout=60).add_done_callback(lambda future: sys.exit(1))
    eventually(lambda: "SystemExit" in caplog.text)
    done: list[object] = []
    client.request_async("echo", timeout=60).add_done_callback(done.append)
    client.request_async("never", timeout=0.01).add_done_callback(done.append)
    eventually(lambda: len(done) == 2)


def test_on_death_works_once_its_thread_can_be_started(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, friend = attach("me"), attach("friend")
    deaths: list[Death] = []
    with no_thread_starts(monkeypatch):
        with pytest.raises(errors.NoThread, match="'me'"):
            me.on_death("friend", deaths.append)
    later: list[Death] = []
    me.on_death("friend", later.append)
    friend.close()
    eventually(lambda: later)
    assert deaths == []


def test_on_death_outlives_a_callback_that_exits(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    me, friend = attach("me"), attach("friend")
    deaths: list[Death] = []
    me.on_death("nobody", lambda death: sys.exit(1))
    me.on_death("friend", deaths.append)
    eventually(lambda: "SystemExit" in caplog.text)
    friend.close()
    eventually(lambda: deaths)


def test_a_handler_is_there_or_its_registration_raises(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = attach("client"), attach("server")
    with no_thread_starts(monkeypatch):
        server.handle("echo", lambda message: message.payload)
        server.subscribe("x", lambda message: None)
    assert [info.name for info in bus.find("echo")] == ["server"]
    server.start()
    assert client.request("echo", 1, timeout=60).payload == 1


def test_a_start_that_raises_has_started_nothing(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = threading.Thread.start, [0]

    def refuse_the_third(thread: threading.Thread) -> None:
        started[0] += 1
        if started[0] == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    endpoint = attach("e")
    seen: list[Message] = []
    subscription = endpoint.subscribe("x", seen.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_the_third)
        with pytest.raises(errors.NoThread, match="'e'"):
            endpoint.start(threads=3)
    subscription.close()
    endpoint.subscribe("y")
    endpoint.publish("y")
    assert endpoint.receive(60) is not None  # no thread runs handlers


def test_a_thread_that_a_handler_would_end_goes_on(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = attach("e")
    seen: list[int] = []

    def work(message: Message[int]) -> None:
        seen.append(message.payload)
        if message.payload == 0:
            sys.exit(1)

    endpoint.subscribe("x", work)
    endpoint.start()
    for number in range(3):
        endpoint.publish("x", number)
    eventually(lambda: seen == [0, 1, 2])
    assert "SystemExit" in caplog.text
    assert "'e'" in caplog.text


def receive_in_threads(endpoint: shmbus.Endpoint, count: int) -> None:
    """Each thread gets one message, waits until all have one, and asks for the next."""
    endpoint.subscribe("job", group="workers")
    all_busy = threading.Barrier(count)

    def work() -> None:
        endpoint.receive(60)
        all_busy.wait(60)
        endpoint.receive()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.bus(prefetch=128)
def test_what_more_than_64_threads_have_finished_is_done_once(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    count = 70
    crowd, source, heir = worker(receive_in_threads, count, name="crowd"), attach(), attach()
    source.wait_for("job", timeout=60)
    source.publish_many(("job", number) for number in range(count))

    def finished() -> bool:
        info = next(e for e in bus.endpoints() if e.name == "crowd")
        return info.received.events == count and (info.in_hand, info.held) == (0, 0)

    eventually(finished, timeout=20)
    got: list[object] = []
    heir.subscribe("job", lambda message: got.append(message.payload), group="workers")
    heir.start()
    crowd.kill()
    eventually(lambda: "crowd" not in [e.name for e in bus.endpoints()])
    source.publish("job", "new")
    eventually(lambda: got)
    assert got == ["new"]
