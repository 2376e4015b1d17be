"""The kill storm: endpoints and dispatchers killed at random, under all sorts of traffic."""

from __future__ import annotations

import random
import threading

import loops
import pytest
from accounts import account_for_events, account_for_once, account_for_requests, letters_of
from crew import Crew, Member, Reclaimed
from roles import JOB, TASK, ask, handle, send, survive, watch, work

import shmbus
from shmbus.testing import TIMEOUT, BusProcess, eventually, in_shm


def pools_of(bus: str) -> int:
    return sum(":pool:" in file for file in in_shm(bus))


@pytest.mark.bus(block_timeout=60.0)
def test_nothing_is_lost_doubled_or_mixed_up_however_many_are_killed(
    bus_process: BusProcess,
    company: Crew,
    all_reclaimed: Reclaimed,
    seed: int,
    chance: random.Random,
    long: bool,
) -> None:
    kills, dispatcher_kills = (1000, 100) if long else (60, 8)
    stay = [
        company.hire(survive, "s0"),
        company.hire(loops.survive, "s1"),
        company.hire(watch, "w0"),
    ]
    # One member of the group is spared: without any, what is published for it is unrouted.
    spared = company.hire(work, "g0")
    workers = [company.hire(work, "g1"), company.hire(loops.work, "g2")]
    handlers = [company.hire(handle, "h0"), company.hire(loops.handle, "h1")]
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        for pattern, receivers in (("storm.end", 3), ("storm.job.a", 3), ("storm.ask", 2)):
            endpoint.wait_for(pattern, receivers=receivers, timeout=TIMEOUT)
    senders = [company.hire(send, f"p{i}", seed) for i in range(3)]
    askers = [company.hire(ask, "q0"), company.hire(loops.ask, "q1")]

    idle = threading.Event()

    def strike(crowd: list[Member]) -> None:
        at = chance.randrange(len(crowd))
        crowd[at].kill()
        crowd[at].wait()
        if chance.random() < 0.5:
            idle.wait(chance.random() * 0.05)
        crowd[at] = company.hire_again(crowd[at])

    when_dispatcher = set(range(kills // dispatcher_kills // 2, kills, kills // dispatcher_kills))
    killed_dispatchers = 0
    for n in range(kills):
        idle.wait(chance.expovariate(10))
        crowd = chance.choice([workers, handlers, senders, askers])
        if n in when_dispatcher:
            bus_process.kill()
            killed_dispatchers += 1
            if chance.random() < 0.5:
                strike(crowd)
                bus_process.start()
                continue
            bus_process.start()
        strike(crowd)
    assert killed_dispatchers >= dispatcher_kills

    for member in senders + askers:
        member.end()
    for member in senders + askers:
        assert member.ended_well()
    names = [member.place.name for member in [*stay, spared, *workers, *handlers]]
    all_reclaimed(*names)
    with shmbus.observe(bus_process.name) as view:
        eventually(
            lambda: all(e.untouched == 0 and e.in_hand == 0 for e in view.endpoints()),
            "all jobs are done",
        )
        for member in [spared, *workers, *handlers]:
            member.end()
        for member in [spared, *workers, *handlers]:
            assert member.ended_well()
        all_reclaimed(*(member.place.name for member in stay))
        eventually(  # nothing lies in pools any more
            lambda: view.info().pools_left == 0 and pools_of(bus_process.name) <= len(stay),
            "the pools of the dead are removed",
        )
        assert view.health().violations == 0
        lost = sum(e.lost for e in view.endpoints())
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        endpoint.publish("storm.end")
        for member in stay:
            assert member.wait() == 0

    account_for_events(company, lost)
    letters = letters_of(company)
    account_for_once("jobs", JOB, company, letters, begun_at_most=2)
    account_for_once("tasks", TASK, company, letters, begun_at_most=1)
    account_for_requests(company)
