"""Asking again, where the caller says that this is harmless."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

import shmbus
from shmbus import EndpointDied, Message, NoRoute, RequestTimeout, Retry, errors
from shmbus.testing import Attach

AT_ONCE = 0.0


@pytest.mark.smoke
def test_a_request_whose_handler_is_gone_is_made_again_and_says_so(
    bus: shmbus.Bus, attach: Attach
) -> None:
    """Without `retry` its caller is told, since only he knows whether that is harmless."""
    client, servers = attach("client"), [attach(f"server-{n}") for n in range(4)]
    attempts: list[int] = []
    kept: list[Message] = []

    def work(message: Message, server: shmbus.Endpoint) -> None:
        attempts.append(message.attempt)
        if message.attempt <= message.payload:
            kept.append(message)
            message.defer()
            bus.evict(server.name)

    for server in servers:
        server.handle("work", lambda message, server=server: work(message, server))
        server.start()
    with pytest.raises(EndpointDied):
        client.request("work", 1)
    client.request("work", 2, retry=Retry())
    assert attempts == [1, 1, 2, 3]


def test_the_last_error_is_raised_and_tells_of_all_attempts(
    bus: shmbus.Bus, attach: Attach
) -> None:
    with pytest.raises(NoRoute) as caught:
        attach("client").request("nobody", retry=Retry(attempts=3, backoff=AT_ONCE))
    assert caught.value.__notes__ == ["attempt 3 of 3, after NoRoute, NoRoute"]


def test_a_handler_that_comes_later_is_found(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    late = threading.Timer(0.05, server.handle, ("late", lambda message: message.attempt > 1))
    server.start()
    late.start()
    retry = Retry(attempts=1000, on=(NoRoute,), backoff=0.001)
    assert client.request("late", timeout=60, retry=retry).payload is True
    late.join()


def test_all_attempts_have_one_timeout_together(bus: shmbus.Bus, attach: Attach) -> None:
    client = attach("client")
    begin = time.monotonic()
    with pytest.raises(NoRoute) as caught:
        client.request("nobody", timeout=0.2, retry=Retry(attempts=10**6, backoff=0.05))
    assert time.monotonic() - begin < 10
    assert "there is no time for another" in caught.value.__notes__[0]
    with shmbus.within(0.01), pytest.raises(NoRoute):
        client.request("nobody", timeout=None, retry=Retry(attempts=2, backoff=60))


def test_what_it_does_not_name_ends_the_request(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    attempts: list[int] = []

    @server.handle("bad")
    def bad(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError

    server.handle("slow", lambda message: time.sleep(0.1))
    server.start()
    with pytest.raises(shmbus.RemoteError):
        client.request("bad", retry=Retry(backoff=AT_ONCE))
    assert attempts == [1]
    with pytest.raises(shmbus.RemoteError):
        client.request("bad", retry=Retry(on=(shmbus.RemoteError,), backoff=AT_ONCE))
    assert attempts == [1, 1, 2, 3]
    with pytest.raises(RequestTimeout) as caught:
        client.request("slow", timeout=0.01, retry=Retry(on=(errors.RequestError,)))
    assert caught.value.__notes__ == ["attempt 1 of 3, and there is no time for another"]


def test_closing_the_endpoint_ends_a_pause(bus: shmbus.Bus, attach: Attach) -> None:
    client, end = attach("client"), threading.Event()

    class Long(Retry, frozen=True):
        def pauses(self) -> Iterator[float]:
            end.set()
            yield 60.0

    def close() -> None:
        end.wait(60)
        client.close()

    closer = threading.Thread(target=close)
    closer.start()
    begin = time.monotonic()
    with pytest.raises(errors.EndpointClosed):
        client.request("nobody", timeout=None, retry=Long())
    assert time.monotonic() - begin < 30
    closer.join()


def test_pauses_double_up_to_a_second_and_differ() -> None:
    pauses = list(Retry(attempts=20, backoff=0.01).pauses())
    most = [min(0.01 * 2**n, 1.0) for n in range(19)]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, most, strict=True))
    assert len({next(Retry().pauses()) for _ in range(10)}) > 1
    assert list(Retry(attempts=3, backoff=0).pauses()) == [0, 0]
    long = Retry(attempts=5, backoff=30).pauses()
    assert all(b <= 2 * a for a, b in pairwise(long))
    assert list(Retry(attempts=1).pauses()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": True},
        {"backoff": "soon"},
        {"backoff": None},
        {"on": ()},
        {"on": (ValueError,)},
        {"on": NoRoute},
        {"on": (RequestTimeout,)},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidSetting, match=next(iter(wrong))):
        Retry(**wrong)


def test_something_else_than_a_retry_is_refused(bus: shmbus.Bus, attach: Attach) -> None:
    with pytest.raises(errors.InvalidSetting, match=r"shmbus\.Retry"):
        attach("client").request("x", retry=3)  # type: ignore[arg-type]
