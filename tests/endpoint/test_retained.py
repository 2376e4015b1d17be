"""The last values of each type are kept, and who subscribes later gets them first."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmbus
from shmbus import Message, errors
from shmbus.testing import Attach, BusProcess, StartWorker, eventually
from shmbus.views import retained

from .looks import info

SMALL = shmbus.Settings(in_bytes=4096, out_bytes=4096, reply_bytes=32768, max_requests=16)


def settle(endpoint: shmbus.Endpoint) -> None:
    """All that it has sent is forwarded."""
    eventually(lambda: not info(endpoint.bus, endpoint.name).unforwarded)


def taken(endpoint: shmbus.Endpoint, count: int) -> list[tuple[Any, bool]]:
    """So many payloads, and whether each was kept; and nothing else is there."""
    got = [endpoint.receive(60) for _ in range(count)]
    assert endpoint.receive(0) is None
    return [(m.payload, m.retained) for m in got if m is not None]


@pytest.mark.smoke
@pytest.mark.usefixtures("bus")
def test_who_subscribes_later_gets_the_last_value_then_what_comes(attach: Attach) -> None:
    source, display = attach("source"), attach("display")
    source.publish("state.door", "open", retain=True)
    source.publish("state.door", "closed", retain=True)
    settle(source)
    display.subscribe("state.*", history=1)
    source.publish("state.door", "open", retain=True)
    source.publish("state.door", "locked")
    got = taken(display, 3)
    assert got == [("closed", True), ("open", False), ("locked", False)]


def test_what_is_kept_counts_as_unrouted_no_more_than_what_somebody_gets(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source")
    source.publish("state.door", "open", retain=True)
    source.publish("state.door", None, retain=True)
    settle(source)
    assert (info(bus, "source").unrouted, bus.health().unrouted) == (0, 0)
    source.publish("state.door", "open")
    settle(source)
    assert (info(bus, "source").unrouted, bus.health().unrouted) == (1, 1)


def test_of_each_type_it_gets_as_many_as_it_wants_and_the_bus_keeps(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, one, all_of_them = attach("source"), attach("one"), attach("all")
    for n in range(20):
        source.publish("a.b", n, retain=True)
        source.publish("a.c", -n, retain=True)
    settle(source)
    one.subscribe("a.b", history=3)
    all_of_them.subscribe(">", history=1000)
    assert taken(one, 3) == [(17, True), (18, True), (19, True)]
    got = [payload for payload, _ in taken(all_of_them, 2 * bus.info().history)]
    assert [n for n in got if n > 0] == list(range(10, 20))
    assert [n for n in got if n < 0] == [-n for n in range(10, 20)]


def test_it_knows_who_had_published_a_value_though_that_has_gone(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("gone")
    source.publish("a", {"x": 1}, retain=True)
    source.close()
    attach("other")  # has its place now
    late = attach("late")
    late.subscribe("a", history=1)
    message = late.receive(60)
    assert message is not None
    assert (message.source, message.payload) == ("gone", {"x": 1})
    assert message.correlation_id is None
    (kept,) = bus.retained("a")
    assert (kept.source, kept.payload, kept.type) == ("gone", {"x": 1}, "a")


def test_without_a_payload_a_type_is_forgotten_and_who_is_there_is_told(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, there, late = attach("source"), attach("there"), attach("late")
    there.subscribe("a")
    source.publish("a", 1, retain=True)
    source.publish("b", 2, retain=True)
    source.publish("a", None, retain=True)
    settle(source)
    assert taken(there, 2) == [(1, False), (None, False)]
    assert [one.type for one in bus.retained()] == ["b"]
    late.subscribe(">", history=5)
    assert taken(late, 1) == [(2, True)]


@pytest.mark.usefixtures("bus")
def test_a_late_subscription_takes_nothing_from_one_that_was_there(attach: Attach) -> None:
    source, ep = attach("source"), attach("ep")
    ep.subscribe("a")
    source.publish("a", 1)
    settle(source)
    ep.subscribe("a", history=1)
    assert taken(ep, 1) == [(1, False)]


@pytest.mark.usefixtures("bus")
def test_two_subscriptions_of_one_endpoint_get_each_what_is_theirs(attach: Attach) -> None:
    source, ep = attach("source"), attach("ep")
    first: list[tuple[Any, bool]] = []
    second: list[tuple[Any, bool]] = []

    def into(got: list[tuple[Any, bool]]) -> Callable[[Message[Any]], None]:
        return lambda message: got.append((message.payload, message.retained))

    ep.subscribe("a", into(first))
    source.publish("a", 1, retain=True)
    settle(source)
    ep.subscribe("a", into(second), history=1)
    source.publish("a", 2, retain=True)
    settle(source)
    assert ep.receive(0) is None
    assert first == [(1, False), (2, False)]
    assert second == [(1, True), (2, False)]


def test_batches_keep_values_too(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    with source.batch() as batch:
        batch.publish("a", 1, retain=True)
        batch.publish("a", 2)
        batch.publish("b", 3, retain=True)
    settle(source)
    assert [(one.type, one.payload) for one in bus.retained()] == [("a", 1), ("b", 3)]


@pytest.mark.parametrize("bus_settings", [shmbus.Settings(history=2, retain_bytes=4096)])
def test_where_there_is_no_space_the_oldest_go_and_are_counted(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source = attach("source")
    for n in range(20):
        source.publish(f"a.{n}", n, retain=True)
    settle(source)
    assert [one.payload for one in bus.retained()] == list(range(4, 20))
    health = bus.health()
    assert (health.retained, health.retained_bytes, health.evicted) == (16, 4096, 4)
    source.publish("large", bytes(3000), retain=True)
    settle(source)
    (*_, large) = bus.retained()
    assert (large.type, large.payload) == ("large", bytes(3000))


def replace_all_the_time(endpoint: shmbus.Endpoint, size: int) -> None:
    for number in itertools.count():
        endpoint.publish("state", bytes([number % 251]) * size, retain=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [100, 200_000], ids=["in cells", "in a pool"])
@pytest.mark.parametrize("bus_settings", [shmbus.Settings(history=1, pool_bytes=1_600_000)])
def test_what_is_replaced_all_the_time_is_found_each_time_and_whole(
    bus: shmbus.Bus, worker: StartWorker, size: int
) -> None:
    source = worker(replace_all_the_time, size, name="source")
    eventually(lambda: bus.retained("state"))
    last = 0
    for _ in range(60):
        *_, found = bus.retained("state")
        assert found.payload == found.payload[:1] * size
        assert found.number >= last
        last = found.number
    source.kill()
    *_, found = bus.retained("state")
    assert found.payload == found.payload[:1] * size


@pytest.mark.slow
def test_large_values_that_are_replaced_all_the_time_are_shown_and_whole_but_for_those_it_says(
    bus: shmbus.Bus, worker: StartWorker
) -> None:
    worker(replace_all_the_time, 4 << 20, name="source")
    eventually(lambda: bus.retained("state"))
    for _ in range(3):
        found = bus.retained("state")
        assert any(one.whole for one in found)
        for one in found:
            assert (one.size, len(one.raw)) == (4 << 20, one.whole * (4 << 20))
            assert one.raw == one.raw[:1] * len(one.raw)


@pytest.mark.bus(history=1)
def test_a_large_value_that_is_replaced_at_each_attempt_is_shown_without_its_payload(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read, times = attach("source"), os.preadv, 4

    def publish() -> None:
        source.publish("state", bytes(300_000), retain=True, timeout=30)
        settle(source)

    def replace_and_read(file: int, buffers: Any, offset: int) -> int:
        nonlocal times
        if times:
            times -= 1
            publish()
        return read(file, buffers, offset)

    publish()
    source.publish("other", 1, retain=True)
    settle(source)
    monkeypatch.setattr(os, "preadv", replace_and_read)
    with shmbus.observe(bus.name) as view:
        assert [(one.type, one.whole) for one in view.retained()] == [
            ("other", True),
            ("state", True),  # at the fifth attempt
        ]
        monkeypatch.setattr(retained, "_PATIENCE", 0.0)
        times = 4
        other, state = view.retained()
        assert (other.payload, other.whole) == (1, True)
        assert (state.payload, state.raw, state.whole) == (None, b"", False)
        assert (state.type, state.source, state.size) == ("state", "source", 300_000)


@pytest.mark.bus(retain_bytes=1 << 20)
def test_large_values_count_with_their_size(bus: shmbus.Bus, attach: Attach) -> None:
    source = attach("source")
    for n in range(5):
        source.publish(f"a.{n}", bytes(300_000), retain=True, timeout=30)
    settle(source)
    assert [one.type for one in bus.retained()] == ["a.2", "a.3", "a.4"]
    health = bus.health()
    assert 900_000 < health.retained_bytes <= 1 << 20
    assert (health.retained, health.evicted) == (3, 2)


def test_a_newer_value_replaces_one_beside_which_it_does_not_fit(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, other = attach("source", settings=shmbus.Settings(pool_bytes=1 << 20)), attach("other")
    other.publish("y", bytes(300_000), retain=True)
    for size in (400_000, 900_000, 1 << 20):
        source.publish("x", bytes(size), retain=True, timeout=30)
        settle(source)
        assert [(one.type, one.size) for one in bus.retained("x")] == [("x", size)]
    assert bus.health().evicted == 2
    assert len(bus.retained("y")) == 1


@pytest.mark.bus(pool_bytes=1 << 20, pool_total_bytes=2 << 20)
def test_values_of_those_who_have_gone_keep_nobody_from_publishing(
    bus: shmbus.Bus, attach: Attach
) -> None:
    for n in range(6):
        source = attach(f"source{n}")
        source.publish(f"last.{n}", bytes(700_000), retain=True, timeout=30)
        source.close()
    assert bus.retained("last.5")
    assert 3 <= bus.health().evicted <= 4


@pytest.mark.parametrize("bus_settings", [SMALL])
def test_who_reads_slowly_catches_up_and_holds_up_nobody(
    bus: shmbus.Bus, bus_settings: shmbus.Settings, attach: Attach
) -> None:
    source, late, other = attach("source"), attach("late"), attach("other")
    for n in range(100):
        source.publish(f"a.{n}", [n, "x" * 100], retain=True)
    settle(source)
    late.subscribe(">", history=1)
    (backlog,) = bus.backlogs()
    assert backlog.subscriber == "late"
    assert backlog.takers == ("late",)
    other.subscribe("a.>")
    for n in range(100, 150):
        source.publish(f"a.{n}", [n, ""])
        message = other.receive(60)
        assert message is not None
        assert message.payload[0] == n
    got = [late.receive(60) for _ in range(150)]
    assert [m.payload[0] for m in got if m is not None] == list(range(150))
    assert [m.retained for m in got if m is not None] == [True] * 100 + [False] * 50
    source.publish("a.last", 1)
    assert taken(late, 1) == [(1, False)]
    assert not bus.backlogs()
    assert bus.health().lost == 0


@pytest.mark.parametrize("bus_settings", [SMALL])
def test_who_closes_while_it_catches_up_leaves_nothing(bus: shmbus.Bus, attach: Attach) -> None:
    source, late = attach("source"), attach("late")
    for n in range(100):
        source.publish(f"a.{n}", [n, "x" * 100], retain=True)
    settle(source)
    subscription = late.subscribe(">", history=1)
    late.subscribe("a.>", history=2)
    assert len(bus.backlogs()) == 2
    subscription.close()
    eventually(lambda: len(bus.backlogs()) == 1)
    late.close()
    eventually(lambda: not bus.backlogs() and len(bus.endpoints()) == 1)


@pytest.mark.slow
def test_values_outlive_publisher_and_dispatcher(
    bus_process: BusProcess, worker: StartWorker, attach: Attach
) -> None:
    source = attach("source", reconnect=True)
    source.publish("a", "first", retain=True)
    doomed = worker(publish_and_die, name="doomed")
    eventually(lambda: [one.source for one in source.bus.retained("b")] == ["doomed"])
    doomed.kill()
    bus_process.kill()
    bus_process.restart()
    source.publish("a", "second", retain=True)
    settle(source)
    late = attach("late")
    late.subscribe(">", history=2)
    got = taken(late, 3)
    assert got == [("first", True), ("mine", True), ("second", True)]


def publish_and_die(doomed: shmbus.Endpoint) -> None:
    doomed.publish("b", "mine", retain=True)
    doomed.run()


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"history": -1}, "no such number"),
        ({"history": True}, "no such number"),
        ({"history": 1, "group": "g"}, "share"),
        ({"history": 1, "pattern": "$bus.>"}, "its own events"),
    ],
)
def test_a_history_that_cannot_be_is_refused(
    attach: Attach, options: dict[str, Any], reason: str
) -> None:
    ep = attach("ep")
    with pytest.raises(errors.InvalidSetting, match=reason) as caught:
        ep.subscribe(options.pop("pattern", "a"), **options)
    assert caught.value.setting == "history"


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "keep", "say", "clear", "subscribe", "unsubscribe", "look"]),
        st.integers(0, 2),
        st.integers(1, 4),
    ),
    max_size=25,
)


@pytest.mark.slow
@given(operations=OPERATIONS)
@settings(max_examples=20, deadline=None)
def test_as_a_simple_model_says(operations: list[tuple[str, int, int]]) -> None:
    """Types a, b and c, of each the last three; who subscribes hears those, then the rest."""
    with (
        shmbus.serve("retained-model", settings=shmbus.Settings(history=3)) as bus,
        bus.attach("source") as source,
        bus.attach("ear") as ear,
    ):
        kept: dict[str, deque[tuple[int, Any]]] = defaultdict(lambda: deque(maxlen=3))
        wanted: list[list[Any]] = []
        heard: list[list[Any]] = []
        there: dict[int, tuple[str, shmbus.Subscription]] = {}
        for number, (what, which, count) in enumerate(operations):
            type = "abc"[which]
            if what in ("keep", "say", "clear"):
                payload = None if what == "clear" else number
                source.publish(type, payload, retain=what != "say")
                settle(source)
                if what == "keep":
                    kept[type].append((number, payload))
                elif what == "clear":
                    kept[type].clear()
                for at, (pattern, _) in there.items():
                    if pattern in (type, ">"):
                        wanted[at].append((type, payload, False))
            elif what == "subscribe":
                pattern = type if count % 2 else ">"
                last = sorted(
                    (n, name, payload)
                    for name, values in kept.items()
                    if pattern in (name, ">")
                    for n, payload in list(values)[-count:]
                )
                wanted.append([(name, payload, True) for _, name, payload in last])
                heard.append([])
                subscription = ear.subscribe(pattern, _into(heard[-1]), history=count)
                there[len(wanted) - 1] = pattern, subscription
            elif what == "unsubscribe" and there:
                ear.receive(0)
                there.pop(min(there))[1].close()
            ear.receive(0)
        assert heard == wanted
        found = [(one.number, one.type, one.payload) for one in bus.retained()]
        assert [(type, payload) for _, type, payload in found] == [
            (type, payload)
            for _, type, payload in sorted(
                (n, type, payload) for type, values in kept.items() for n, payload in values
            )
        ]


def _into(heard: list[Any]) -> Callable[[Message[Any]], None]:
    return lambda message: heard.append((message.type, message.payload, message.retained))


@pytest.mark.parametrize("bus_settings", [SMALL])
@pytest.mark.parametrize("killed", [False, True], ids=["served", "dispatchers are killed"])
@pytest.mark.slow
def test_at_the_seam_nothing_is_missing_and_nothing_comes_twice(
    bus_process: BusProcess, attach: Attach, killed: bool
) -> None:
    """Who comes at any moment: of each type numbers without a gap, those that were kept first."""
    source, stop = attach("source", reconnect=True), threading.Event()

    def publish() -> None:
        for n in range(1 << 30):
            if stop.is_set():
                return
            source.publish(f"t.{n % 3}", n, retain=True, timeout=None)

    publisher = threading.Thread(target=publish)
    publisher.start()
    chance = random.Random(1)
    try:
        for turn in range(30):
            late = attach(f"late{turn}", reconnect=True)
            late.subscribe("t.*", history=chance.randint(1, 10))
            if chance.random() < 0.3:
                late.subscribe("t.1", lambda message: None, history=2)
            if killed and turn % 10 == 5:
                bus_process.kill()
                bus_process.restart()
            last: dict[str, int] = {}
            live: set[str] = set()
            for _ in range(120):
                message = late.receive(60)
                assert message is not None
                assert last.get(message.type, message.payload - 3) == message.payload - 3
                assert not (message.retained and message.type in live)
                last[message.type] = message.payload
                if not message.retained:
                    live.add(message.type)
            assert len(live) == 3
            late.close()
    finally:
        stop.set()
        publisher.join(60)
