"""Requests that are answered later."""

from __future__ import annotations

import gc
import threading

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
