"""Endpoints come and go a thousand times: no resource grows, no event is missed, nothing spins."""

from __future__ import annotations

import contextlib
import random
import threading

import psutil
import pytest
from accounts import account_for_events
from burden import Burden
from crew import Crew, Member, Place, Reclaimed
from roles import ask, handle, numbers, send, survive

import shmbus
from shmbus.testing import TIMEOUT, BusProcess, eventually


def come_and_go(place: Place, seed: int) -> None:
    """Takes part in everything until it is killed."""
    chance = random.Random(f"{seed} {place.name} {place.incarnation}")
    with place.attach() as endpoint:
        patterns = f"own.{chance.randrange(9)}.>", f"own.*.x{chance.randrange(9)}"
        endpoint.subscribe(patterns[0], bool, overflow="drop_newest")
        endpoint.subscribe(patterns[1], bool, group=f"group{chance.randrange(9)}")
        endpoint.handle(f"own.{place.incarnation}", lambda message: message.payload)
        endpoint.start()
        while True:
            for _ in range(8):
                endpoint.publish(f"own.{chance.randrange(9)}.x{chance.randrange(1000)}", b"?")
            endpoint.request_async("storm.ask", b"?").result(TIMEOUT)


def account_for_all(company: Crew, bus: str, *subscribers: Member) -> None:
    """End the subscribers, and account for all that they were sent."""
    with shmbus.attach(bus, name="main") as endpoint:
        endpoint.publish("storm.end")
        for member in subscribers:
            assert member.wait() == 0
        lost = endpoint.bus.health().lost
    account_for_events(company, lost)


def test_a_thousand_killed_endpoints_leave_the_dispatcher_as_it_was(
    bus_process: BusProcess,
    company: Crew,
    all_reclaimed: Reclaimed,
    seed: int,
    chance: random.Random,
    long: bool,
) -> None:
    cycles, warm_up = (1000, 100) if long else (60, 20)
    company.hire(handle, "h0")
    subscriber = company.hire(survive, "s0")
    idle = threading.Event()
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        endpoint.wait_for("storm.ask", timeout=TIMEOUT)
        endpoint.wait_for("storm.end", timeout=TIMEOUT)
    sender = company.hire(send, "p0", seed)

    def cycle(count: int) -> Burden:
        for _ in range(count // 2):
            pair = [company.hire(come_and_go, name, seed) for name in ("c0", "c1")]
            if chance.random() < 0.8:  # else they die while they attach
                with shmbus.observe(bus_process.name) as view:
                    eventually(lambda: len(view.endpoints()) == 5, "both are attached")
            idle.wait(chance.random() * 0.03)
            for member in pair:
                member.kill()
            for member in pair:
                member.wait()
        all_reclaimed("h0", "s0", "p0")
        return Burden(bus_process.pid)

    before = cycle(warm_up)
    after = cycle(cycles)

    def let_go() -> bool:
        nonlocal after
        after = Burden(bus_process.pid)
        return after.descriptors <= before.descriptors and after.threads <= before.threads

    with contextlib.suppress(
        AssertionError
    ):  # such as connections of those that died while they attached
        eventually(let_go)
    print(f"after {warm_up}: {before}; after {cycles} more: {after}")
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert after.mappings <= before.mappings + 8  # of the allocator's
    assert after.memory <= before.memory + (4 << 20)
    sender.end()
    assert sender.ended_well()
    all_reclaimed("h0", "s0")
    account_for_all(company, bus_process.name, subscriber)


@pytest.mark.bus(block_timeout=60.0)
def test_every_incarnation_of_a_killed_publisher_is_received(
    bus_process: BusProcess,
    company: Crew,
    all_reclaimed: Reclaimed,
    seed: int,
    chance: random.Random,
    long: bool,
) -> None:
    cycles = 200 if long else 20
    stay = [company.hire(survive, "s0"), company.hire(survive, "s1")]
    idle = threading.Event()
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        endpoint.subscribe("storm.event.p0")
        endpoint.wait_for("storm.end", receivers=2, timeout=TIMEOUT)
        for incarnation in range(cycles):
            publisher = company.hire(send, "p0", seed)
            while True:
                message = endpoint.receive(TIMEOUT)
                assert message is not None, f"nothing of incarnation {incarnation} was received"
                if numbers(message)[0] == incarnation:
                    break
            idle.wait(chance.random() * 0.02)
            publisher.kill()
            publisher.wait()
    all_reclaimed("s0", "s1")
    with shmbus.observe(bus_process.name) as view:
        assert sum(e.lost for e in view.endpoints()) == 0
    account_for_all(company, bus_process.name, *stay)


@pytest.mark.parametrize("gone", ["h0", "q0"])
def test_who_is_left_alone_by_a_death_does_not_spin(
    bus_process: BusProcess, company: Crew, all_reclaimed: Reclaimed, seed: int, gone: str
) -> None:
    members = {"h0": company.hire(handle, "h0"), "s0": company.hire(survive, "s0")}
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        endpoint.wait_for("storm.ask", timeout=TIMEOUT)
        endpoint.wait_for("storm.end", timeout=TIMEOUT)
    members["q0"] = company.hire(ask, "q0")
    members["p0"] = company.hire(send, "p0", seed)
    with shmbus.observe(bus_process.name) as view:
        eventually(lambda: any(e.received.requests > 100 for e in view.endpoints()))
    for name in {gone, "q0", "p0"}:  # those that send are ended for the measurement
        members[name].kill()
        members[name].wait()
    left = [name for name in ("h0", "s0") if name != gone]
    all_reclaimed(*left)
    with shmbus.observe(bus_process.name) as view:
        eventually(
            lambda: all(e.untouched == 0 and e.in_hand == 0 for e in view.endpoints()),
            "all that came is dealt with",
        )
    pids = [bus_process.pid, *(members[name].pid for name in left)]
    before = {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids}
    threading.Event().wait(2.0)
    for pid in pids:
        used = sum(psutil.Process(pid).cpu_times()[:2]) - before[pid]
        assert used <= 0.1, f"process {pid} used {used:.2f} s of CPU in 2 s with nothing to do"
    account_for_all(company, bus_process.name, members["s0"])
