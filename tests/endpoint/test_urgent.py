"""Urgent events: they overtake what waits at the receiver."""

from __future__ import annotations

import select
import threading
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmbus
from shmbus.testing import Attach, eventually


def payloads(endpoint: shmbus.Endpoint, count: int) -> list[Any]:
    got = [endpoint.receive(30) for _ in range(count)]
    return [message.payload for message in got if message]


@pytest.mark.smoke
def test_an_urgent_event_overtakes_a_thousand_that_wait(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink = attach("source"), attach("sink")
    sink.subscribe("x")
    source.publish_many([("x", n) for n in range(1000)])
    source.publish("x", "stop", urgent=True)
    eventually(lambda: bus.find("x")[0].untouched == 1001)
    message = sink.receive(30)
    assert message is not None
    assert (message.payload, message.urgent, message.lost) == ("stop", True, 0)
    assert payloads(sink, 1000) == list(range(1000))
    source.publish("x", "more")
    message = sink.receive(30)
    assert message is not None
    assert not message.urgent


def test_urgent_events_keep_their_order_in_batches_too(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink = attach("source"), attach("sink")
    sink.subscribe("x")
    with source.batch() as batch:
        for n in range(40):
            batch.publish("x", n, urgent=n % 2 == 0)
    eventually(lambda: bus.find("x")[0].untouched == 40)
    assert payloads(sink, 40) == [*range(0, 40, 2), *range(1, 40, 2)]


def test_what_a_group_gets_keeps_its_place(bus: shmbus.Bus, attach: Attach) -> None:
    source, member = attach("source"), attach("member")
    member.subscribe("x", group="workers")
    for n in range(2):
        source.publish("x", n, urgent=n == 1)
    got = [member.receive(30) for _ in range(2)]
    assert [(m.payload, m.urgent) for m in got if m] == [(0, False), (1, True)]


@pytest.mark.bus(in_bytes=8192, out_bytes=65536, block_timeout=60)
def test_an_urgent_event_passes_a_ring_that_is_full(bus: shmbus.Bus, attach: Attach) -> None:
    filler, source, sink = attach("filler"), attach("source"), attach("sink")
    sink.subscribe("x")
    filler.publish_many([("x", bytes(1000))] * 20)
    eventually(lambda: bus.find("x")[0].incoming.depth > 6000)
    source.publish("x", b"stop", urgent=True)
    eventually(lambda: bus.find("x")[0].incoming_urgent.depth > 0)
    assert payloads(sink, 21) == [b"stop", *[bytes(1000)] * 20]


@pytest.mark.bus(in_bytes=8192, out_bytes=65536)
def test_what_was_overtaken_does_not_tell_again_of_losses(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink = attach("source"), attach("sink")
    sink.subscribe("x", overflow="drop_newest")
    source.publish_many([("x", bytes(1000))] * 30)
    eventually(lambda: bus.find("x")[0].lost > 0)
    source.publish("x", b"stop", urgent=True)
    eventually(lambda: bus.find("x")[0].incoming_urgent.depth > 0)
    lost = bus.find("x")[0].lost
    losses = list[int]()
    while message := sink.receive(0):
        losses.append(message.lost)
    assert losses == [lost, *[0] * (30 - lost)]


def test_an_urgent_event_overtakes_however_large_it_is(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink = attach("source"), attach("sink")
    sink.subscribe("x")
    source.publish("x", b"")
    for size in (1900, 2048, 200_000):
        source.publish("x", bytes(size), urgent=True)
    eventually(lambda: bus.find("x")[0].untouched == 4)
    assert [len(p) for p in payloads(sink, 4)] == [1900, 2048, 200_000, 0]


def test_whoever_waits_is_woken_by_an_urgent_event(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink, watched = attach("source"), attach("sink"), attach("watched")
    sink.subscribe("x")
    watched.subscribe("x")
    descriptor, got = watched.fileno(), list[object]()
    thread = threading.Thread(target=lambda: got.extend(payloads(sink, 1)))
    thread.start()
    eventually(lambda: all(e.receivers for e in bus.find("x") if e.name == "sink"))
    source.publish("x", "now", urgent=True)
    thread.join(30)
    assert got == ["now"]
    assert select.select([descriptor], [], [], 30)[0]
    assert payloads(watched, 1) == ["now"]


def test_drain_handles_them_and_taps_show_them(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink, got = attach("source"), attach("sink"), list[tuple[object, bool]]()
    sink.subscribe("x", lambda message: got.append((message.payload, message.urgent)))
    observer = attach("observer")
    observer.tap("x")
    source.publish("x", 1)
    source.publish("x", 2, urgent=True)
    seen = [message for _ in range(2) if (message := observer.receive(30))]
    assert [(message.payload, message.urgent) for message in seen] == [(1, False), (2, True)]
    eventually(lambda: bus.find("x")[0].untouched == 2)
    sink.drain()
    assert got == [(2, True), (1, False)]


def test_those_of_one_that_is_evicted_are_counted(bus: shmbus.Bus, attach: Attach) -> None:
    source, sink, watch = attach("source"), attach("sink"), attach("watch")
    sink.subscribe("x")
    watch.subscribe("$bus.lost")
    for n in range(3):
        source.publish("x", n, urgent=n > 0)
    eventually(lambda: bus.find("x")[0].untouched == 3)
    bus.evict("sink")
    eventually(lambda: bus.health().lost == 3)


@pytest.mark.slow
@hypothesis.settings(
    max_examples=30, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=120), st.booleans())
def test_each_sender_s_order_is_kept_among_the_urgent_and_among_the_others(
    bus: shmbus.Bus, sent: list[tuple[int, bool]], batched: bool
) -> None:
    with (
        bus.attach("a") as a,
        bus.attach("b") as b,
        bus.attach("sink") as sink,
    ):
        sink.subscribe("x")
        sources = (a, b)
        senders = (a.batch(), b.batch()) if batched else sources
        got = list[tuple[str, bool, int]]()

        def collect() -> None:
            while len(got) < len(sent) and (message := sink.receive(30)):
                assert message.lost == 0
                got.append((message.source, message.urgent, message.payload))

        thread = threading.Thread(target=collect)
        thread.start()
        for n, (who, urgent) in enumerate(sent):
            senders[who].publish("x", n, urgent=urgent, timeout=None)
        for sender in senders:
            getattr(sender, "flush", lambda: None)()
        thread.join(30)
    for who, source in enumerate("ab"):
        for urgent in (False, True):
            wanted = [n for n, one in enumerate(sent) if one == (who, urgent)]
            assert [n for *one, n in got if one == [source, urgent]] == wanted
