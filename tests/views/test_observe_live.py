"""What an observer sees of a bus that runs, hangs, dies, and runs again."""

from __future__ import annotations

import enum
import os
import threading
import time

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import BusProcess, StartWorker, eventually
from tests.kept import Kept


def test_counters_and_queues_are_those_of_the_messages_that_passed(bus_name: str) -> None:
    patient = shmbus.Settings(stall_after=60)  # it reads when it is asked to
    with (
        shmbus.serve(bus_name, settings=patient) as bus,
        bus.attach("reader") as reader,
        bus.attach("writer") as writer,
        shmbus.observe(bus_name) as seen,
    ):
        reader.subscribe("job.>")
        reader.subscribe("task", group="workers")
        writer.handle("asked", lambda message: None)
        writer.start()
        reader.request("asked")  # its reply is none of the messages below
        for number in range(100):
            writer.publish("job.add", number)

        def endpoint(wanted: str) -> shmbus.views.EndpointInfo:
            return next(e for e in seen.endpoints() if e.name == wanted)

        eventually(lambda: endpoint("reader").untouched == 100)
        assert endpoint("reader").incoming.depth > 0
        assert [reader.receive(60).payload for _ in range(60)] == list(range(60))  # type: ignore[union-attr]
        info = endpoint("reader")
        assert (info.untouched, info.received.events) == (40, 60)
        assert info.incoming.high > info.incoming.depth > 0
        assert info.last_progress is not None
        assert eventually(lambda: endpoint("writer").forwarded == 101)
        assert endpoint("writer").sent.events == 100
        health = seen.health()
        assert (health.routed, health.lost, health.latency.count) == (102, 0, 102)
        eventually(lambda: seen.health().healthy)
        assert bus.route("job.add").subscribers == ("reader",)
        assert reader.bus.find("task")[0].groups == ("workers",)


def compute(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("task", group="g")
    endpoint.subscribe("job")
    endpoint.receive()
    held = bytearray(b"x") * (64 << 20)
    end = time.monotonic() + 60
    while time.monotonic() < end and held:
        pass


def listen(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("a.*")
    threading.Event().wait()


def test_each_fact_of_health_is_that_of_the_bus_and_its_processes(
    bus_process: BusProcess, worker: StartWorker
) -> None:
    began = time.time()
    process = worker(compute, name="busy")
    with (
        shmbus.attach(bus_process.name, name="writer", reconnect=True) as writer,
        shmbus.observe(bus_process.name) as seen,
    ):
        writer.wait_for("job")
        seen.health()
        writer.publish("task", "in hand when its holder is killed")
        for number in range(39):
            writer.publish("job", [number, "x" * 100])

        def row(name: str) -> shmbus.views.EndpointHealth:
            return next(e for e in seen.health().endpoints if e.name == name)

        eventually(lambda: row("busy").untouched == 39 and (row("busy").memory or 0) > 64 << 20)
        eventually(lambda: (row("busy").cpu or 0) > 10)
        busy = row("busy")
        assert (busy.pid, busy.state, busy.in_hand) == (process.pid, "busy", 1)
        assert (busy.received, busy.sent, busy.lost, busy.redelivered) == (1, 0, 0, 0)
        assert 39 * 100 < busy.incoming <= busy.incoming_high
        assert busy.outgoing == busy.outgoing_high == 0
        assert busy.last_progress is not None
        assert began - 1 < busy.last_progress < time.time() + 1
        sender = row("writer")
        assert (sender.pid, sender.sent, sender.received) == (os.getpid(), 40, 0)
        assert sender.outgoing == 0
        assert sender.outgoing_high > 100

        def healthy() -> shmbus.views.Health | None:
            health = seen.health()
            return health if health.healthy else None

        health = eventually(healthy)  # on a busy machine the heartbeat may be late
        assert (health.bus, health.state, health.bus_state) == (
            bus_process.name,
            "healthy",
            "serving",
        )
        assert health.dispatcher_alive
        assert health.reasons == ()
        assert health.pid == bus_process.pid
        assert health.uptime is not None
        assert 0 < health.uptime < time.time() - began + 60
        assert health.heartbeat_age is not None
        assert 0 <= health.heartbeat_age < 30
        assert health.control_age is not None
        assert 0 <= health.control_age < 30
        assert health.cpu is not None
        assert (health.memory or 0) > 1 << 20
        assert (health.routed, health.latency.count, health.pending) == (40, 40, 0)
        assert 0 < health.latency.p50 <= health.latency.p99 <= health.latency.max < 30

        for number in range(100):
            writer.publish("job", number)
        assert eventually(lambda: seen.health().rate) > 0
        eventually(lambda: row("busy").untouched == 139)
        writer.subscribe("task", group="g")
        process.kill()
        eventually(lambda: row("writer").redelivered == 1)
        assert seen.health().redelivered == 1
        assert [e.name for e in seen.health().endpoints] == ["writer"]
        future = writer.request_async("writer.asks", timeout=60)
        assert isinstance(future.exception(60), errors.NoRoute)
        assert seen.health().no_route == 1


def test_a_request_under_way_is_seen_with_its_handler(bus_name: str) -> None:
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("server") as server,
        bus.attach("caller") as caller,
    ):
        held: list[shmbus.Message] = []

        @server.handle("ask")
        def ask(message: shmbus.Message) -> None:
            message.defer()
            held.append(message)

        server.start()
        answer = caller.request_async("ask", timeout=30.0)
        eventually(lambda: held)
        (request,) = bus.requests("caller")
        assert (request.handler, request.correlation_id) == ("server", held[0].correlation_id)
        assert 0 < request.deadline <= 30
        assert bus.health().pending == 1
        held[0].reply("done")
        assert answer.result(10).payload == "done"
        assert bus.requests("caller") == []


def test_how_long_messages_have_waited_for_an_endpoint_is_seen(bus_name: str) -> None:
    small = shmbus.Settings(in_bytes=4096, out_bytes=4096)
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("reader", settings=small) as reader,
        bus.attach("writer") as writer,
    ):
        reader.subscribe("job.*")
        assert bus.waiting("reader").count == 0
        for number in range(100):  # several times around the ring
            writer.publish("job.add", {"number": number, "text": "x" * (number % 50)})
            assert reader.receive(10) is not None
        began = time.monotonic()
        for number in range(7):
            writer.publish("job.add", {"number": number, "text": "x" * 100})
        eventually(lambda: reader.bus.find("job.add")[0].untouched == 7)
        time.sleep(0.1)
        waiting = bus.waiting("reader")
        assert waiting.count == 7
        assert waiting.p50 * 1.125 >= 0.1
        assert 0.1 <= waiting.max <= time.monotonic() - began
        assert reader.receive(10) is not None
        assert bus.waiting("reader").count == 6
        assert bus.waiting("writer").count == bus.waiting("nobody").count == 0


