"""Requests to endpoints of other sites: what is asked there is answered here, or fails as it would
here."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

import shmbus
import shmbus.aio
from shmbus import errors
from shmbus.testing import eventually, eventually_async, run_async
from shmbus.testing.leavings import in_shm
from tests.links.stage import Site, Stage, meet, mesh

Ends = tuple[shmbus.Endpoint, shmbus.Endpoint]


class Pair(NamedTuple):
    """Two sites, joined: who asks is at one, who answers at the other."""

    here: Site
    there: Site


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """For the tests of this module that break nothing."""
    with Stage(f"test-{os.getpid()}-{secrets.token_hex(4)}") as stage:
        here, there = stage.sites("here", "there")
        mesh(here, there)
        meet(here, there)
        warm_up(here, there)
        yield Pair(here, there)


def warm_up(here: Site, there: Site) -> None:
    """The links have made their pools, which stay until they end."""
    with (
        shmbus.attach(here.bus, name="asker") as asker,
        shmbus.attach(there.bus, name="worker") as worker,
    ):
        worker.handle("warm.up", lambda message: message.payload)
        served(asker, worker, "warm.up")
        asker.request("warm.up", bytes(300_000))


@pytest.fixture(autouse=True)
def _shmbus_leak_check() -> None:
    """The sites are there for all tests: `tidy` looks instead."""


@pytest.fixture
def tidy(pair: Pair) -> Iterator[None]:
    """The test's own endpoints are gone when it ends, and what they had in /dev/shm."""
    before = there_of(pair)
    yield
    eventually(lambda: not there_of(pair) - before, str(there_of(pair) - before), timeout=3)


def there_of(pair: Pair) -> set[str]:
    """What both buses have in /dev/shm; a link begins new logs of what it notes."""
    found = {*in_shm(pair.here.bus), *in_shm(pair.there.bus)}
    return {name for name in found if ":int:" not in name}


@pytest.fixture
def ends(pair: Pair, tidy: None) -> Iterator[Ends]:
    """Who asks, and who answers."""
    with (
        shmbus.attach(pair.here.bus, name="asker") as asker,
        shmbus.attach(pair.there.bus, name="worker") as worker,
    ):
        yield asker, worker


def served(asker: shmbus.Endpoint, worker: shmbus.Endpoint, *types: str) -> None:
    """What the worker handles has become known where the asker is."""
    worker.start()
    for type in types:
        eventually(partial(asker.matched, type, handlers=True), f"{type} is handled")


# Replies ------------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_an_endpoint_of_another_site_answers(ends: Ends) -> None:
    asker, worker = ends
    seen: list[shmbus.Message] = []

    @worker.handle("double")
    def double(message: shmbus.Message) -> object:
        seen.append(message)
        return message.payload * 2

    served(asker, worker, "double")
    reply = asker.request("double", 21)
    assert (reply.payload, reply.source, reply.site) == (42, "worker@there", "there")
    assert (seen[0].source, seen[0].site) == ("asker@here", "here")
    assert seen[0].deadline_ns is not None
    for payload in (None, b"raw", {"a": [1, 2]}, "x" * 300_000):
        worker_got = asker.request("double", [payload]).payload
        assert worker_got == [payload, payload]
    array = np.arange(100_000.0)
    assert np.array_equal(asker.request("double", array).payload, array * 2)


def test_the_time_at_which_it_was_asked_is_known_there_and_how_well(ends: Ends) -> None:
    asker, worker = ends
    seen: list[shmbus.Message] = []
    worker.handle("when", seen.append)
    served(asker, worker, "when")
    before = time.monotonic_ns()
    reply = asker.request("when")
    message = seen[0]
    assert message.sent_error_ns is not None
    assert message.sent_error_ns < 10**9  # both are on one machine, and it was measured
    assert reply.sent_ns > message.sent_ns - message.sent_error_ns
    assert message.sent_ns + message.sent_error_ns > before


