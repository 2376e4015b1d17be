"""What health says of a bus that runs: what is lost and why, what waits, who died."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import shmbus
from shmbus.shared import layout
from shmbus.testing import Attach, BusProcess, StartWorker, eventually, kill
from tests.by_hand import BusByHand
from tests.kept import Kept

SMALL = shmbus.Settings(in_bytes=4096, out_bytes=4096)
patient = pytest.mark.bus(block_timeout=60, stall_after=60)


def first_look(bus: str) -> shmbus.views.Health:
    """What somebody sees who has not looked before."""
    with shmbus.observe(bus) as view:
        return view.health()


def endpoint_of(view: shmbus.BusView, name: str) -> shmbus.views.EndpointInfo:
    return next(e for e in view.endpoints() if e.name == name)


def until_health(
    view: shmbus.BusView, found: Callable[[shmbus.views.Health], bool], late: float = 5.0
) -> shmbus.views.Health:
    """Look until the health is as wanted."""

    def look() -> shmbus.views.Health | None:
        health = view.health(late=late)
        return health if found(health) else None

    return eventually(look)


@pytest.mark.smoke
def test_events_too_large_for_a_receiver_are_told_as_that(bus_name: str) -> None:
    with ExitStack() as stack:  # by hand: those of endpoints go through pools, and reach it
        bus = BusByHand(stack, bus_name)
        small = bus.endpoint(0, "small")
        seen = stack.enter_context(shmbus.observe(bus_name))
        for counters in (small.down, bus.head):
            counters["lost"] = counters["lost_by"][layout.Loss.TOO_LARGE] = 1
        health = seen.health()
        (reason,) = health.reasons
        assert health.state == "unhealthy"
        assert reason.startswith("endpoint small")
        assert "too large for its ring, 1 since the look before" in reason
        assert ": it takes at most 1024 bytes" in reason
        assert "in_bytes" in reason
        health = seen.health()
        assert health.state == "degraded", "and stays so for its settings"
        assert any("too large for its ring, 1 so far" in r for r in health.reasons)


def test_what_a_receiver_s_ring_does_not_take_reaches_it_through_a_pool(
    bus: shmbus.Bus, attach: Attach
) -> None:
    small, sender = attach("small", settings=SMALL), attach("sender")
    small.subscribe("picture")
    sender.publish("picture", bytes(2000))
    message = small.receive(60)
    assert message is not None
    assert message.payload == bytes(2000)
    assert endpoint_of(bus, "small").lost == 0
    assert bus.health().healthy


@pytest.mark.bus(block_timeout=0.0)
@pytest.mark.slow  # the sum is told after a second
def test_after_a_burst_of_losses_their_sum_is_told_also_by_a_successor(
    bus_process: BusProcess, attach: Attach
) -> None:
    ear, sender = attach("ear", reconnect=True), attach("sender", reconnect=True)
    ear.subscribe("$bus.lost", payload_type=shmbus.events.Lost)
    small = attach("small", settings=SMALL, reconnect=True)
    small.subscribe("picture")
    for _ in range(4 + 50):  # the first ones find space
        sender.publish("picture", bytes(900))

    def told() -> list[int]:
        counts = list[int]()
        while not counts or counts[-1] < 50:
            message = ear.receive(60)
            assert message is not None
            counts.append(message.payload.count)
        return counts

    assert told() == [1, 50]
    for _ in range(49):
        sender.publish("picture", bytes(900))
    bus_process.kill()
    bus_process.start()
    sender.publish("picture", bytes(900))
    message = ear.receive(60)
    while message is not None and message.payload.count < 100:
        message = ear.receive(60)
    assert message is not None
    assert (message.payload.name, message.payload.type) == ("small", "picture")


@pytest.mark.bus(block_timeout=0.05, stall_after=60)
def test_a_first_look_tells_that_events_were_lost_where_when_and_why(
    bus: shmbus.Bus, attach: Attach
) -> None:
    deaf, sender = attach("deaf"), attach("sender")
    deaf.subscribe("x")
    for _ in range(200):
        sender.publish("x", bytes(10_000))
    eventually(lambda: endpoint_of(bus, "deaf").slow)
    eventually(lambda: endpoint_of(bus, "sender").unforwarded == 0)
    reason = next(r for r in first_look(bus.name).reasons if "deaf" in r)
    assert f"messages were lost there, {endpoint_of(bus, 'deaf').lost} so far" in reason
    assert "the last 'x' from sender" in reason
    while deaf.receive(0) is not None:
        pass
    eventually(lambda: not endpoint_of(bus, "deaf").slow)
    health = first_look(bus.name)
    (reason,) = (r for r in health.reasons if "deaf" in r)
    assert "lost messages because its ring, or a sender's pool, was full" in reason
    assert [loss.name for loss in health.last_losses] == ["deaf"]
    lost = health.last_losses[0]
    assert (lost.reason, lost.type, lost.source, lost.size) == ("slow", "x", "sender", 10_000)


@pytest.mark.bus(block_timeout=0.05, stall_after=60, prefetch=1, in_bytes=4096, out_bytes=4096)
def test_a_first_look_tells_of_what_a_full_backlog_lost_also_when_it_has_gone(
    bus: shmbus.Bus, attach: Attach
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(message: shmbus.Message) -> None:
        begun.set()
        assert go_on.wait(60)

    busy, sender = attach("busy"), attach("sender")
    busy.subscribe("job", work, group="workers")
    busy.start()
    sender.publish("job")
    assert begun.wait(60)
    for _ in range(30):
        sender.publish("job", bytes(500), timeout=60)
    eventually(lambda: any(b.lost for b in bus.backlogs()))
    (told,) = (r for r in bus.health().reasons if "backlog of group workers" in r)
    assert "messages for it were lost" in told
    assert "senders wait" not in told
    eventually(lambda: endpoint_of(bus, "sender").unforwarded == 0)
    bus.health()
    (told,) = (r for r in bus.health().reasons if "backlog of" in r and "full" in r)
    assert "what comes is lost, after block_timeout at the latest" in told
    assert "the last 'job' from sender" in told
    go_on.set()
    eventually(lambda: not bus.backlogs())
    health = first_look(bus.name)
    (reason,) = health.reasons
    assert reason.startswith("the backlog of workers was full, and messages for it were lost")
    assert "the last 'job' from sender" in reason
    assert "backlog_bytes" in reason
    (lost,) = health.last_losses
    assert (lost.name, lost.pid, lost.reason) == ("backlog of workers", 0, "slow")
    assert lost.count == health.lost


def collect(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("x")
    threading.Event().wait()


def test_a_first_look_tells_of_what_one_who_died_had_not_taken(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    sender, victim = attach("sender"), worker(collect, name="victim")
    sender.wait_for("x")
    for _ in range(3):
        sender.publish("x")
    eventually(lambda: endpoint_of(bus, "victim").untouched == 3)
    kill(victim.pid)
    eventually(lambda: len(bus.endpoints()) == 1)
    (lost,) = bus.losses()
    assert (lost.name, lost.reason, lost.count, lost.type) == ("victim", "ended", 3, "x")
    (reason,) = first_look(bus.name).reasons
    assert reason.startswith(f"endpoint victim (process {victim.pid}) ended with messages")


def test_what_one_who_left_in_good_order_had_not_taken_is_no_reason(
    bus: shmbus.Bus, attach: Attach
) -> None:
    leaver, sender = attach("leaver"), attach("sender")
    leaver.subscribe("x")
    sender.publish("x")
    eventually(lambda: endpoint_of(bus, "leaver").untouched == 1)
    leaver.close()
    eventually(lambda: len(bus.endpoints()) == 1)
    assert first_look(bus.name).healthy


@pytest.mark.bus(block_timeout=60, stall_after=60)
def test_a_loss_that_was_chosen_is_no_complaint_whatever_else_the_endpoint_wants(
    bus: shmbus.Bus, attach: Attach
) -> None:
    monitor, sender = attach("monitor", settings=SMALL), attach("sender")
    monitor.subscribe("noise.>", overflow="drop_newest")
    monitor.subscribe("alarm")  # which blocks
    for number in range(100):
        sender.publish("noise.a", bytes(500))
        assert bus.health().state != "unhealthy", number
    eventually(lambda: endpoint_of(bus, "sender").forwarded == 100)
    info = endpoint_of(bus, "monitor")
    assert info.lost == info.lost_by.dropped > 0
    until_health(bus, lambda h: h.healthy)
    assert first_look(bus.name).healthy


@pytest.mark.bus(block_timeout=0.05, stall_after=60)
def test_a_receiver_that_stays_full_is_told_with_what_it_lost(
    bus: shmbus.Bus, attach: Attach
) -> None:
    ear, deaf, sender = attach("ear"), attach("deaf", settings=SMALL), attach("sender")
    ear.subscribe("$bus.lost", payload_type=shmbus.events.Lost)
    deaf.subscribe("x")
    for _ in range(20):
        sender.publish("x", bytes(500))
    message = ear.receive(60)
    assert message is not None
    assert (message.payload.name, message.payload.reason) == ("deaf", "slow")
    eventually(lambda: endpoint_of(bus, "sender").forwarded == 20)
    info = endpoint_of(bus, "deaf")
    assert info.lost == info.lost_by.slow > 0
    (reason,) = (r for r in bus.health().reasons if "endpoint deaf" in r)
    assert "is slow" in reason


def test_a_message_that_has_waited_long_for_a_busy_receiver_is_told(
    bus: shmbus.Bus, attach: Attach
) -> None:
    worker, sender = attach("worker"), attach("sender")
    begun, go_on = threading.Event(), threading.Event()

    @worker.handle("job")
    def job(message: shmbus.Message) -> None:
        begun.set()
        go_on.wait(60)

    worker.start()
    sender.send("job")
    assert begun.wait(60)
    assert bus.health(late=0.05).oldest is None
    sender.send("job")
    sender.send("job")
    health = until_health(bus, lambda h: h.state == "degraded", late=0.05)
    (reason,) = health.reasons
    assert "endpoint worker" in reason
    assert "(waiting: 2, in hand: 1)" in reason
    assert health.oldest is not None
    assert health.oldest > 0.05
    info = endpoint_of(bus, "worker")
    assert info.oldest is not None
    assert info.oldest >= health.oldest
    assert next(e for e in health.endpoints if e.name == "worker").oldest == health.oldest
    go_on.set()
    until_health(bus, lambda h: h.healthy and h.oldest is None, late=0.05)


@pytest.mark.bus(block_timeout=60, stall_after=60)
def test_a_message_that_has_waited_long_to_be_forwarded_is_told(
    bus: shmbus.Bus, attach: Attach
) -> None:
    deaf, sender = attach("deaf", settings=SMALL), attach("sender")
    deaf.subscribe("x")
    for _ in range(10):
        sender.publish("x", bytes(500))

    def told(health: shmbus.views.Health) -> bool:
        return any("endpoint sender" in reason for reason in health.reasons)

    health = until_health(bus, told, late=0.05)
    (reason,) = (reason for reason in health.reasons if "endpoint sender" in reason)
    assert health.state == "degraded"
    assert "waits to be forwarded" in reason
    assert reason.endswith("which receivers are full: deaf")
    assert (endpoint_of(bus, "sender").oldest_unforwarded or 0.0) > 0.05
    for _ in range(10):
        assert deaf.receive(60) is not None
    until_health(bus, lambda h: h.oldest is None)
    assert endpoint_of(bus, "sender").oldest_unforwarded is None


def hang(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("job", lambda message: threading.Event().wait())
    endpoint.request_async("nobody.answers", timeout=600)
    endpoint.run()


@pytest.mark.smoke
def test_a_death_leaves_who_when_how_and_what_it_left_undone_across_dispatchers(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    client = attach("client", reconnect=True)
    client.handle("nobody.answers", Kept())
    client.start()
    process = worker(hang, name="worker")
    with shmbus.observe(bus_process.name) as view:
        assert (view.health().deaths, view.health().last_deaths) == ({}, ())
        client.wait_for("job")
        for _ in range(3):
            client.send("job")
        eventually(lambda: endpoint_of(view, "worker").in_hand == 1)
        eventually(lambda: endpoint_of(view, "worker").untouched == 2)
        eventually(lambda: endpoint_of(view, "worker").pending == 1)
        generation = endpoint_of(view, "worker").generation
        kill(process.pid)  # unreaped: how it ended can still be seen
        health = until_health(view, lambda h: bool(h.last_deaths))
        (death,) = health.last_deaths
        assert health.deaths == {"killed": 1}
        assert (death.name, death.pid, death.reason) == ("worker", process.pid, "killed")
        assert (death.in_hand, death.untouched, death.pending) == (1, 2, 1)
        assert death.generation == generation
        bus_process.kill()
        bus_process.start()
        health = until_health(view, lambda h: h.dispatcher_alive)
        assert (health.deaths, health.last_deaths, health.serial) == ({"killed": 1}, (death,), 2)
        client.close()  # in good order: no death
        eventually(lambda: not view.endpoints())
        assert view.health().deaths == {"killed": 1}


def test_deaths_in_quick_succession_are_complained_of_and_the_oldest_forgotten(
    bus: shmbus.Bus, attach: Attach
) -> None:
    for number in range(20):
        endpoint = attach(f"e{number}")
        bus.evict(endpoint.name)
        eventually(lambda: bus.endpoints() == [])
        health = bus.health()
        assert health.deaths == {"evicted": number + 1}
        assert health.last_deaths[0].name == f"e{number}"
        complains = any("endpoints died within the last minute" in r for r in health.reasons)
        assert complains == (number >= 2)
    assert [d.name for d in health.last_deaths] == [f"e{n}" for n in range(19, 3, -1)]
