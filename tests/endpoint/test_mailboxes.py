"""Subscriptions that would rather have the newest than all: `drop_oldest` and `latest`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import shmbus
from shmbus import errors
from shmbus.shared import names
from shmbus.shared.patterns import Overflow
from shmbus.testing import (
    Attach,
    BusProcess,
    MakeRecorder,
    StartWorker,
    eventually,
    kill,
    run_python,
)
from shmbus.views import EndpointInfo, Losses, Mailbox


def mailbox_files(bus: str) -> list[Path]:
    return [path for path, entry in names.entries(bus) if entry.kind == "mailbox"]


def info(bus: shmbus.BusView, name: str) -> EndpointInfo:
    return next(e for e in bus.endpoints() if e.name == name)


def mailbox(bus: shmbus.BusView, name: str) -> Mailbox:
    (found,) = info(bus, name).mailboxes
    return found


def settle(bus: shmbus.BusView, *senders: str) -> None:
    """All that these have sent is where it goes."""
    eventually(lambda: all(info(bus, sender).unforwarded == 0 for sender in senders))


def waiting(endpoint: shmbus.Endpoint) -> list[tuple[str, object, int]]:
    """What there is to take: type, payload, and how many were lost before."""
    found = []
    while (message := endpoint.receive(0)) is not None:
        found.append((message.type, message.payload, message.lost))
    return found


@pytest.mark.smoke
def test_latest_gives_the_newest_of_each_type_and_says_what_was_lost(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, display = attach("source"), attach("display")
    display.subscribe("speed.*", overflow="latest")
    source.publish_many([(f"speed.{n % 3}", n) for n in range(300)])
    settle(bus, "source")
    assert waiting(display) == [("speed.0", 297, 297), ("speed.1", 298, 0), ("speed.2", 299, 0)]
    source.publish("speed.1", "later")
    settle(bus, "source")
    assert waiting(display) == [("speed.1", "later", 0)]
    seen = info(bus, "display")
    assert (seen.lost, seen.lost_by.dropped, seen.received.events) == (297, 297, 4)
    assert bus.health().state == "healthy"


def test_the_bus_counts_what_a_mailbox_loses_at_once_and_once(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, display = attach("source"), attach("display")
    display.subscribe("speed", overflow="latest")
    source.publish_many([("speed", n) for n in range(100)])
    settle(bus, "source")
    seen = bus.health()
    assert (seen.lost, seen.lost_by, seen.state) == (99, Losses(dropped=99), "healthy")
    assert waiting(display) == [("speed", 99, 99)]
    assert bus.health().lost == 99
    display.close()
    eventually(lambda: not [e for e in bus.endpoints() if e.name == "display"])
    seen = bus.health()
    assert (seen.lost, seen.lost_by, seen.state) == (99, Losses(dropped=99), "healthy")


def test_the_bus_counts_once_what_an_endpoint_lost_that_ends_in_the_midst_of_a_look(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends_meanwhile(*arguments: Any, **named: Any) -> list[EndpointInfo]:
        found = endpoints(*arguments, **named)
        display.close()
        return found

    source, display = attach("source"), attach("display")
    display.subscribe("speed", overflow="latest")
    source.publish_many([("speed", n) for n in range(100)])
    settle(bus, "source")
    assert waiting(display) == [("speed", 99, 99)]
    endpoints = bus._registry.endpoints
    monkeypatch.setattr(bus._registry, "endpoints", ends_meanwhile)
    assert [bus.health().lost for _ in range(2)] == [99, 99]


def test_drop_oldest_keeps_the_last_in_order(bus: shmbus.Bus, attach: Attach) -> None:
    source, here = attach("source"), attach("here")
    here.subscribe("x", overflow="drop_oldest", depth=4)
    source.publish_many([("x", n) for n in range(10)])
    settle(bus, "source")
    assert mailbox(bus, "here").waiting == 4
    assert waiting(here) == [("x", 6, 6), ("x", 7, 0), ("x", 8, 0), ("x", 9, 0)]
    source.publish("x", 10)
    settle(bus, "source")
    assert waiting(here) == [("x", 10, 0)]
    box = mailbox(bus, "here")
    assert (box.came, box.received, box.waiting, box.lost) == (11, 5, 0, 6)


def test_where_there_are_more_types_than_its_depth_the_one_that_has_waited_longest_goes(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, here = attach("source"), attach("here")
    here.subscribe(">", overflow="latest", depth=3)
    for n in (1, 2, 3, 1, 4, 5):
        source.publish(f"t.{n}", n)
    settle(bus, "source")
    assert waiting(here) == [("t.1", 1, 3), ("t.4", 4, 0), ("t.5", 5, 0)]
    source.publish("t.2", 2)
    settle(bus, "source")
    assert waiting(here) == [("t.2", 2, 0)]


def test_each_type_has_its_turn_however_often_others_come(bus: shmbus.Bus, attach: Attach) -> None:
    source, here = attach("source"), attach("here")
    here.subscribe("camera.*", overflow="latest")
    seen = []
    for n in range(6):  # a burst of all before each look
        source.publish_many([(f"camera.{c}", n) for c in range(3)])
        settle(bus, "source")
        message = here.receive(10)
        assert message is not None
        seen.append((message.type, message.payload))
    assert seen == [(f"camera.{n % 3}", n) for n in range(6)]


@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_messages_as_large_as_may_be_fit_and_the_oldest_goes_where_bytes_run_out(
    bus: shmbus.Bus, attach: Attach, overflow: Overflow
) -> None:
    source, here = attach("source"), attach("here")
    here.subscribe(">", overflow=overflow)
    large = 128 * 1024 - 100
    for n in range(12):
        source.publish(f"frame.{n}", bytes([n]) * large)
    settle(bus, "source")
    got = []
    while (message := here.receive(0)) is not None:
        got.append(message.payload)
    assert got
    assert [one[0] for one in got] == list(range(12 - len(got), 12))
    assert all(one == one[:1] * large for one in got)
    box = mailbox(bus, "here")
    assert (box.came, box.received + box.lost) == (12, 12)


@pytest.mark.usefixtures("bus")
def test_one_is_closed_while_another_thread_waits_for_what_comes(bus_name: str) -> None:
    run_python(
        """
        import threading, shmbus
        with shmbus.attach(name="sender") as sender, \\
                shmbus.attach(name="one") as one:
            one.subscribe("end")
            ends = threading.Event()
            def take():
                while one.receive(60).type != "end":
                    pass
                ends.set()
            threading.Thread(target=take).start()
            for n in range(60):
                with one.subscribe("f", overflow="drop_oldest", depth=8):
                    for _ in range(n % 8):
                        sender.publish("f")
            sender.publish("end")
            assert ends.wait(60)
        """,
        bus=bus_name,
    )


def test_it_neither_waits_nor_delays_anybody(bus: shmbus.Bus, attach: Attach) -> None:
    source, display, other = attach("source"), attach("display"), attach("other")
    display.subscribe(">", overflow="latest")
    count = 0

    def counted(message: shmbus.Message) -> None:
        nonlocal count
        count += 1

    other.subscribe(">", counted)
    other.start()
    for n in range(20_000):
        source.publish("x", n)
    settle(bus, "source")
    eventually(lambda: count == 20_000)
    assert waiting(display)[-1][1] == 19_999
    assert not info(bus, "display").stalled


@pytest.mark.parametrize("bus_settings", [shmbus.Settings(pool_bytes=8 * 204_800)])
def test_nobody_waits_for_a_pool_because_of_a_mailbox_that_is_not_read(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, display, other = attach("source"), attach("display"), attach("other")
    display.subscribe("picture", overflow="latest")
    other.subscribe("picture", overflow="drop_oldest", depth=100)
    first = None
    for n in range(50):
        source.publish("picture", bytes([n]) * 200_000, timeout=60)
        settle(bus, "source")
        first = first or display.receive(0)
    assert first is not None
    assert first.payload == bytes(200_000)  # it has been looked at all the time
    (newest,) = waiting(display)
    assert newest[1] == bytes([49]) * 200_000
    there = waiting(other)
    assert there[-1][1] == newest[1]
    assert len(there) <= 2


def test_callbacks_and_others_of_the_endpoint_get_what_is_theirs(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, here = attach("source"), attach("here")
    newest, each = list[int](), list[int]()
    go_on = threading.Event()

    def slow(message: shmbus.Message) -> None:
        newest.append(message.payload)
        if message.payload == 0:
            assert go_on.wait(60)

    here.subscribe("x", slow, overflow="latest", payload_type=int)
    here.subscribe("x", lambda message: each.append(message.payload))
    here.start(threads=2)
    source.publish("x", 0)
    eventually(lambda: newest == [0] and each == [0])
    source.publish_many([("x", n) for n in range(1, 100)])
    eventually(lambda: each == list(range(100)))
    settle(bus, "source")
    go_on.set()
    eventually(lambda: len(newest) > 1)
    here.drain()
    assert newest == sorted(newest)
    assert newest[-1] == 99


def test_what_waits_in_a_mailbox_and_in_the_ring_takes_turns(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, here = attach("source"), attach("here")
    here.subscribe("kept.*", overflow="drop_oldest")
    here.subscribe("all")
    for n in range(3):
        source.publish(f"kept.{n}")
        source.publish("all")
    settle(bus, "source")
    kinds = [type.partition(".")[0] for type, _, _ in waiting(here)]
    assert kinds in (["kept", "all"] * 3, ["all", "kept"] * 3)


def test_a_closed_one_leaves_no_mailbox(bus: shmbus.Bus, attach: Attach) -> None:
    source, here = attach("source"), attach("here")
    first = here.subscribe("x", overflow="latest")
    with here.subscribe("x", overflow="drop_oldest"):
        assert len(mailbox_files(bus.name)) == 2
    source.publish("x", 1)
    settle(bus, "source")
    first.close()
    assert mailbox_files(bus.name) == []
    assert waiting(here) == []
    assert here.subscribe("x", overflow="latest").pattern == "x"
    source.publish("x", 2)
    settle(bus, "source")
    assert waiting(here) == [("x", 2, 0)]


def take_some(endpoint: shmbus.Endpoint, took: int) -> None:
    endpoint.subscribe("x", overflow="drop_oldest", depth=8)
    endpoint.publish("ready")
    for _ in range(took):
        assert endpoint.receive(60) is not None
    endpoint.publish("took")
    threading.Event().wait()


def test_what_the_dead_had_not_taken_is_lost_and_counted(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    source, said, downs = attach("source"), recorder("*"), recorder("$bus.endpoint.down")
    dying = worker(take_some, 3, name="dying")
    said.wait(where=lambda m: m.type == "ready")
    source.publish_many([("x", n) for n in range(3)])
    said.wait(where=lambda m: m.type == "took")
    source.publish_many([("x", n) for n in range(100)])
    settle(bus, "source")
    assert mailbox(bus, "dying").lost == 92
    kill(dying.pid)
    downs.wait(where=lambda m: m.payload["name"] == "dying")
    eventually(lambda: bus.health().lost_by.dropped == 100)
    eventually(lambda: not mailbox_files(bus.name))
    assert bus.health().lost == 100


@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_a_successor_adopts_it_with_what_is_in_it(
    bus_process: BusProcess, attach: Attach, overflow: Overflow
) -> None:
    source, here = attach("source", reconnect=True), attach("here", reconnect=True)
    here.subscribe("x.*", overflow=overflow, depth=3)
    source.publish_many([(f"x.{n % 4}", n) for n in range(8)])
    settle(source.bus, "source")
    bus_process.kill()
    source.publish("x.1", 8)
    bus_process.start()
    source.publish("x.2", 9)
    settle(source.bus, "source")
    assert waiting(here) == [("x.3", 7, 7), ("x.1", 8, 0), ("x.2", 9, 0)]
    box = mailbox(source.bus, "here")
    assert (box.came, box.received, box.lost) == (10, 3, 7)


def test_a_newer_message_replaces_one_beside_which_it_does_not_fit(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, here = attach("source", settings=shmbus.Settings(pool_bytes=1 << 20)), attach("here")
    here.subscribe("x", overflow="latest")
    for size in (700_000, 800_000):
        source.publish("x", bytes(size), timeout=30)
    message = here.receive(30)
    assert message is not None
    assert (message.size, message.lost) == (800_000, 1)


def kept_states(source: shmbus.Endpoint) -> None:
    for n in range(4):
        source.publish("x.a", n, retain=True)
        source.publish("x.b", -n, retain=True)
    settle(source.bus, source.name)


@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_with_history_it_has_the_state_first_then_the_newest(
    bus: shmbus.Bus, attach: Attach, overflow: Overflow
) -> None:
    source, display = attach("source"), attach("display")
    kept_states(source)
    display.subscribe("x.*", overflow=overflow, depth=3, history=2)
    there = mailbox(bus, "display")
    assert (there.came, there.waiting) == ((2, 2) if overflow == "latest" else (4, 3))
    source.publish("x.a", 4)
    settle(bus, "source")
    got = [display.receive(0) for _ in range(there.waiting)]
    assert display.receive(0) is None
    state = [(m.payload, m.retained, m.source, m.lost) for m in got if m is not None]
    if overflow == "latest":
        assert state == [(-3, True, "source", 1), (4, False, "source", 0)]
    else:
        assert [payload for payload, *_ in state] == [3, -3, 4]
        assert [retained for _, retained, *_ in state] == [True, True, False]
        assert state[0][-1] == 2
    assert bus.health().healthy


def test_of_a_state_that_its_depth_does_not_hold_the_last_types_are_there(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, here = attach("source"), attach("here")
    for n in range(5):
        source.publish(f"x.{n}", n, retain=True)
    settle(bus, "source")
    here.subscribe(">", overflow="latest", depth=2, history=1)
    assert waiting(here) == [("x.3", 3, 3), ("x.4", 4, 0)]
    assert info(bus, "here").lost_by.dropped == 3


def test_a_successor_gives_the_state_once(bus_process: BusProcess, attach: Attach) -> None:
    source, here = attach("source", reconnect=True), attach("here", reconnect=True)
    kept_states(source)
    here.subscribe("x.*", overflow="latest", history=1)
    taken = here.receive(60)
    assert taken is not None
    assert taken.retained
    bus_process.kill()
    bus_process.start()
    source.publish("x.a", "later")
    settle(source.bus, "source")
    assert waiting(here) == [("x.b", -3, 0), ("x.a", "later", 0)]


def test_a_value_too_large_for_its_ring_is_lost_there_and_told_of(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, watch = attach("source"), attach("watch")
    source.publish("x.a", bytes(3000), retain=True)
    source.publish("x.b", 1, retain=True)
    settle(bus, "source")
    small = attach("small", settings=shmbus.Settings(in_bytes=4096))
    watch.subscribe("$bus.lost")
    small.subscribe("x.*", overflow="latest", history=1)
    assert waiting(small) == [("x.b", 1, 0)]
    assert info(bus, "small").lost_by.too_large == 1
    told = watch.receive(60)
    assert told is not None
    assert told.payload["type"] == "x.a"


def test_one_that_subscribes_anew_with_a_new_log_keeps_what_is_in_it(
    bus: shmbus.Bus, attach: Attach
) -> None:
    source, here = attach("source"), attach("here")
    here.subscribe("x", overflow="latest")
    source.publish("x", 1)
    settle(bus, "source")
    for n in range(100):  # more than the log takes
        here.subscribe(f"another.{n}.{'y' * 100}").close()
    assert waiting(here) == [("x", 1, 0)]
    source.publish("x", 2)
    settle(bus, "source")
    assert waiting(here) == [("x", 2, 0)]
    assert len(mailbox_files(bus.name)) == 1


def test_what_makes_no_sense_is_refused(bus: shmbus.Bus, attach: Attach) -> None:
    here = attach("here")
    wrong: list[tuple[str, dict[str, object]]] = [
        ("depth", {"depth": 3}),
        ("depth", {"depth": 3, "overflow": "drop_newest"}),
        ("depth", {"depth": 0, "overflow": "latest"}),
        ("depth", {"depth": 65537, "overflow": "drop_oldest"}),
        ("depth", {"depth": True, "overflow": "latest"}),
        ("depth", {"depth": 2.5, "overflow": "latest"}),
        ("overflow", {"group": "g", "overflow": "latest"}),
        ("overflow", {"group": "g", "overflow": "drop_oldest"}),
        ("overflow", {"overflow": "newest"}),
    ]
    for setting, arguments in wrong:
        with pytest.raises(errors.InvalidSetting) as caught:
            here.subscribe("x", **arguments)  # type: ignore[arg-type]
        assert caught.value.setting == setting
    assert mailbox_files(bus.name) == []


def test_as_many_as_an_endpoint_may_have(bus: shmbus.Bus, attach: Attach) -> None:
    here = attach("here")
    for n in range(32):
        here.subscribe(f"x.{n}", overflow="latest", depth=1)
    with pytest.raises(errors.TooManyMailboxes) as caught:
        here.subscribe("one.more", overflow="latest")
    assert (caught.value.limit, caught.value.what) == (32, "endpoint")


@pytest.mark.slow
def test_as_many_as_a_bus_may_have_of_which_health_tells(bus: shmbus.Bus, attach: Attach) -> None:
    assert bus.health().healthy
    for k in range(6):
        here = attach(f"here.{k}")
        for n in range(32):
            here.subscribe(f"x.{n}", overflow="latest", depth=1)
    with pytest.raises(errors.TooManyMailboxes) as caught:
        attach("one.more").subscribe("x", overflow="latest")
    assert (caught.value.limit, caught.value.what) == (192, "bus")
    health = bus.health()
    assert (health.state, health.mailboxes_failed) == ("degraded", 1)
    assert health.reasons[0].startswith("mailboxes could not be made")


class Expected:
    """What a mailbox has, and what comes out of it."""

    def __init__(self, overflow: Overflow, depth: int) -> None:
        self.latest, self.depth = overflow == "latest", depth
        self.kept: dict[object, tuple[str, int]] = {}
        self.taken = set[object]()
        self.came = self.got = 0

    def put(self, type: str) -> None:
        self.came += 1
        key: object = type if self.latest else self.came
        self.kept.pop(key, None)
        self.taken.discard(key)
        self.kept[key] = (type, self.came)
        while len(self.kept) > self.depth:
            self.taken.discard(oldest := next(iter(self.kept)))
            del self.kept[oldest]

    def take_all(self) -> list[tuple[str, int]]:
        found = [kept for key, kept in self.kept.items() if key not in self.taken]
        self.taken |= set(self.kept)
        self.got += len(found)
        return found


@pytest.mark.slow
@pytest.mark.parametrize("overflow", ["latest", "drop_oldest"])
def test_what_comes_out_is_what_was_to_be_kept_whatever_goes_in(
    bus: shmbus.Bus, attach: Attach, overflow: Overflow
) -> None:
    source = attach("source")
    ways = st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=6)

    @hypothesis.settings(max_examples=40)
    @hypothesis.given(st.integers(1, 4), ways)
    def check(depth: int, bursts: list[list[int]]) -> None:
        expected, lost = Expected(overflow, depth), 0
        with attach("here") as here:
            here.subscribe("t.*", overflow=overflow, depth=depth)
            for burst in bursts:
                for kind in burst:
                    expected.put(f"t.{kind}")
                    source.publish(f"t.{kind}", expected.came)
                settle(bus, "source")
                found = waiting(here)
                assert [(type, n) for type, n, _ in found] == expected.take_all()
                lost += sum(gone for _, _, gone in found)
                box = mailbox(bus, "here")
                assert (box.came, box.received) == (expected.came, expected.got)
            assert lost == expected.came - expected.got

    check()
