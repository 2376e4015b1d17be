"""What a handler asks for ends with the request that it serves."""

from __future__ import annotations

import contextvars
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import shmbus
from shmbus import Message, RequestTimeout, errors
from shmbus.testing import Attach
from tests.kept import Kept

LONG, SHORT = 60.0, 0.1


def ended(ask: Callable[[], object]) -> RequestTimeout:
    with pytest.raises(RequestTimeout) as caught:
        ask()
    return caught.value


class Outer:
    """Calls `work` in the handler of "outer", and keeps what that returns or raises."""

    def __init__(self, attach: Attach, work: Callable[[shmbus.Endpoint], object]) -> None:
        self.client, self._middle, inner = attach("client"), attach("middle"), attach("inner")
        self._work, self._done, self.found = work, threading.Event(), list[Any]()
        inner.handle("never", Kept())
        inner.handle("deadline", lambda message: message.deadline_ns)
        inner.start()
        self._middle.handle("outer", self._handle)
        self._middle.start()

    def _handle(self, message: Message) -> None:
        try:
            self.found.append(message.deadline_ns)
            self.found.append(self._work(self._middle))
        except BaseException as why:
            self.found.append(why)
        finally:
            self._done.set()

    def ask(self, timeout: float | None) -> Any:
        """What came of `work`, for a request with this timeout."""
        self._done.clear()
        self.client.request_async("outer", timeout=timeout)
        assert self._done.wait(LONG)
        return self.found.pop()


@pytest.mark.smoke
def test_a_request_of_a_handler_ends_with_the_one_that_it_serves(
    bus: shmbus.Bus, attach: Attach
) -> None:
    why = Outer(attach, lambda middle: middle.request("never", timeout=LONG)).ask(SHORT)
    assert isinstance(why, RequestTimeout)
    assert (why.inherited, why.sent) == ("outer", True)
    assert 0 < why.seconds <= SHORT
    assert "what was left of the deadline of the request 'outer' that it serves" in str(why)
    assert "inherit_deadline=False" in str(why)
    assert str(pickle.loads(pickle.dumps(why))) == str(why)


@pytest.mark.parametrize(
    "ask",
    [
        lambda middle: middle.request("never", timeout=None),
        lambda middle: middle.request_async("never", timeout=None).result(),
        lambda middle: next(middle.request_many([("never", 1)], timeout=None)),
        lambda middle: (
            ThreadPoolExecutor(1)
            .submit(contextvars.copy_context().run, middle.request, "never", timeout=None)
            .result()
        ),
    ],
    ids=["request", "request_async", "request_many", "a thread with its context"],
)
def test_so_do_requests_that_would_wait_for_ever(
    bus: shmbus.Bus, attach: Attach, ask: Callable[[shmbus.Endpoint], object]
) -> None:
    why = Outer(attach, ask).ask(SHORT)
    assert isinstance(why, RequestTimeout)
    assert why.inherited == "outer"


def test_its_own_timeout_counts_where_that_is_sooner(bus: shmbus.Bus, attach: Attach) -> None:
    why = Outer(attach, lambda middle: middle.request("never", timeout=SHORT)).ask(LONG)
    assert (why.seconds, why.inherited) == (SHORT, None)
    assert "deadline" not in str(why)


def test_the_next_handler_is_told_the_same_deadline(bus: shmbus.Bus, attach: Attach) -> None:
    outer = Outer(attach, lambda middle: middle.request("deadline", timeout=None).payload)
    assert outer.ask(LONG) == outer.found.pop()
    assert outer.ask(None) is None  # a request without one has none to pass on


def test_what_is_to_outlive_the_request_says_so(bus: shmbus.Bus, attach: Attach) -> None:
    def ask(middle: shmbus.Endpoint) -> list[object]:
        free: Any = {"timeout": None, "inherit_deadline": False}
        return [
            middle.request("deadline", **free).payload,
            middle.request_async("deadline", **free).result().payload,
            *[getattr(r, "payload", r) for r in middle.request_many([("deadline", 1)], **free)],
        ]

    assert Outer(attach, ask).ask(LONG) == [None] * 3


def test_nothing_is_sent_when_the_deadline_has_passed(bus: shmbus.Bus, attach: Attach) -> None:
    def late(middle: shmbus.Endpoint) -> list[object]:
        while shmbus.deadline():
            time.sleep(0.001)
        before = sent(middle.name)
        found: list[object] = [
            ended(lambda: middle.request("never", timeout=LONG)),
            ended(lambda: middle.request_async("never", timeout=LONG)),
            *middle.request_many([("never", 1)], timeout=LONG),
        ]
        assert sent(middle.name) == before
        return found

    def sent(name: str) -> int:
        return next(e.sent.requests for e in bus.endpoints() if e.name == name)

    for why in Outer(attach, late).ask(SHORT):
        assert (why.inherited, why.sent, why.begun, why.seconds) == ("outer", False, False, 0.0)
        assert "was not sent: the deadline of the request 'outer'" in str(why)


def test_the_deadline_is_that_of_the_handler_that_runs_and_of_nothing_else(
    bus: shmbus.Bus, attach: Attach
) -> None:
    """Messages that a handler receives while it works have nothing of its deadline."""
    found: dict[str, float | None] = {}

    def see(message: Message) -> None:
        found[message.type] = shmbus.deadline()

    other = attach("other")
    other.subscribe("an.event", see)
    other.handle("a.command", see)
    other.handle("a.request", see)

    def work(middle: shmbus.Endpoint) -> float | None:
        middle.publish("an.event")
        middle.send("a.command")
        asked = middle.request_async("a.request", timeout=None, inherit_deadline=False)
        while not asked.done() or len(found) < 3:
            other.receive(0.01)
        return shmbus.deadline()

    left = Outer(attach, work).ask(LONG)
    assert found == {"an.event": None, "a.command": None, "a.request": None}
    assert 0 < left < LONG
    assert shmbus.deadline() is None


def test_a_handler_that_raises_leaves_no_deadline_behind(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint, client = attach("server"), attach("client")

    @endpoint.handle("bad")
    def bad(message: Message) -> None:
        raise ValueError

    asked = client.request_async("bad", timeout=LONG)
    while not asked.done():
        endpoint.receive(0.01)
    assert isinstance(asked.exception(), shmbus.RemoteError)
    assert shmbus.deadline() is None


def test_a_program_gives_its_work_a_deadline(bus: shmbus.Bus, attach: Attach) -> None:
    client, server = attach("client"), attach("server")
    server.handle("never", Kept())
    server.start()
    assert shmbus.deadline() is None
    with shmbus.within(LONG):
        with shmbus.within(SHORT), shmbus.within(LONG):  # the first to come counts
            left = shmbus.deadline()
            assert left is not None
            assert left <= SHORT
            why = ended(lambda: client.request("never", timeout=LONG))
            assert why.inherited == ""
            assert "what was left of the deadline of shmbus.within" in str(why)
            assert shmbus.deadline() == 0.0
        assert shmbus.deadline()
    assert shmbus.deadline() is None
    with pytest.raises(errors.InvalidSetting), shmbus.within("soon"):  # type: ignore[arg-type]
        pass
