"""Requests that are answered later."""

from __future__ import annotations

import gc
import logging
import threading
import warnings

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import Attach, eventually


def test_drain_waits_until_deferred_requests_are_answered(bus: shmbus.Bus, attach: Attach) -> None:
    server, client = attach("server"), attach("client")
    kept: list[shmbus.Message] = []

    def keep(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    server.handle("later", keep)
    server.start()
    replies = [client.request_async("later", number, timeout=None) for number in range(3)]
    eventually(lambda: len(kept) == 3)
    drained = threading.Thread(target=server.drain)
    drained.start()
    eventually(lambda: bus.find("later") == [])  # it leaves
    for message in kept:
        assert drained.is_alive()
        message.reply(10 * message.payload)
    assert [reply.result(60).payload for reply in replies] == [0, 10, 20]
    drained.join(60)
    assert not drained.is_alive()


def test_drain_counts_deferred_requests_that_nobody_answered(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, kept = attach("server"), list[shmbus.Message]()

    def keep(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    server.handle("later", keep)
    server.start()
    reply = attach("client").request_async("later", timeout=None)
    eventually(lambda: kept)
    with pytest.raises(errors.DrainTimeout) as caught:
        server.drain(timeout=0.05)
    assert caught.value.left == 1
    with pytest.raises(errors.EndpointDied):
        reply.result(60)


def test_a_deferred_request_that_was_dropped_leaves_nobody_busy(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = attach("server"), attach("client")
    server.handle("later", lambda message: message.defer())
    server.start()
    client.request_async("later", timeout=60)

    def busy() -> int:
        return next(e.in_hand for e in bus.endpoints() if e.name == "server")

    eventually(lambda: gc.collect() is not None and "dropped" in caplog.text)
    eventually(lambda: busy() == 0)
    server.drain(timeout=60)


@pytest.mark.smoke
def test_who_asked_for_a_deferred_request_that_was_dropped_is_told(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")
    server.handle("later", lambda message: message.defer())
    server.start()
    with pytest.raises(errors.RemoteError, match="dropped its message without a reply") as caught:
        client.request("later", timeout=None)
    assert caught.value.endpoint == "server"
    eventually(lambda: bus.find("later")[0].in_hand == 0)


def test_a_deferred_request_in_a_cycle_is_failed_by_the_collector(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")

    class Job:
        def __init__(self, message: shmbus.Message) -> None:
            self.message, self.itself = message, self

    def forget(message: shmbus.Message) -> None:
        message.defer()
        Job(message)

    server.handle("later", forget)
    server.start()
    reply = client.request_async("later", timeout=60)
    eventually(lambda: gc.collect() is not None and reply.done())
    assert isinstance(reply.exception(), errors.RemoteError)


def test_dropped_requests_that_find_no_space_at_once_are_failed_later(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server = attach("server", settings=shmbus.Settings(reply_bytes=4096, max_requests=4))
    client, kept = attach("client"), list[shmbus.Message]()

    def keep(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    server.handle("later", keep)
    server.start()
    replies = [client.request_async("later", timeout=60) for _ in range(200)]
    eventually(lambda: len(kept) == 200)
    kept.clear()  # all at once
    assert {type(reply.exception(60)) for reply in replies} == {errors.RemoteError}
    eventually(lambda: bus.find("later")[0].in_hand == 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_warning_that_fails_leaves_nobody_busy(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    server, client, failed = attach("server"), attach("client"), list[str]()

    def fails(record: logging.LogRecord) -> bool:
        if "dropped" in record.msg:
            failed.append(record.msg)
            raise error
        return True

    monkeypatch.setattr(logging.getLogger("shmbus"), "filters", [fails])
    server.handle("later", lambda message: message.defer())
    server.start()
    with pytest.raises(errors.RemoteError, match="dropped"):
        client.request("later", timeout=60)
    eventually(lambda: failed)
    eventually(lambda: bus.find("later")[0].in_hand == 0)
    server.drain(timeout=60)


@pytest.mark.usefixtures("bus")
def test_the_collector_logs_nothing(attach: Attach, caplog: pytest.LogCaptureFixture) -> None:
    """It runs in any thread, maybe inside the handler of logging that would be called."""
    server, client, kept = attach("server"), attach("client"), list[shmbus.Message]()

    def keep(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    server.handle("later", keep)
    server.start()
    reply = client.request_async("later", timeout=60)
    eventually(lambda: kept)
    kept.clear()  # in this thread
    assert isinstance(reply.exception(60), errors.RemoteError)
    eventually(lambda: "dropped" in caplog.text)
    (record,) = [record for record in caplog.records if "dropped" in record.getMessage()]
    assert record.threadName is not None
    assert "handlers" in record.threadName


@pytest.mark.usefixtures("bus")
def test_what_was_dropped_is_logged_at_the_end_where_nobody_receives(
    attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    server, client, kept = attach("server"), attach("client"), list[shmbus.Message]()

    def keep(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)

    server.handle("later", keep)
    reply = client.request_async("later", timeout=60)
    server.subscribe("other")
    eventually(lambda: server.receive(0.01) is None and kept)
    kept.clear()
    assert isinstance(reply.exception(60), errors.RemoteError)
    assert "dropped" not in caplog.text
    server.close()
    assert "dropped" in caplog.text


def test_a_deferred_request_that_was_answered_is_not_failed_as_well(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, client = attach("server"), attach("client")

    def later(message: shmbus.Message) -> None:
        message.defer()
        message.reply("here")

    server.handle("later", later)
    server.start()
    assert client.request("later", timeout=60).payload == "here"
    gc.collect()
    assert bus.health().orphans == 0


def test_a_plain_function_that_returns_a_coroutine_is_refused(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    server, client = attach("server"), attach("client")

    async def work() -> int:
        return 1

    server.handle("job", lambda message: work())
    server.subscribe("event", lambda message: work())
    server.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(errors.RemoteError, match="returned a coroutine"):
            client.request("job", timeout=60)
        client.publish("event")
        eventually(lambda: bus.find("event")[0].handler_errors == 2)
        gc.collect()
    assert "returned a coroutine" in caplog.text