def test_who_handles_it_here_is_preferred_and_after_him_who_does_there(ends: Ends) -> None:
    asker, worker = ends
    worker.handle("who", lambda message: "there")
    served(asker, worker, "who")
    assert asker.request("who").payload == "there"
    with shmbus.attach(asker.bus.name, name="local") as local:
        local.handle("who", lambda message: "here")
        local.start()
        assert {asker.request("who").payload for _ in range(10)} == {"here"}
    assert asker.request("who").payload == "there"


def test_who_has_waited_for_a_type_of_many_is_answered(ends: Ends) -> None:
    asker, worker = ends
    for n in range(60):
        worker.handle(f"of.many.{n}", lambda message: message.payload)
    worker.start()
    for n in range(60):
        asker.wait_for(f"of.many.{n}", timeout=30)
        assert asker.request(f"of.many.{n}", n).payload == n


def test_many_at_a_time_are_answered(ends: Ends) -> None:
    asker, worker = ends
    worker.handle("echo", lambda message: message.payload)
    served(asker, worker, "echo")
    asked = (("echo", number) for number in range(500))
    replies = [
        reply if isinstance(reply, errors.BusError) else reply.payload
        for reply in asker.request_many(asked, window=100)
    ]
    assert replies == [*range(500)]


class Calculator:
    """A service."""

    def divide(self, a: float, b: float) -> float:
        """One by the other."""
        return a / b

    def count(self, to: int) -> Iterator[int]:
        """From 0 on."""
        yield from range(to)


