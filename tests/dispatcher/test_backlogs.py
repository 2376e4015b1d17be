"""Work goes to who is free: nothing waits behind a long job, or with a hung worker, that another
one could do. What nobody can take now waits in the dispatcher."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import wait as wait_for_futures
from pathlib import Path

import pytest

import shmbus
from shmbus.shared import names
from shmbus.testing import Attach, BusProcess, MakeRecorder, StartWorker, eventually, kill
from shmbus.views import Backlog, EndpointInfo

PATIENT = shmbus.Settings(max_requests=512)
patient = {"block_timeout": 60.0, "stall_after": 60.0}


class Desk:
    """A worker of the group in this process: what it has begun, and what it does with a job that
    it is to hold on to."""

    def __init__(self, endpoint: shmbus.Endpoint, *, threads: int = 1) -> None:
        self.endpoint, self.begun, self.go_on = endpoint, list[object](), threading.Event()
        self.done, self._lock = list[object](), threading.Lock()
        endpoint.subscribe("job.>", self._work, group="workers")
        endpoint.start(threads=threads)

    def _work(self, message: shmbus.Message) -> None:
        with self._lock:
            self.begun.append(message.payload)
        if message.type == "job.long":
            assert self.go_on.wait(60)
        with self._lock:
            self.done.append(message.payload)


def endpoint_of(view: shmbus.BusView, name: str) -> EndpointInfo:
    return next(e for e in view.endpoints() if e.name == name)


def one_backlog(view: shmbus.BusView) -> Backlog | None:
    return next((b for b in view.backlogs() if b.waiting), None)


def backlog_files(bus: str) -> list[Path]:
    return [path for path, entry in names.entries(bus) if entry.kind == "backlog"]


def busy_and_idle(bus: shmbus.BusView, attach: Attach) -> tuple[Desk, Desk, shmbus.Endpoint]:
    """Two workers of which the first is in a long job, and somebody with jobs to do."""
    first, sender = Desk(attach("first")), attach("sender")
    sender.publish("job.long", "long")
    eventually(lambda: first.begun == ["long"])
    eventually(lambda: endpoint_of(bus, "first").in_hand_seconds > 0.1)  # it is a long one
    return first, Desk(attach("second")), sender


@pytest.mark.smoke
@pytest.mark.parametrize(
    "behind", [pytest.param(0, marks=pytest.mark.bus(prefetch=1)), pytest.param(1, id="default")]
)
def test_short_jobs_do_not_wait_behind_a_long_one_that_another_worker_could_do(
    bus: shmbus.Bus, attach: Attach, behind: int
) -> None:
    long, idle, sender = busy_and_idle(bus, attach)
    for number in range(41):
        sender.publish("job.short", number)
    # While the long job still runs, and nobody has touched its worker's other messages:
    eventually(lambda: len(idle.done) >= 41 - behind)
    eventually(lambda: endpoint_of(bus, "sender").unforwarded == 0)
    assert endpoint_of(bus, "first").untouched <= behind
    assert long.begun == ["long"]
    assert idle.done == [n for n in range(41) if n in idle.done]  # in their order
    long.go_on.set()
    eventually(lambda: len(idle.done) + len(long.done) == 42)
    assert sorted(map(str, [*idle.done, *long.done])) == sorted(["long", *map(str, range(41))])


@pytest.mark.smoke
def test_of_one_burst_at_most_one_short_job_waits_behind_the_long_one(
    bus: shmbus.Bus, attach: Attach
) -> None:
    desks, sender = [Desk(attach("one")), Desk(attach("two"))], attach("sender")
    sender.publish_many([("job.long", "long"), *(("job.short", n) for n in range(40))])
    eventually(lambda: any(desk.begun[:1] == ["long"] for desk in desks))
    # While the long job still runs:
    eventually(lambda: sum(len(desk.done) for desk in desks) >= 39)
    (long,) = (desk for desk in desks if desk.begun and desk.begun[0] == "long")
    (other,) = (desk for desk in desks if desk is not long)
    assert long.begun == ["long"]
    assert other.done == [n for n in range(40) if n in other.done]  # in their order
    assert endpoint_of(bus, long.endpoint.name).untouched <= 1
    long.go_on.set()
    eventually(lambda: len(long.done) + len(other.done) == 41)


def test_events_for_the_workers_themselves_earn_them_no_jobs(
    bus: shmbus.Bus, attach: Attach
) -> None:
    desks, sender, ticks = [Desk(attach("one")), Desk(attach("two"))], attach("sender"), [0, 0]

    def counting(worker: int) -> Callable[[shmbus.Message], None]:
        def tick(message: shmbus.Message) -> None:
            ticks[worker] += 1

        return tick

    for worker, desk in enumerate(desks):
        desk.endpoint.subscribe("tick", counting(worker))
    over, jobs = threading.Event(), list[str]()

    def trickle() -> None:
        with attach("clock") as clock:
            while not over.wait(0.001):
                clock.publish("tick")
                if ticks[0] % 20 == 0:
                    clock.publish("job.short", "now and then")
                    jobs.append("now and then")

    clock = threading.Thread(target=trickle)
    clock.start()
    try:
        eventually(lambda: min(ticks) > 200)
    finally:
        over.set()
        clock.join()
    sender.publish_many([("job.long", "long"), *(("job.short", n) for n in range(40))])
    # While the long job still runs; the few jobs that they did between the ticks earned some:
    eventually(lambda: sum(len(desk.done) for desk in desks) >= len(jobs) + 39 - 5)
    for desk in desks:
        desk.go_on.set()
    eventually(lambda: sum(len(desk.done) for desk in desks) == len(jobs) + 41)


@pytest.mark.parametrize("kind", ["request", "send"])
def test_of_one_burst_for_two_handlers_at_most_one_waits_behind_the_long_one(
    bus: shmbus.Bus, attach: Attach, kind: str
) -> None:
    go_on, done = threading.Event(), {"one": list[object](), "two": list[object]()}

    def handler(name: str) -> Callable[[shmbus.Message], object]:
        def work(message: shmbus.Message) -> object:
            assert message.payload != "long" or go_on.wait(60)
            done[name].append(message.payload)
            return message.payload

        return work

    for name in done:
        endpoint = attach(name)
        endpoint.handle("job", handler(name))
        endpoint.start()
    sender = attach("sender")
    payloads: list[object] = ["long", *range(40)]
    if kind == "send":
        for payload in payloads:
            sender.send("job", payload)
    else:
        futures = [sender.request_async("job", payload, timeout=600) for payload in payloads]
    eventually(lambda: sum(map(len, done.values())) >= 39)
    assert sorted(map(len, done.values()))[0] == 0  # of whoever has the long one in hand
    assert max(e.untouched for e in bus.endpoints()) <= 1
    go_on.set()
    if kind == "request":
        assert [future.result(60).payload for future in futures] == payloads
    eventually(lambda: sum(map(len, done.values())) == 41)


@pytest.mark.bus(prefetch=4)
def test_requests_that_are_answered_later_are_given_up_to_prefetch_and_one_more_for_each_answer(
    bus: shmbus.Bus, attach: Attach
) -> None:
    kept = {"one": list[shmbus.Message](), "two": list[shmbus.Message]()}

    def keeper(name: str) -> Callable[[shmbus.Message], None]:
        def keep(message: shmbus.Message) -> None:
            message.defer()
            kept[name].append(message)

        return keep

    for name in kept:
        endpoint = attach(name)
        endpoint.handle("job", keeper(name))
        endpoint.start()
    sender = attach("sender")
    futures = [sender.request_async("job", number, timeout=600) for number in range(12)]
    eventually(lambda: [len(messages) for messages in kept.values()] == [4, 4])
    kept["one"][0].reply("done")
    eventually(lambda: [len(messages) for messages in kept.values()] == [5, 4])
    answered = {"one": 1, "two": 0}
    while any(answered[name] < len(messages) for name, messages in kept.items()):
        for name, messages in kept.items():
            for message in messages[answered[name] :]:
                message.reply("done")
                answered[name] += 1
        eventually(
            lambda: (
                sum(answered.values()) == 12
                or any(answered[name] < len(messages) for name, messages in kept.items())
            )
        )
    assert [future.result(60).payload for future in futures] == ["done"] * 12


@pytest.mark.bus(prefetch=8, **patient)
def test_a_worker_may_have_a_prefetch_of_its_own(bus: shmbus.Bus, attach: Attach) -> None:
    one_by_one = Desk(attach("one-by-one", settings=shmbus.Settings(prefetch=1)))
    other, sender = Desk(attach("other")), attach("sender")
    for number in range(20):
        sender.publish("job.long", number)
    eventually(lambda: one_by_one.begun and other.begun and one_backlog(bus))
    eventually(lambda: endpoint_of(bus, "other").untouched > 0)
    assert endpoint_of(bus, "one-by-one").untouched == 0
    assert [endpoint_of(bus, name).prefetch for name in ("one-by-one", "other")] == [1, 8]
    for desk in (one_by_one, other):
        desk.go_on.set()
    eventually(lambda: len(one_by_one.done + other.done) == 20)


@pytest.mark.bus(prefetch=64)
def test_requests_that_are_put_off_earn_their_handler_no_more_behind_a_long_one(
    bus: shmbus.Bus, attach: Attach
) -> None:
    go_on, kept, done = threading.Event(), list[shmbus.Message](), list[object]()
    long = list[str]()

    def handler(name: str) -> Callable[[shmbus.Message], object]:
        def work(message: shmbus.Message) -> object:
            if message.payload in ("later", "long"):
                message.defer()
                kept.append(message)
                if message.payload == "long":
                    long.append(name)
                    assert go_on.wait(60)
                return None
            done.append(message.payload)
            return message.payload

        return work

    for name in ("one", "two"):
        endpoint = attach(name)
        endpoint.handle("job", handler(name))
        endpoint.start()
    sender, payloads = attach("sender"), [*["later"] * 60, "long", *range(40)]
    futures = [sender.request_async("job", payload, timeout=600) for payload in payloads]
    eventually(lambda: len(done) >= 39)
    assert endpoint_of(bus, long[0]).untouched <= 1
    go_on.set()
    eventually(lambda: len(kept) == 61)
    for message in kept:
        message.reply(message.payload)
    assert [future.result(60).payload for future in futures] == payloads


def hang_once_asked(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("job", lambda message: threading.Event().wait())
    endpoint.run()


@pytest.mark.bus(**patient)
def test_a_hung_worker_holds_no_more_of_a_burst_of_requests_than_prefetch_allows(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    hung = worker(hang_once_asked, name="hung")
    requester, able = attach("requester"), attach("able")
    requester.wait_for("job")
    first = requester.request_async("job", -1, timeout=600)
    eventually(lambda: endpoint_of(bus, "hung").in_hand == 1)
    able.handle("job", lambda message: message.payload)
    able.start()
    futures = [requester.request_async("job", number, timeout=600) for number in range(100)]
    answered = eventually(
        lambda: [f for f in futures if f.done()] if sum(f.done() for f in futures) >= 84 else None
    )
    eventually(lambda: one_backlog(bus) is None and endpoint_of(bus, "able").untouched == 0)
    held = endpoint_of(bus, "hung")
    assert held.untouched + held.in_hand <= held.prefetch
    assert not first.done()
    assert all(f.result().payload == futures.index(f) for f in answered)
    kill(hung.pid)  # what it held unbegun goes to the other, or its caller is told
    assert not wait_for_futures([first, *futures], 60).not_done
    outcomes = [f.exception() for f in [first, *futures]]
    assert all(isinstance(e, shmbus.EndpointDied) for e in outcomes if e is not None)


@pytest.mark.bus(prefetch=2, **patient)
def test_what_waits_is_shown_and_goes_to_a_worker_that_joins_later(
    bus: shmbus.Bus, attach: Attach
) -> None:
    busy, sender = Desk(attach("busy")), attach("sender")
    sender.publish("job.long", "long")
    eventually(lambda: busy.begun == ["long"])
    for number in range(20):
        sender.publish("job.short", number)
    eventually(lambda: endpoint_of(bus, "sender").unforwarded == 0)
    found = eventually(lambda: one_backlog(bus))
    behind = endpoint_of(bus, "busy").untouched
    assert behind <= 1
    assert (found.group, found.type, found.takers) == ("workers", "job.short", ("busy",))
    assert found.waiting == 20 - behind
    assert found.oldest is not None
    assert 0 < found.ring.depth <= found.ring.high <= found.ring.capacity
    assert len(backlog_files(bus.name)) == 1
    route = bus.route("job.short")
    assert route.subscribers == ()
    assert [(r.endpoint, r.waits) for r in route.receivers] == [("busy", True)]
    late = Desk(attach("late"))
    eventually(lambda: len(late.done) == 20 - behind)
    assert late.done == list(range(behind, 20))  # in the order in which they were published
    assert busy.begun == ["long"]
    busy.go_on.set()
    eventually(lambda: busy.done == ["long", *range(behind)])
    assert one_backlog(bus) is None


@pytest.mark.bus(prefetch=1, **patient)
def test_health_tells_for_how_long_work_has_waited_and_whom_it_waits_for(
    bus: shmbus.Bus, attach: Attach
) -> None:
    busy, sender = Desk(attach("busy")), attach("sender")
    sender.publish("job.long", "long")
    eventually(lambda: busy.begun == ["long"])
    sender.publish("job.short", 1)

    def degraded() -> shmbus.views.Health | None:
        health = bus.health(late=0.05)
        return health if health.state == "degraded" else None

    health = eventually(degraded)
    (reason,) = health.reasons
    assert reason.startswith("1 messages wait in the backlog of group workers, the oldest for 0.")
    assert "(busy)" in reason
    assert "start more workers" in reason
    (found,) = health.backlogs
    assert health.oldest == found.oldest
    busy.go_on.set()
    eventually(lambda: bus.health(late=0.05).healthy)


@pytest.mark.bus(prefetch=1, in_bytes=4096, out_bytes=4096, **patient)
def test_a_full_backlog_keeps_senders_waiting_and_is_a_fault_once_it_does_not_get_on(
    bus: shmbus.Bus, attach: Attach
) -> None:
    busy, sender = Desk(attach("busy")), attach("sender")
    sender.publish("job.long", "long")
    eventually(lambda: busy.begun == ["long"])
    for _ in range(9):
        sender.publish("job.short", bytes(500))

    def full(state: str, late: float) -> str | None:
        health = bus.health(late=late)
        told = [reason for reason in health.reasons if "is full" in reason]
        return told[0] if told and health.state == state else None

    assert eventually(lambda: full("degraded", late=60.0))
    reason = eventually(lambda: full("unhealthy", late=0.01))
    assert reason.startswith("the backlog of group workers is full")
    assert "beside busy" in reason
    assert "backlog_bytes" in reason
    busy.go_on.set()
    eventually(lambda: len(busy.done) == 10)
    eventually(lambda: bus.health().healthy)


@pytest.mark.bus(in_bytes=4096, out_bytes=4096, **patient)
def test_jobs_beyond_a_full_backlog_are_refused_and_none_is_lost_where_senders_are_to_wait(
    bus: shmbus.Bus, attach: Attach
) -> None:
    worker, sender = Desk(attach("worker")), attach("sender")
    sender.publish("job.long", "long")
    eventually(lambda: worker.begun == ["long"])
    with pytest.raises(shmbus.QueueFull) as refused:
        sender.publish_many((("job.short", n) for n in range(10_000)), timeout=0.2)
    accepted = refused.value.index
    assert accepted is not None
    worker.go_on.set()
    eventually(lambda: worker.done == ["long", *range(accepted)])
    assert bus.losses() == ()


@pytest.mark.bus(prefetch=1)
def test_a_request_that_its_requester_gave_up_leaves_the_backlog_unasked(
    bus: shmbus.Bus, attach: Attach
) -> None:
    go_on, begun = threading.Event(), list[object]()

    def work(message: shmbus.Message) -> object:
        begun.append(message.payload)
        assert message.payload != "first" or go_on.wait(60)
        return message.payload

    # Of two that handle it the second has more to do than it can, so what comes next waits.
    handlers = [attach("one"), attach("two")]
    for one in handlers:
        one.handle("job", work)
    requester = attach("requester")
    handlers[0].start()
    first = requester.request_async("job", "first", timeout=600)
    eventually(lambda: endpoint_of(bus, "requester").unforwarded == 0)
    second = requester.request_async("job", "first", timeout=600)
    eventually(lambda: endpoint_of(bus, "requester").unforwarded == 0)
    with pytest.raises(shmbus.RequestTimeout):
        requester.request("job", "given up", timeout=0.05)
    last = requester.request_async("job", "last", timeout=600)
    eventually(lambda: (b := one_backlog(bus)) is not None and b.waiting >= 1)
    handlers[1].start()
    go_on.set()
    assert [f.result(60).payload for f in (first, second, last)] == ["first", "first", "last"]
    assert "given up" not in begun


@pytest.mark.bus(prefetch=2)
def test_a_worker_with_more_threads_than_prefetch_has_work_for_all_of_them(
    bus: shmbus.Bus, attach: Attach
) -> None:
    desk, sender = Desk(attach("many"), threads=6), attach("sender")
    eventually(lambda: endpoint_of(bus, "many").receivers == 6)
    for number in range(6):
        sender.publish("job.long", number)
    eventually(lambda: len(desk.begun) == 6)  # all at once: none has ended
    assert desk.done == []
    desk.go_on.set()
    eventually(lambda: len(desk.done) == 6)


@pytest.mark.smoke
@pytest.mark.bus(prefetch=1, **patient)
def test_what_waits_survives_a_dispatcher_that_is_killed(
    bus_process: BusProcess, attach: Attach
) -> None:
    busy, sender = Desk(attach("busy", reconnect=True)), attach("sender", reconnect=True)
    sender.publish("job.long", "long")
    eventually(lambda: busy.begun == ["long"])
    for number in range(50):
        sender.publish("job.short", number)
    with shmbus.observe(bus_process.name) as view:
        eventually(lambda: endpoint_of(view, "sender").unforwarded == 0)
        assert eventually(lambda: one_backlog(view)).waiting == 50
        bus_process.kill()
        assert eventually(lambda: one_backlog(view)).waiting == 50  # still seen
        bus_process.start()
        eventually(lambda: view.info().alive)
        assert eventually(lambda: one_backlog(view)).waiting == 50
        sender.publish("job.short", 50)
        busy.go_on.set()
        eventually(lambda: len(busy.done) >= 52)
        assert busy.done == ["long", *range(51)]
        eventually(lambda: not view.backlogs())
    assert backlog_files(bus_process.name) == []


@pytest.mark.bus(prefetch=1, **patient)
def test_a_backlog_that_a_killed_dispatcher_left_is_found_and_freed_with_its_bus(
    bus_process: BusProcess, attach: Attach
) -> None:
    busy, sender = Desk(attach("busy")), attach("sender")
    sender.publish("job.long", "long")
    eventually(lambda: busy.begun == ["long"])
    sender.publish("job.short", 1)
    eventually(lambda: backlog_files(bus_process.name))
    (file,) = backlog_files(bus_process.name)
    bus_process.kill()
    (leaving,) = shmbus.views.find_leavings(bus_process.name)
    assert file.name in leaving.files
    assert not leaving.removable  # this process waits for the bus
    busy.go_on.set()
    for endpoint in (busy.endpoint, sender):
        endpoint.close()
    for leaving in shmbus.views.find_leavings(bus_process.name):
        assert leaving.removable
        shmbus.views.free_leaving(leaving)
    assert not file.exists()


def test_a_tap_names_who_got_what_had_waited(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    ear = attach("ear")
    ear.tap("job.>")
    first, second, sender = busy_and_idle(bus, attach)
    for number in range(60):
        sender.publish("job.short", number)
    eventually(lambda: len(second.done) >= 59)
    first.go_on.set()
    told = [ear.receive(60) for _ in range(61)]
    taps = [(m.payload, m.source, m.tap.target, m.tap.outcome) for m in told if m and m.tap]
    assert len(taps) == 61
    assert {source for _, source, _, _ in taps} == {"sender"}
    assert {outcome for *_, outcome in taps} == {"delivered"}
    eventually(lambda: len(first.done) + len(second.done) == 61)
    for desk in (first, second):
        mine = [payload for payload, _, target, _ in taps if target == desk.endpoint.name]
        assert mine == desk.done
