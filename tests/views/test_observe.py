"""What an observer sees of a bus, and what it makes of garbage."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmbus import errors
from shmbus.shared import _kernel, layout, names
from shmbus.shared.processes import Task, start_time
from shmbus.testing import Program, kill, start_python
from shmbus.views import discovery, endpoints, facts, interest_log, registry
from shmbus.views.observe import BusView, observe
from tests.by_hand import RING, SHM, BusByHand, EndpointByHand, entry


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def bus(stack: ExitStack) -> BusByHand:
    return BusByHand(stack, f"observed-{secrets.token_hex(4)}")


@pytest.fixture
def seen(bus: BusByHand, stack: ExitStack) -> BusView:
    return stack.enter_context(observe(bus.name))


@pytest.fixture
def sleeper() -> Iterator[Program]:
    with start_python("import time; time.sleep(600)") as process:
        yield process


@pytest.mark.smoke
def test_an_endpoint_is_seen_with_its_queues_both_ways(bus: BusByHand, seen: BusView) -> None:
    worker = bus.endpoint(3, "worker")
    worker.down["incoming"][0]["head"] = 4096 + 1024
    worker.down["incoming"][0]["high"] = 2048
    worker.up["incoming"][0]["tail"] = 4096
    worker.down["incoming"][0]["delivered"] = 9
    worker.up["incoming"]["taken_count"] = [5, 7, 0]  # replies are taken at once
    worker.up["outgoing"][0]["head"] = 640
    worker.up["sent_events"], worker.up["sent_replies"] = 7, 3
    worker.down["forwarded"] = 4
    worker.down["lost"] = 2
    worker.up["in_hand"] = 1
    worker.up["receivers"] = 2
    (info,) = seen.endpoints()
    assert (info.name, info.slot, info.pid, info.state) == ("worker", 3, os.getpid(), "attached")
    assert info.incoming == facts.Ring(depth=1024, capacity=RING, high=2048)
    assert info.outgoing.depth == 640
    assert (info.untouched, info.unforwarded) == (4, 6)
    assert (info.sent.total, info.lost, info.receivers) == (10, 2, 2)
    assert info.condition == "busy"
    assert abs(info.since - time.time()) < 60
    assert info.note == ""


def test_patterns_follow_the_log_as_it_grows_and_is_replaced(bus: BusByHand, seen: BusView) -> None:
    worker = bus.endpoint(0, "worker")
    worker.interests(entry(1, "buffer.*.changed"), entry(2, "job.>", group="workers"))
    (info,) = seen.endpoints()
    assert info.patterns == ("buffer.*.changed", "job.>")
    assert info.groups == ("workers",)
    assert not info.routed
    worker.down["interests_seen"] = 1
    assert seen.endpoints()[0].routed
    worker.interests(
        entry(1, op=layout.InterestOp.REMOVE),
        entry(3, "index.query", role=layout.InterestRole.HANDLE),
    )
    assert seen.endpoints()[0].patterns == ("job.>", "index.query")
    worker.interests(entry(3, "index.query", role=layout.InterestRole.HANDLE), serial=1)
    (info,) = seen.endpoints()
    assert [(i.pattern, i.role) for i in info.interests] == [("index.query", "handle")]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 64,
        entry(1, "a..b"),
        entry(1, "a", op=9),  # type: ignore[arg-type]
        entry(1, "a", role=7),  # type: ignore[arg-type]
        entry(1, "a")[:-8],
        entry(1, "a", description=b"x" * 100)[:-80],
    ],
)
def test_a_broken_log_gives_no_patterns_and_a_note(
    bus: BusByHand, seen: BusView, garbage: bytes
) -> None:
    worker = bus.endpoint(0, "worker")
    worker.interests(entry(7, "good.one"), garbage)
    (info,) = seen.endpoints()
    assert info.interests == ()
    assert "broken" in info.note


@given(st.binary(max_size=200))
def test_no_log_however_broken_harms_its_reader(log: bytes) -> None:
    try:
        list(interest_log.parse(log, "worker"))
    except ValueError:
        pass


def test_garbage_in_every_word_that_an_endpoint_writes_harms_nobody(
    bus: BusByHand, seen: BusView
) -> None:
    worker = bus.endpoint(0, "worker")
    other = bus.endpoint(1, "other")
    other.interests(entry(1, "a"))
    memory = np.frombuffer(memoryview(worker.up_segment.memory), np.uint8)
    memory[layout.PREFIX.itemsize :] = 0xFF
    broken, fine = seen.endpoints()
    assert broken.incoming.depth <= broken.incoming.capacity == RING
    assert broken.pending == 0
    assert fine.patterns == ("a",)
    msgspec.json.encode(seen.health())
    assert seen.find("a")[0].name == "other"


def test_requests_under_way_and_held_messages_are_counted(bus: BusByHand, seen: BusView) -> None:
    worker = bus.endpoint(0, "worker")
    worker.pending()["state"][[1, 5]] = layout.PendingState.WAITING
    worker.up["held"]["position"][:3] = [8, 16, 24]
    worker.up["held"]["done"][1] = 1
    (info,) = seen.endpoints()
    assert (info.pending, info.pending_limit, info.held) == (2, 16, 2)
    assert seen.health().pending == 2


def test_requests_under_way_are_told_with_who_was_chosen(bus: BusByHand, seen: BusView) -> None:
    caller = bus.endpoint(0, "caller")
    bus.endpoint(1, "worker", generation=7)
    mine, theirs = caller.pending(), caller.targets()
    began = time.monotonic()
    for index, deadline in ((2, 5_000_000_000), (3, -1_000_000_000)):
        mine[index]["id"] = np.frombuffer(uuid.UUID(int=index).bytes, np.uint8)
        mine[index]["deadline_ns"] = time.monotonic_ns() + deadline
        mine[index]["state"] = layout.PendingState.WAITING
    theirs[2]["id"] = mine[2]["id"]
    theirs[2]["whom"] = 1 << 63 | 7 << 16 | 1
    theirs[3]["whom"] = 1 << 63 | 7 << 16 | 1  # of the request before
    first, second = seen.requests("caller")
    assert (first.correlation_id, first.handler) == (uuid.UUID(int=2), "worker")
    left = (int(mine[2]["deadline_ns"]) - time.monotonic_ns()) / 1e9
    assert left < first.deadline < left + (time.monotonic() - began)
    assert (second.handler, second.deadline < 0) == (None, True)
    assert seen.requests("worker") == []


def test_a_row_that_changes_is_read_again_and_one_left_half_written_is_left_out(
    bus: BusByHand, seen: BusView
) -> None:
    bus.endpoint(0, "worker")
    half = bus.endpoint(1, "half")
    half.row["seq"] = 5
    assert [e.name for e in seen.endpoints()] == ["worker"]
    half.row["seq"] = 6
    assert [e.name for e in seen.endpoints()] == ["worker", "half"]


def test_a_row_whose_writer_has_lost_the_cpu_over_it_is_waited_for(
    bus: BusByHand, seen: BusView, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = bus.endpoint(0, "worker").row

    def get_on(seconds: float) -> None:
        row["seq"] = 6

    monkeypatch.setattr(time, "sleep", get_on)
    row["seq"] = 5
    assert [e.name for e in seen.endpoints()] == ["worker"]
    row["seq"] = 5  # and not to be found would mean to on_death that it is dead
    found = _kernel.find_row(bus.segment.memory, "worker")
    assert found is not None
    assert (found.slot, found.generation, found.pid) == (0, 1, os.getpid())
    assert found.state == layout.RowState.LIVE


def test_segments_are_opened_once_and_let_go_with_their_generation(
    bus: BusByHand, seen: BusView
) -> None:
    def held() -> tuple[int, int]:
        mine = Path("/proc/self/maps").read_text().count(bus.names.prefix + "down")
        return mine, len(os.listdir("/proc/self/fd"))

    start = held()
    for generation in range(1, 6):
        with ExitStack() as stack:
            bus.stack, before = stack, bus.stack
            bus.endpoint(0, "worker", generation).interests(entry(1, "a"))
            for _ in range(3):
                assert [e.generation for e in seen.endpoints()] == [generation]
            bus.stack = before
        assert held()[0] <= start[0] + 1
        bus.rows[0]["state"] = layout.RowState.FREE
        assert seen.endpoints() == []
        assert held() == start


def test_an_endpoint_whose_process_died_is_dead_even_where_no_dispatcher_says_so(
    bus: BusByHand, seen: BusView, sleeper: Program
) -> None:
    bus.endpoint(0, "worker", pid=sleeper.pid).interests(entry(1, "a"))
    assert [e.name for e in seen.find("a")] == ["worker"]
    kill(sleeper.pid)  # a zombie now
    (info,) = seen.endpoints()
    assert info.state == info.condition == "dead"
    sleeper.wait()
    assert seen.endpoints()[0].state == "dead"
    assert seen.find("a") == []


def test_the_row_says_why_an_endpoint_went(bus: BusByHand, seen: BusView) -> None:
    worker = bus.endpoint(0, "worker")
    worker.row["state"], worker.row["reason"] = layout.RowState.DYING, layout.Reason.KILLED
    assert seen.endpoints()[0].reason == "killed"
    worker.row["state"] = layout.RowState.GONE
    assert seen.endpoints() == []


def test_find_tells_who_wants_what_a_pattern_matches(bus: BusByHand, seen: BusView) -> None:
    bus.endpoint(0, "a").interests(entry(1, "buffer.*.changed"))
    bus.endpoint(1, "b").interests(entry(1, "buffer.>"))
    bus.endpoint(2, "c").interests(entry(1, "job.add"))
    assert [e.name for e in seen.find("buffer.3.changed")] == ["a", "b"]
    assert [e.name for e in seen.find("buffer.3.closed")] == ["b"]
    assert [e.name for e in seen.find("job.*")] == ["c"]
    with pytest.raises(errors.InvalidPattern):
        seen.find("a..b")


def test_route_tells_who_would_get_a_message_and_takes_the_idle_member(
    bus: BusByHand, seen: BusView
) -> None:
    busy = bus.endpoint(0, "busy")
    busy.interests(entry(1, "job.>", group="workers"))
    busy.down["incoming"][0]["delivered"] = 3
    bus.endpoint(1, "free").interests(entry(1, "job.*", group="workers"))
    bus.endpoint(2, "log").interests(entry(1, ">"))
    stalled = bus.endpoint(3, "stalled")
    stalled.interests(entry(1, "job.>", group="workers"))
    stalled.row["health"] = layout.Fitness.STALLED
    route = seen.route("job.add")
    assert set(route.subscribers) == {"free", "log"}
    assert route.handler is None
    reasons = {r.endpoint: r.reason for r in route.receivers}
    assert "more loaded than free" in reasons["busy"]
    assert "not fit" in reasons["stalled"]


def test_a_dead_dispatcher_is_said_to_be_dead(
    bus: BusByHand, seen: BusView, sleeper: Program
) -> None:
    bus.head["identity"]["pid"] = sleeper.pid
    bus.head["identity"]["start_time"] = start_time(sleeper.pid)
    bus.endpoint(0, "worker")
    assert seen.info().state == "serving"
    assert seen.health().healthy
    sleeper.kill()
    assert seen.info().state == "dead"
    health = seen.health()
    assert not health.dispatcher_alive
    assert health.reasons[0].startswith(f"dispatcher {sleeper.pid} is dead; start it again")
    assert [e.name for e in health.endpoints] == ["worker"]


def test_a_reused_pid_is_not_taken_for_the_dispatcher(bus: BusByHand, seen: BusView) -> None:
    bus.head["identity"]["start_time"] += 1
    assert not seen.info().alive


def test_a_stopped_dispatcher_is_said_to_be_stopped(
    bus: BusByHand, seen: BusView, sleeper: Program
) -> None:
    bus.head["identity"]["pid"] = sleeper.pid
    bus.head["identity"]["start_time"] = start_time(sleeper.pid)
    sleeper.pause()
    assert f"kill -CONT {sleeper.pid}" in seen.health().reasons[0]


def test_health_tells_rate_and_latency_of_the_time_since_the_call_before(
    bus: BusByHand, seen: BusView
) -> None:
    bus.head["routed"] += 1000
    bus.head["latency"][60] += 990  # 1.5 to 1.7 µs
    bus.head["latency"][120] += 10
    bus.head["latency_count"], bus.head["latency_sum_ns"] = 1000, 20_000_000
    bus.head["latency_max_ns"] = 10_000_000
    health = seen.health()
    assert health.rate > 0
    assert health.recent_latency.p99 == health.latency.p99 == pytest.approx(1.6e-6)
    assert health.latency.mean == pytest.approx(20e-6)
    assert health.latency.p50 < health.latency.p999 <= health.latency.max
    again = seen.health()
    assert (again.rate, again.recent_latency.count, again.latency.count) == (0.0, 0, 1000)


def lose(endpoint: EndpointByHand, **losses: int) -> None:
    """Count so many more for these reasons, as a dispatcher does."""
    for word, count in losses.items():
        endpoint.down["lost"] += count
        endpoint.bus.head["lost"] += count
        endpoint.bus.head["lost_by"][layout.Loss[word.upper()]] += count
        endpoint.down["lost_by"][layout.Loss[word.upper()]] += count


def test_health_names_losses_the_slow_and_the_stalled(bus: BusByHand, seen: BusView) -> None:
    bus.endpoint(0, "snail").row["health"] = layout.Fitness.SLOW
    bus.endpoint(1, "stone").row["health"] = layout.Fitness.STALLED
    lose(bus.endpoint(2, "sieve"), slow=3)
    reasons = " / ".join(seen.health().reasons)
    assert "endpoint snail" in reasons
    assert "no thread runs its handlers" in reasons
    assert "endpoint sieve" in reasons
    assert (
        "lost messages because its ring, or a sender's pool, was full, 3 since the look before"
        in reasons
    )


def test_a_loss_that_the_loser_chose_is_counted_and_is_no_complaint(
    bus: BusByHand, seen: BusView
) -> None:
    log, worker = bus.endpoint(0, "log"), bus.endpoint(1, "worker")
    log.interests(
        entry(1, ">", flags=layout.InterestFlag.DROP_NEWEST),
        entry(2, "$bus.>", role=layout.InterestRole.OBSERVE),
    )
    worker.interests(entry(1, "job.*"))
    assert seen.health().healthy
    lose(log, dropped=5)
    health = seen.health()
    assert (health.healthy, health.lost, health.lost_by.dropped) == (True, 5, 5)
    lose(worker, slow=2)
    lose(log, dropped=3)
    (reason,) = seen.health().reasons
    assert reason.startswith("endpoint worker")
    assert "because its ring, or a sender's pool, was full, 2 since the look before" in reason
    assert seen.health().healthy
    late = bus.endpoint(2, "late")  # and loses at once
    late.interests(entry(1, ">", flags=layout.InterestFlag.DROP_NEWEST))
    lose(late, dropped=3)
    assert seen.health().healthy


def test_the_ends_of_others_are_no_loss_to_complain_of(bus: BusByHand, seen: BusView) -> None:
    worker = bus.endpoint(0, "worker")
    lose(worker, ended=4)
    bus.rows[0]["state"] = layout.RowState.FREE
    health = seen.health()
    assert (health.state, health.lost) == ("healthy", 4)
    lose(bus.endpoint(1, "ear"), abandoned=1)
    (reason,) = seen.health().reasons
    assert "whose sender was quarantined, 1 since" in reason


def test_counters_read_at_different_moments_make_no_complaint(
    bus: BusByHand, seen: BusView, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = bus.endpoint(0, "log")
    log.interests(entry(1, ">", flags=layout.InterestFlag.DROP_NEWEST))
    info = endpoints.EndpointView.info

    def then_lose(*arguments: Any) -> facts.EndpointInfo:
        found = info(*arguments)
        lose(log, dropped=7)  # after the endpoint was read, and before the bus is
        return found

    monkeypatch.setattr(endpoints.EndpointView, "info", then_lose)
    assert [seen.health().state for _ in range(3)] == ["healthy"] * 3


@pytest.mark.parametrize("left", [True, False])
def test_one_that_left_while_it_was_looked_at_is_not_called_dead(
    bus: BusByHand, seen: BusView, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    worker = bus.endpoint(0, "worker")

    def ends(pid: int, start: int, leader: Task | None) -> bool:
        if left:  # in good order, and then its process ended
            worker.row["seq"] += 2
            worker.row["state"] = layout.RowState.FREE
        return False

    monkeypatch.setattr(registry, "process_alive", ends)
    assert [e.state for e in seen.endpoints()] == ([] if left else ["dead"])


def test_a_bus_that_ended_while_it_was_looked_at_is_not_called_dead(
    bus: BusByHand, seen: BusView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(pid: int, start: int) -> bool:
        bus.head["state"] = layout.BusState.HANDOVER
        return False

    monkeypatch.setattr(discovery, "process_alive", ends)
    assert seen.info().state == "handover"


def wait_at(worker: EndpointByHand, sent_ns: int) -> Any:
    """Put an event into its incoming ring; returns the record."""
    at = layout.DOWN.itemsize
    worker.down["incoming_ring"]["offset"] = at
    data = np.frombuffer(memoryview(worker.down_segment.memory), np.uint8)[at : at + RING]
    record = data[: layout.RECORD.itemsize].view(layout.RECORD)[0]
    record["length"], record["kind"], record["sent_ns"] = 64, layout.Kind.EVENT, sent_ns
    worker.down["incoming"][0]["head"] = 64
    return record


def test_garbage_positions_and_times_of_a_ring_tell_no_age(bus: BusByHand, seen: BusView) -> None:
    worker = bus.endpoint(0, "worker")
    record = wait_at(worker, time.monotonic_ns() - 7_000_000_000)
    (info,) = seen.endpoints()
    assert info.oldest is not None
    assert 7 <= info.oldest < 60
    assert seen.health().state == "degraded"
    for taken in (64, 3, 2**64 - 8, RING * 5):
        worker.up["incoming"][0]["taken"] = taken
        assert seen.endpoints()[0].oldest is None
    worker.up["incoming"][0]["taken"] = 0
    record["sent_ns"] = 2**64 - 1
    assert seen.endpoints()[0].oldest == 0.0


def test_what_one_chose_to_lose_rather_than_wait_for_is_not_late(
    bus: BusByHand, seen: BusView
) -> None:
    log = bus.endpoint(0, "log")
    log.interests(entry(1, ">", flags=layout.InterestFlag.DROP_NEWEST))
    wait_at(log, 1)
    assert seen.endpoints()[0].oldest is not None
    health = seen.health()
    assert (health.healthy, health.oldest) == (True, None)


def test_slow_routing_is_told(bus: BusByHand, seen: BusView) -> None:
    bus.endpoint(0, "worker")
    bus.head["latency"][int(np.searchsorted(_kernel.latency_floors(), 33e9)) - 1] += 10
    bus.head["routed"] += 10
    bus.head["latency_max_ns"] = 40_000_000_000
    health = seen.health()
    assert health.state == "degraded"
    assert "routing took up to 3" in health.reasons[0]
    assert seen.health().healthy


def test_health_says_that_somebody_removed_the_bus_s_names(bus: BusByHand, seen: BusView) -> None:
    bus.segment.unlink()
    assert "RemoveIPC" in seen.health().reasons[0]


def test_health_travels_as_json(bus: BusByHand, seen: BusView) -> None:
    bus.endpoint(0, "worker")
    data = msgspec.json.decode(msgspec.json.encode(seen.health()))
    assert data["endpoints"][0]["name"] == "worker"
    assert data["endpoints"][0]["memory"] > 0


def test_256_endpoints_are_looked_at_in_a_moment(stack: ExitStack) -> None:
    bus = BusByHand(stack, f"large-{secrets.token_hex(4)}", slots=256)
    for slot in range(256):
        bus.endpoint(slot, f"e{slot}").interests(entry(1, f"a.{slot}"))
    with observe(bus.name) as seen:
        descriptors = len(os.listdir("/proc/self/fd"))
        assert len(seen.endpoints()) == 256
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert seen.route("a.17").subscribers == ("e17",)


def test_what_is_not_there_is_refused_with_what_is(bus: BusByHand) -> None:
    with pytest.raises(errors.NoSuchBus) as missing:
        observe("no-such-bus")
    assert bus.name in missing.value.running
    assert bus.name in str(missing.value)


def test_with_several_running_one_must_be_named(bus: BusByHand, stack: ExitStack) -> None:
    other = BusByHand(stack, f"other-{secrets.token_hex(4)}")
    with pytest.raises(errors.NoSuchBus) as several:
        observe()
    assert {bus.name, other.name} <= set(several.value.running)


def test_another_layout_is_refused_with_both_layouts_and_the_processes(stack: ExitStack) -> None:
    name = f"future-{secrets.token_hex(4)}"
    BusByHand(stack, name, layout_=2 << 32 | 0xABC).endpoint(0, "worker")
    with pytest.raises(errors.LayoutMismatch) as mismatch:
        observe(name)
    assert mismatch.value.theirs == "2.00000abc"
    assert mismatch.value.mine != mismatch.value.theirs
    assert os.getpid() in mismatch.value.pids
    (info,) = [b for b in discovery.buses() if b.name == name]
    assert (info.state, info.layout) == ("unreadable", "2.00000abc")


def test_a_garbage_bus_is_refused(bus: BusByHand) -> None:
    bus.head["rows_offset"] = 2**60
    with pytest.raises(errors.SegmentError, match="doctor"):
        observe(bus.name)


def test_a_bus_that_others_can_read_is_refused(bus: BusByHand) -> None:
    (SHM / bus.names.bus_segment).chmod(0o644)
    with pytest.raises(errors.SegmentError, match="mode"):
        observe(bus.name)


def test_a_bus_of_another_user_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"theirs-{secrets.token_hex(4)}"
    foreign = names.names_of(name, os.geteuid() + 1)
    path = SHM / foreign.bus_segment
    path.touch(0o600)
    try:
        with pytest.raises(errors.SegmentError, match=f"belongs to user {os.geteuid() + 1}"):
            observe(name)
    finally:
        path.unlink()


def test_buses_lists_them_with_their_state(bus: BusByHand) -> None:
    bus.endpoint(0, "worker")
    (info,) = [b for b in discovery.buses() if b.name == bus.name]
    assert (info.state, info.alive, info.pid) == ("serving", True, os.getpid())
    assert (info.endpoints, info.package) == (1, "0.1.0")


def test_a_view_may_be_closed_twice(bus: BusByHand) -> None:
    view = observe(bus.name)
    view.close()
    view.close()


def test_what_a_dead_endpoint_left_is_counted_down_as_it_is_handed_on(
    bus: BusByHand, seen: BusView
) -> None:
    worker = bus.endpoint(0, "worker")
    worker.row["state"] = layout.RowState.DYING
    worker.down["incoming"][0]["head"] = 1024
    assert seen.endpoints()[0].incoming.depth == 1024
    worker.down["incoming"][0]["reclaim"] = 960
    assert seen.endpoints()[0].incoming.depth == 64


def test_nothing_can_be_written_through_a_view(bus: BusByHand, seen: BusView) -> None:
    with pytest.raises(ValueError, match="read-only"):
        seen._registry.head["state"] = 1


@pytest.mark.parametrize(
    ("at", "size", "patterns"),
    [
        (1 << 40, 0, b""),
        (layout.DOWN.itemsize, 1 << 40, b""),
        (layout.DOWN.itemsize, 3, b"\x00\x00\x00"),
        (layout.DOWN.itemsize, 3, b"\x09\x01a"),
        (layout.DOWN.itemsize, 3, b"\x00\x02a"),
        (layout.DOWN.itemsize, 3, b"\x00\x01\xff"),
    ],
)
def test_a_grant_that_is_none_becomes_a_note(
    bus: BusByHand, at: int, size: int, patterns: bytes
) -> None:
    one = bus.endpoint(0, "plug")
    one.down["rights_offset"] = at
    memory = np.frombuffer(memoryview(one.down_segment.memory), np.uint8)
    rights = memory[layout.DOWN.itemsize :][: layout.RIGHTS.itemsize].view(layout.RIGHTS)[0]
    rights["bytes"] = size
    begin = layout.DOWN.itemsize + layout.RIGHTS.itemsize
    memory[begin : begin + len(patterns)] = np.frombuffer(patterns, np.uint8)
    with observe(bus.name) as view:
        (info,) = view.endpoints()
    assert "its grant" in info.note