@pytest.mark.smoke
def test_a_service_of_another_site_is_called_as_one_here(ends: Ends) -> None:
    asker, worker = ends
    worker.offer(Calculator(), "calc")
    served(asker, worker, "calc.divide", "calc.count")
    calc = asker.client(Calculator, "calc")
    assert calc.divide(1, 4) == 0.25
    assert [*calc.count(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(errors.RemoteError) as caught:
        calc.divide(1, 0)
    assert (caught.value.endpoint, caught.value.error) == ("worker@there", "ZeroDivisionError")
    with pytest.raises(errors.InvalidArguments):
        asker.request("calc.divide", ["no number"])


# Commands -----------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_commands_go_to_who_handles_them_there_in_order_and_once(ends: Ends) -> None:
    asker, worker = ends
    got: list[shmbus.Message] = []
    worker.handle("job", got.append)
    served(asker, worker, "job")
    for number in range(200):
        asker.send("job", number)
    eventually(lambda: len(got) >= 200)
    assert [message.payload for message in got] == [*range(200)]
    assert {(message.source, message.kind) for message in got} == {("asker@here", "send")}


# Errors -------------------------------------------------------------------------------------------


def test_what_a_handler_raises_keeps_its_class_and_trace(ends: Ends) -> None:
    asker, worker = ends

    @worker.handle("fail")
    def fail(message: shmbus.Message) -> None:
        raise KeyError("nothing there")

    served(asker, worker, "fail")
    with pytest.raises(errors.RemoteError) as caught:
        asker.request("fail")
    assert (caught.value.type, caught.value.endpoint) == ("fail", "worker@there")
    assert caught.value.error == "KeyError"
    assert "nothing there" in caught.value.message
    assert "in fail" in caught.value.traceback


def test_a_handler_that_takes_too_long_is_named(ends: Ends) -> None:
    asker, worker = ends
    over = threading.Event()
    worker.handle("long", lambda message: over.wait(60), limit=0.05)
    served(asker, worker, "long")
    with pytest.raises(errors.HandlerTimeout) as caught:
        asker.request("long", timeout=60)
    over.set()
    assert caught.value.endpoint == "worker@there"


def test_a_handler_that_goes_away_is_named(pair: Pair, ends: Ends) -> None:
    asker, _ = ends
    begun = threading.Event()
    with shmbus.attach(pair.there.bus, name="leaver") as leaver:
        kept = []

        @leaver.handle("leave")
        def leave(message: shmbus.Message) -> None:
            message.defer()
            kept.append(message)
            begun.set()

        served(asker, leaver, "leave")
        reply = asker.request_async("leave", timeout=60)
        assert begun.wait(60)
        assert pair.there.served is not None
        pair.there.served.evict("leaver")
        with pytest.raises(errors.EndpointDied) as caught:
            reply.result()
    assert (caught.value.endpoint, caught.value.reason) == ("leaver@there", "evicted")


def test_nobody_anywhere_is_no_route_at_once(ends: Ends) -> None:
    asker, _ = ends
    with pytest.raises(errors.NoRoute):
        asker.request("nobody.handles.this", timeout=60)


def test_the_deadline_crosses_and_who_does_not_keep_it_is_named(ends: Ends) -> None:
    asker, worker = ends
    left: list[float | None] = []
    over = threading.Event()

    @worker.handle("slow")
    def slow(message: shmbus.Message) -> None:
        left.append(message.deadline_ns)
        over.wait(60)

    served(asker, worker, "slow")
    assert timed_out(asker, "slow", "worker@there").pid == os.getpid()
    with shmbus.attach(worker.bus.name, name="second") as second:
        second.handle("slow", slow)
        second.start()
        eventually(lambda: len(asker.bus.find("slow", role="handle")) == 2)
        assert "to second@there or worker@there" in str(timed_out(asker, "slow", "@link"))
    over.set()
    assert left[0] is not None


def timed_out(asker: shmbus.Endpoint, type: str, endpoint: str) -> errors.RequestTimeout:
    """Ask until the time is over at this endpoint, and not before."""
    for timeout in (0.1, 1.0, 10.0):
        with pytest.raises(errors.RequestTimeout) as caught:
            asker.request(type, timeout=timeout)
        if caught.value.endpoint == endpoint:
            break
    assert caught.value.endpoint == endpoint
    return caught.value


@pytest.mark.smoke
def test_a_request_that_is_withdrawn_is_withdrawn_there(ends: Ends) -> None:
    asker, worker = ends
    begun, cancelled = threading.Event(), threading.Event()

    @worker.handle("wait")
    def wait(message: shmbus.Message) -> None:
        begun.set()
        eventually(lambda: message.cancelled)
        cancelled.set()

    served(asker, worker, "wait")
    reply = asker.request_async("wait", timeout=None)
    assert begun.wait(60)
    reply.cancel()
    assert cancelled.wait(60)


@pytest.mark.smoke
def test_a_link_that_ends_is_named_at_once_to_who_waits(stage: Stage) -> None:
    here, there = stage.sites("here", "there")
    here.join()
    there.join(here, name="wan")
    meet(here, there)
    asker, worker = here.attach("asker"), there.attach("worker")
    begun, over = threading.Event(), threading.Event()

    @worker.handle("wait")
    def wait(message: shmbus.Message) -> None:
        begun.set()
        over.wait(60)

    served(asker, worker, "wait")
    reply = asker.request_async("wait", timeout=None)
    assert begun.wait(60)
    assert there.link is not None
    there.link.close()
    with pytest.raises(errors.EndpointDied) as caught:
        reply.result(timeout=60)
    assert caught.value.endpoint == "@wan@there"
    with pytest.raises(errors.NoRoute):  # from now on
        eventually_no_route(asker)
    over.set()


def eventually_no_route(asker: shmbus.Endpoint) -> None:
    """Ask until that fails."""
    while True:
        try:
            asker.request("wait", timeout=60)
        except errors.EndpointDied:
            continue


def test_who_is_told_that_a_site_is_up_can_ask_it_at_once(stage: Stage) -> None:
    here, there = stage.sites("here", "there")
    asker, worker = here.attach("asker"), there.attach("worker")
    types = [f"echo.{number}" for number in range(50)]  # for which a link needs its time
    for type in types:
        worker.handle(type, lambda message: message.payload)
    worker.start()
    asker.subscribe("$bus.link.up")
    mesh(here, there)
    up = asker.receive(60)
    assert up is not None
    assert up.payload["site"] == "there"
    assert [asker.request(type, type).payload for type in types] == types


def test_how_far_a_site_is_is_measured_when_it_is_asked(pair: Pair, tidy: None) -> None:
    assert pair.here.link is not None
    assert 0 < pair.here.link.ping("there") < 60
    with pytest.raises(errors.NoSuchSite):
        pair.here.link.ping("nowhere")


# Replies in parts ---------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_reply_in_parts_comes_in_order_and_ends(ends: Ends) -> None:
    asker, worker = ends
    worker.handle("count", lambda message: iter_of(message.payload))
    served(asker, worker, "count")
    with asker.stream("count", 1000) as parts:
        found = [*parts]
    assert [part.payload for part in found] == [*range(1000)]
    assert {part.source for part in found} == {"worker@there"}
    assert not [*asker.stream("count", 0)]


def iter_of(number: int) -> Iterator[int]:
    yield from range(number)


def test_a_whole_reply_is_the_only_part(ends: Ends) -> None:
    asker, worker = ends
    worker.handle("whole", lambda message: "all")
    served(asker, worker, "whole")
    assert [part.payload for part in asker.stream("whole")] == ["all"]


def test_who_gives_parts_waits_for_who_takes_them_and_learns_that_nobody_does(
    ends: Ends,
) -> None:
    asker, worker = ends
    given: list[int] = []
    closed = threading.Event()

    @worker.handle("flood")
    def flood(message: shmbus.Message) -> Iterator[bytes]:
        try:
            while True:
                given.append(len(given))
                yield bytes(10_000)
        finally:
            closed.set()

    served(asker, worker, "flood")
    with asker.stream("flood", timeout=60) as parts:
        for _ in range(200):
            next(parts)
        assert len(given) < 1000
    assert closed.wait(60)


def test_an_error_after_some_parts_keeps_its_class(ends: Ends) -> None:
    asker, worker = ends

    @worker.handle("break")
    def breaks(message: shmbus.Message) -> Iterator[int]:
        yield 1
        raise KeyError("here")

    served(asker, worker, "break")
    parts = asker.stream("break")
    assert next(parts).payload == 1
    with pytest.raises(errors.RemoteError) as caught:
        next(parts)
    assert (caught.value.endpoint, caught.value.error) == ("worker@there", "KeyError")


# A question to all --------------------------------------------------------------------------------


@pytest.mark.smoke
def test_a_question_to_all_is_one_to_those_of_all_sites(pair: Pair, ends: Ends) -> None:
    asker, worker = ends
    with (
        shmbus.attach(pair.here.bus, name="local") as local,
        shmbus.attach(pair.there.bus, name="broken") as broken,
    ):
        local.handle("all", lambda message: "here")
        worker.handle("all", lambda message: np.arange(message.payload))

        @broken.handle("all")
        def fails(message: shmbus.Message) -> None:
            raise ValueError("no")

        broken.start()
        local.start()
        served(asker, worker, "all")
        eventually(lambda: len(asker.gather("all", 3)) == 3)
        found = asker.gather("all", 3)
        assert found.keys() == {"local", "worker@there", "broken@there"}
        there, error = found["worker@there"], found["broken@there"]
        assert not isinstance(there, errors.BusError)
        assert there.payload.tolist() == [0, 1, 2]
        assert there.source == "worker@there"
        assert isinstance(error, errors.RemoteError)
        assert (error.endpoint, error.error) == ("broken@there", "ValueError")


# In an event loop ---------------------------------------------------------------------------------


@pytest.mark.smoke
def test_those_in_event_loops_ask_and_answer_as_well(pair: Pair, tidy: None) -> None:
    @run_async
    async def main() -> None:
        cancelled = asyncio.Event()
        async with (
            shmbus.aio.attach(pair.here.bus, name="asker") as asker,
            shmbus.aio.attach(pair.there.bus, name="worker") as worker,
        ):

            @worker.handle("hang")
            async def hang(message: shmbus.Message) -> None:
                try:
                    await asyncio.sleep(60)
                finally:
                    cancelled.set()

            @worker.handle("count")
            async def count(message: shmbus.Message) -> AsyncIterator[int]:
                for number in range(message.payload):
                    yield number

            worker.start()
            await eventually_async(lambda: asker.matched("hang", handlers=True))
            await eventually_async(lambda: asker.matched("count", handlers=True))
            async with asker.stream("count", 50) as parts:
                assert [part.payload async for part in parts] == [*range(50)]
            task = asyncio.create_task(asker.request("hang", timeout=None))
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait_for(cancelled.wait(), 60)