def test_a_dispatcher_that_hangs_or_dies_is_looked_at_all_the_same(bus_process: BusProcess) -> None:
    with (
        shmbus.attach(bus_process.name, name="worker") as worker,
        shmbus.observe(bus_process.name) as seen,
    ):
        worker.subscribe("a.*")
        eventually(lambda: seen.health().healthy)
        bus_process.pause()
        assert f"kill -CONT {bus_process.pid}" in seen.health().reasons[0]
        bus_process.kill()
        health = seen.health()
        assert (health.bus_state, health.dispatcher_alive) == ("dead", False)
        with shmbus.observe(bus_process.name) as late:  # from now on, too
            (info,) = late.endpoints()
            assert (info.name, info.state, info.patterns) == ("worker", "attached", ("a.*",))
        (bus,) = [b for b in shmbus.buses() if b.name == bus_process.name]
        assert bus.state == "dead"
        bus_process.start()
        eventually(lambda: seen.info().state == "serving")
        assert seen.info().pid == bus_process.pid
        eventually(lambda: seen.health().healthy)


def test_a_killed_endpoint_goes_from_sight_and_its_successor_comes(
    bus: shmbus.Bus, worker: StartWorker
) -> None:
    for _ in range(3):
        process = worker(listen, name="worker")
        (info,) = eventually(lambda: [e for e in bus.endpoints() if e.patterns])
        assert (info.name, info.pid, info.patterns) == ("worker", process.pid, ("a.*",))
        process.kill()
        eventually(lambda: bus.endpoints() == [])


def test_a_bus_that_has_ended_is_gone_from_the_list_and_its_view_says_ended(bus_name: str) -> None:
    with shmbus.serve(bus_name):
        seen = shmbus.observe(bus_name)
        assert bus_name in [bus.name for bus in shmbus.buses()]
    with seen:
        assert seen.info().state == "ended"
        assert "has ended" in seen.health().reasons[0]
    assert bus_name not in [bus.name for bus in shmbus.buses()]
    with pytest.raises(errors.NoSuchBus):
        shmbus.observe(bus_name)


def test_ctrl_c_is_never_lost_in_numpy(bus_process: BusProcess, bus_name: str) -> None:
    """numpy asks what it does not know for attributes, and discards what a signal handler raises
    meanwhile. Where the class is an enumeration, Python code runs then."""
    asked: list[str] = []

    def at_class(kind: type, name: str) -> object:
        if name.startswith("__array"):
            asked.append(f"{kind.__name__}.{name}")
        raise AttributeError(name)

    with (
        pytest.MonkeyPatch.context() as patch,
        shmbus.attach(bus_name, name="asker", timeout=60, reconnect=True) as asker,
        shmbus.attach(bus_name, name="server", timeout=60, reconnect=True) as server,
        shmbus.observe(bus_name) as seen,
    ):
        before = getattr(enum.EnumMeta, "__getattr__", at_class)

        def look_up(kind: type, name: str) -> object:
            return at_class(kind, name) if name.startswith("__array") else before(kind, name)

        patch.setattr(enum.EnumMeta, "__getattr__", look_up, raising=False)
        server.subscribe("event.>", group="workers").close()
        server.handle("slow", Kept())
        server.start()
        asker.request_async("slow", timeout=60)
        eventually(lambda: seen.requests("asker") and seen.requests("asker")[0].handler)
        seen.look()
        seen.waiting("server")
        seen.route("event.new")
        shmbus.buses()
        shmbus.views.doctor.check_host(bus_name)
        shmbus.views.leavings.find_leavings(bus_name)
        bus_process.kill()
        with shmbus.serve(bus_name) as adopted:  # its control plane reads and writes rows here
            assert {e.name for e in adopted.endpoints()} == {"asker", "server"}
            adopted.attach("third").close()
            adopted.evict("server")
            eventually(lambda: {e.name for e in seen.endpoints()} == {"asker"})
    assert asked == []
