"""Events that come for one subscription alone."""

from __future__ import annotations

import pytest

import shmbus
from shmbus.testing import Attach, eventually
from tests.addressed import address


@pytest.mark.smoke
def test_an_event_for_one_subscription_alone_is_not_for_the_others(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, endpoint, calls = attach("source"), attach("here"), list[tuple[str, int]]()
    endpoint.subscribe("x", lambda message: calls.append(("first", message.payload)))
    endpoint.subscribe("*", lambda message: calls.append(("second", message.payload)))
    source.publish_many([("x", 1), ("x", 2), ("x", 3)])
    address(endpoint, 2, None, 1)
    endpoint.start()
    eventually(lambda: len(calls) == 4)
    assert calls == [("second", 1), ("first", 2), ("second", 2), ("first", 3)]


def test_an_event_for_a_subscription_that_was_closed_meanwhile_is_nobodys(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, endpoint, calls = attach("source"), attach("here"), list[int]()
    closed = endpoint.subscribe("x")
    endpoint.subscribe("x", lambda message: calls.append(message.payload))
    source.publish_many([("x", 1), ("x", 2), ("x", 3)])
    address(endpoint, 1, 12345, None)
    closed.close()
    endpoint.start()
    eventually(lambda: calls == [3])
    assert bus.find("x")[0].handler_errors == 0


def test_where_it_is_received_it_is_decoded_for_its_subscription(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, endpoint = attach("source"), attach("here")
    endpoint.subscribe("x", payload_type=int)
    endpoint.subscribe("x", payload_type=float)
    called = endpoint.subscribe("x", lambda message: None)
    source.publish_many([("x", n) for n in range(4)])
    address(endpoint, 2, 1, 3, 2, retained=True)
    got = [endpoint.receive(10) for _ in range(3)]
    payloads = [message.payload for message in got if message]
    assert payloads == [0, 1, 3]
    assert [type(payload) for payload in payloads] == [float, int, float]
    assert all(m and m.retained and m.deadline_ns is None for m in got)
    source.publish("x", 4)
    message = endpoint.receive(10)
    assert message is not None
    assert not message.retained
    called.close()
