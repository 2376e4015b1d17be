"""What an observer sees of pools: who holds how much of whose."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import pytest

import shmbus
from ringbuf import Segment
from shmbus import errors
from shmbus.settings import MIB
from shmbus.shared import layout, names
from shmbus.testing import BusProcess, eventually, in_shm
from shmbus.views import BusView, Holding, Pool, find_leavings, observe, shared_memory
from tests.by_hand import BusByHand, camera_on


@pytest.fixture
def bus() -> Iterator[BusByHand]:
    with ExitStack() as stack:
        yield BusByHand(stack, f"pools-{secrets.token_hex(4)}")


@pytest.fixture
def seen(bus: BusByHand) -> BusView:
    return bus.stack.enter_context(observe(bus.name))


@pytest.mark.smoke
def test_who_holds_how_much_of_whose_pool_is_seen_from_both_sides(
    bus: BusByHand, seen: BusView
) -> None:
    camera = camera_on(bus)
    tracker, idle = bus.endpoint(1, "tracker"), bus.endpoint(2, "idle")
    tracker.hold(camera, 2 * MIB, MIB)
    one, other, nobody = seen.endpoints()
    assert one.pool is not None
    assert (one.pool.limit, one.pool.granted, one.pool.reserved) == (64 * MIB, 12 * MIB, 12 * MIB)
    assert (one.pool.in_use, one.pool.waits, one.pool.waiting) == (6 * MIB, 4, False)
    assert one.pool.holders == (Holding(endpoint="tracker", count=2, bytes=3 * MIB),)
    assert other.holds == (Holding(endpoint="camera", count=2, bytes=3 * MIB),)
    assert (nobody.pool, nobody.holds) == (None, ())
    assert [pool.endpoint for pool in seen.pools()] == ["camera", "tracker"]
    assert seen.health().healthy
    assert idle.up["pool_bytes"] == 0


def test_what_is_held_of_one_who_has_gone_is_seen_as_long_as_it_is_there(
    bus: BusByHand, seen: BusView
) -> None:
    camera, tracker = camera_on(bus), bus.endpoint(1, "tracker")
    tracker.hold(camera, MIB)
    camera.row["state"] = layout.RowState.FREE
    bus.head["pools_left"] = 1
    (info,) = seen.endpoints()
    assert info.holds == (Holding(endpoint=None, count=1, bytes=MIB),)
    left = seen.pools()[-1]
    assert (left.endpoint, left.slot, left.reserved) == (None, 0, 16 * 4096)
    assert left.holders == (Holding(endpoint="tracker", count=1, bytes=MIB),)
    assert seen.info().pools_left == 1


def test_a_sender_that_waits_for_space_in_its_pool_is_told_with_who_holds_it(
    bus: BusByHand, seen: BusView
) -> None:
    camera, tracker = camera_on(bus), bus.endpoint(1, "tracker")
    tracker.hold(camera, 3 * MIB)
    camera.up["pool_need"], camera.up["pool_waits"] = 1, 5
    assert seen.health().healthy, "it may have begun to wait just now"
    health = seen.health()
    assert health.state == "degraded"
    (reason,) = health.reasons
    assert "endpoint camera has waited for space in its pool" in reason
    assert "6 MiB of 64 MiB are in use, held by tracker (1: 3 MiB)" in reason
    assert "Settings(pool_bytes=...)" in reason
    camera.up["pool_asked"] = 4 << 40 | 16 * MIB // 4096
    assert "Settings(pool_total_bytes=...)" in seen.health().reasons[0]
    camera.up["pool_waits"] = 6
    assert seen.health().healthy, "it had space meanwhile, and waits again"
    camera.up["pool_need"] = 0
    assert seen.health().healthy


@pytest.mark.parametrize("of", layout.RingIndex)
def test_while_a_sender_waits_it_is_told_for_whom_its_payloads_lie_there(
    bus: BusByHand, seen: BusView, of: layout.RingIndex
) -> None:
    camera, slow = camera_on(bus), bus.endpoint(1, "slow")
    slow.down["incoming_ring"]["offset"][of] = layout.DOWN.itemsize
    ring = np.frombuffer(memoryview(slow.down_segment.memory), np.uint8)[layout.DOWN.itemsize :]
    record, block = np.zeros(1, layout.RECORD), np.zeros(1, layout.BLOCK)
    record["kind"], record["flags"] = layout.Kind.EVENT, layout.RecordFlag.POOLED
    record["sent_ns"], record["interests"] = time.monotonic_ns(), 1
    block["pool_generation"], block["length"] = camera.generation, 6 * MIB
    record["length"] = length = record.itemsize + block.itemsize
    for at in range(0, 3 * length, length):
        ring[at : at + length] = np.frombuffer(record.tobytes() + block.tobytes(), np.uint8)
    slow.down["incoming"][of]["head"] = 3 * length
    slow.up["incoming"][of]["taken"] = length
    slow.up["receivers"] = 1
    pool = seen.pools()[0]
    assert (pool.waiting, pool.untaken) == (False, ())
    camera.up["pool_need"] = 1
    pool = seen.pools()[0]
    assert pool.untaken == (Holding(endpoint="slow", count=2, bytes=12 * MIB),)
    seen.look()
    (reason,) = seen.health().reasons
    assert "are in use, not taken by slow (2: 12 MiB); let these take or look at" in reason


def test_what_nobody_has_any_more_is_not_in_use_also_before_its_sender_needs_it(
    bus: BusByHand, seen: BusView
) -> None:
    camera = bus.endpoint(0, "camera")
    head = camera.pool()
    camera.up["pool_limit"], camera.up["pool_in_use"] = 64 * MIB, 6 * MIB
    for i, (use, returned) in enumerate([(65, 65), (129, 1), (0, 0)]):  # over, under way, lent
        head["blocks"][i] = use, 2 * MIB
        camera.down["returned"][i] = returned
    (pool,) = seen.pools()
    assert pool.in_use == 4 * MIB
    camera.up["pool_need"] = 1  # it has just looked for what is over
    (pool,) = seen.pools()
    assert pool.in_use == 6 * MIB


def test_garbage_in_a_pool_harms_nobody_who_looks(bus: BusByHand, seen: BusView) -> None:
    camera, tracker = camera_on(bus), bus.endpoint(1, "tracker")
    head = tracker.pool()
    for word in ("slot", "generation", "bytes", "shares_used"):
        head[word] = 2**64 - 1
    for table in ("shares", "blocks"):
        head[table].view(np.uint64)[:] = 2**64 - 1
    msgspec.json.encode(seen.look())
    (one, other) = seen.endpoints()
    assert one.pool is not None
    assert (one.pool.holders, other.note) == ((), "")
    for word in ("pool_bytes", "pool_asked", "pool_in_use", "pool_need", "pool_waits"):
        camera.up[word] = 2**64 - 1
    seen.look()
    msgspec.json.encode(seen.look())
    pool = seen.pools()[0]
    assert pool.fill == 1.0


@pytest.mark.parametrize("size", [0, 64, 4096])
def test_a_pool_that_was_cut_off_is_passed_over(bus: BusByHand, seen: BusView, size: int) -> None:
    camera, tracker = camera_on(bus), bus.endpoint(1, "tracker")
    tracker.hold(camera, MIB)
    with open(f"/dev/shm/{bus.names.pool(1, 1)}", "r+b") as file:
        file.truncate(size)
    assert [e.holds for e in seen.endpoints()] == [(), ()]


def test_what_pools_take_of_dev_shm_is_told_with_whose_they_are(
    bus: BusByHand, seen: BusView
) -> None:
    camera, tracker = camera_on(bus), bus.endpoint(1, "tracker")
    tracker.hold(camera, MIB)
    holders = {h.name: h for h in shared_memory().holders if h.bus == bus.name}
    pool = Path("/dev/shm", bus.names.pool(0, 1)).stat().st_blocks * 512
    assert holders["camera"].bytes > pool
    assert (holders["camera"].pool, holders["tracker"].files) == (seen.pools()[0], 3)
    camera.row["state"] = layout.RowState.FREE
    camera.down_segment.unlink()
    bus.head["pools_left"] = 1
    left = next(h for h in shared_memory().holders if h.what == "pool" and h.bus == bus.name)
    assert (left.name, left.pid, left.bytes, left.files) == ("tracker", None, pool, 1)


def test_the_pools_of_a_dead_bus_are_freed_with_it(
    bus_process: BusProcess,
) -> None:
    bus = names.names_of(bus_process.name)
    kind = layout.SegmentKind.POOL
    with shmbus.attach(bus_process.name, name="camera"):
        bus_process.kill()
        pool = Segment.create(bus.pool(0, 1), 65536, kind=kind, layout=layout.LAYOUT)
        (left,) = find_leavings(bus_process.name)
        assert not left.removable
    assert in_shm(bus_process.name) == [], "the last to leave has removed all"
    assert pool.size == 65536


def test_what_one_holds_of_another_is_seen_until_it_lets_go_also_of_one_who_has_gone(
    bus_name: str,
) -> None:
    large = bytes(MIB)
    with shmbus.serve(bus_name) as bus, bus.attach("tracker") as tracker:
        tracker.subscribe("frame", payload_type=memoryview)
        with bus.attach("camera") as camera:
            camera.wait_for("frame")
            camera.publish("frame", large)
            message = tracker.receive(60)
            assert message is not None
            looked_at = message.payload
            held = Holding(endpoint="tracker", count=1, bytes=MIB)
            pool = next(pool for pool in bus.pools() if pool.endpoint == "camera")
            assert pool.holders == (held,)
            assert pool.limit >= pool.granted >= pool.reserved >= pool.in_use >= MIB
            info = next(e for e in bus.endpoints() if e.name == "tracker")
            assert info.holds == (Holding(endpoint="camera", count=1, bytes=MIB),)
            assert bus.info().pools_granted >= MIB
        eventually(lambda: [p.holders for p in bus.pools() if p.endpoint is None] == [(held,)])
        assert bus.info().pools_left == 1
        assert looked_at == large
        del looked_at, message
        eventually(lambda: not [p for p in bus.pools() if p.endpoint is None])
        assert not any(e.holds for e in bus.endpoints())


def test_who_has_not_taken_what_fills_a_pool_is_named_to_its_sender(bus_name: str) -> None:
    few = shmbus.Settings(pool_bytes=MIB)
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("camera", settings=few) as camera,
        bus.attach("slow") as slow,
    ):
        slow.subscribe("frame")
        camera.wait_for("frame")
        camera.publish("frame", bytes(MIB // 2))
        camera.publish("frame", bytes(MIB // 3))
        slow_has = Holding(endpoint="slow", count=2, bytes=MIB // 2 + MIB // 3)
        eventually(lambda: bus.pools(untaken=True)[0].untaken == (slow_has,))
        with pytest.raises(errors.QueueFull, match="held by 'slow'") as caught:
            camera.publish("frame", bytes(MIB // 2), timeout=0.05)
        assert caught.value.holders == (("slow", slow_has.bytes),)


def test_who_has_not_taken_a_request_that_fills_a_pool_is_named(bus_name: str) -> None:
    few = shmbus.Settings(pool_bytes=MIB)
    with (
        shmbus.serve(bus_name) as bus,
        bus.attach("asker", settings=few) as asker,
        bus.attach("server") as server,
    ):
        server.handle("frame", lambda message: message.size)
        future = asker.request_async("frame", bytes(MIB // 2), timeout=60)
        server_has = Holding(endpoint="server", count=1, bytes=MIB // 2)
        eventually(lambda: pool_of("asker", bus).untaken == (server_has,))
        with pytest.raises(errors.QueueFull, match="held by 'server'"):
            asker.request("frame", bytes(MIB), timeout=0.05)
        future.cancel()


def pool_of(endpoint: str, bus: shmbus.Bus) -> Pool:
    return next(pool for pool in bus.pools(untaken=True) if pool.endpoint == endpoint)


def test_what_of_a_pool_waits_in_mailboxes_or_is_kept_is_told_too(bus_name: str) -> None:
    with shmbus.serve(bus_name) as bus:
        with bus.attach("camera") as camera, bus.attach("screen") as screen:
            screen.subscribe("frame", overflow="latest")
            camera.wait_for("frame")
            camera.publish("frame", bytes(MIB), retain=True)
            held = (Holding(endpoint="screen", count=1, bytes=MIB),)
            eventually(lambda: bus.pools(untaken=True)[0].untaken == held)
            assert bus.pools(untaken=True)[0].kept == MIB
            assert bus.pools()[0].untaken == (), "that is dear, and no sender waits"
        eventually(lambda: [p.endpoint for p in bus.pools()] == [None])
        assert bus.pools()[0].kept == MIB, "the pool of one that has gone, with what is kept"
