"""The kill storm: processes and dispatchers killed at random moments under traffic of every kind.

Publishers number what they send; survivors, workers, handlers and the watcher of dead letters write
down what they get. At the end everything sent must be accounted for, once, in order, at the right
place.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from typing import Any

import ledger
import msgspec
import numpy as np
import pytest
from crew import Crew, Member, Place, Reclaimed

import shmbus
from shmbus import errors
from shmbus.testing import TIMEOUT, BusProcess, eventually

EVENT, JOB, TASK = 0, 1, 2
TYPES = ("storm.event", "storm.job", "storm.task")
ASKED, ANSWERED, DIED, NOBODY = 0, 1, 2, 3


def number(name: str) -> int:
    """Of `p12`: 12."""
    return int(name[1:])


# What the processes do ---------------------------------------------------------------------------


def send(place: Place, seed: int) -> None:
    """Publishes events, jobs for a queue group and commands, in bursts, until it is ended."""
    chance = random.Random(f"{seed} {place.name} {place.incarnation}")
    book = ledger.Ledger(place.path("sent"), 3)
    sequence = [0, 0, 0]
    idle = threading.Event()
    with place.attach() as endpoint:
        while True:
            kind = chance.choices((EVENT, JOB, TASK), (8, 2, 1))[0]
            for _ in range(chance.randrange(1, 60 if kind == EVENT else 10)):
                payload = [place.incarnation, sequence[kind]]
                book.write(kind, sequence[kind], 0)
                type = f"{TYPES[kind]}.{place.name}"
                (endpoint.send if kind == TASK else endpoint.publish)(type, payload, timeout=60.0)
                book.write(kind, sequence[kind], 1)
                sequence[kind] += 1
            idle.wait(chance.random() * 0.01)


def survive(place: Place) -> None:
    """Writes down every event until the end is announced."""
    book = ledger.Ledger(place.path("heard"), 4, 1 << 22)
    with place.attach() as endpoint:
        endpoint.subscribe("storm.event.>")
        endpoint.subscribe("storm.end")
        for message in endpoint:
            if message.type == "storm.end":
                return
            book.write(number(message.source), *message.payload, message.lost)


def watch(place: Place) -> None:
    """Writes down dead letters and the ends of endpoints until the end is announced."""
    letters = ledger.Ledger(place.path("letters"), 4)
    downs = ledger.Ledger(place.path("downs"), 2)
    with place.attach() as endpoint:
        for pattern in ("$bus.undeliverable", "$bus.endpoint.down", "storm.end"):
            endpoint.subscribe(pattern)
        for message in endpoint:
            said: Any = message.payload
            if message.type == "storm.end":
                return
            if message.type == "$bus.endpoint.down":
                downs.write(said["pid"], said["generation"])
                continue
            kind = TYPES.index(said["type"].rpartition(".")[0])
            source = number(said["type"].rpartition(".")[2])
            letters.write(kind, source, *msgspec.msgpack.decode(said["payload"]))


def work(place: Place) -> None:
    """A member of the queue group."""
    book = ledger.Ledger(place.path("jobs"), 4)
    with place.attach() as endpoint:
        endpoint.subscribe("storm.job.>", group="workers")
        for message in endpoint:
            book.write(number(message.source), *message.payload, message.attempt)


def handle(place: Place) -> None:
    """Handles commands and answers requests."""
    book = ledger.Ledger(place.path("tasks"), 4)

    def task(message: shmbus.Message) -> None:
        book.write(number(message.source), *message.payload, message.attempt)

    with place.attach() as endpoint:
        endpoint.handle("storm.task.>", task)
        endpoint.handle("storm.ask", lambda message: message.payload)
        endpoint.run()


def ask(place: Place) -> None:
    """Asks, one request after the other, until it is ended. A wrong answer is its end."""
    book = ledger.Ledger(place.path("asked"), 2)
    idle = threading.Event()
    with place.attach() as endpoint:
        sequence = 0
        while True:
            token = [place.name, place.incarnation, sequence]
            book.write(sequence, ASKED)
            try:
                answer = endpoint.request("storm.ask", token, timeout=60.0).payload
                if answer != token:
                    raise AssertionError(f"{token} was answered with {answer}")
                outcome = ANSWERED
            except errors.EndpointDied:
                outcome = DIED
            except errors.NoRoute:
                outcome = NOBODY
                idle.wait(0.01)
            book.write(sequence, outcome)
            sequence += 1


# The storm ---------------------------------------------------------------------------------------


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
    stay = [company.hire(survive, "s0"), company.hire(survive, "s1"), company.hire(watch, "w0")]
    # One member of the group is spared: without any, what is published for it is unrouted.
    spared = company.hire(work, "g0")
    workers = [company.hire(work, f"g{i}") for i in (1, 2)]
    handlers = [company.hire(handle, f"h{i}") for i in range(2)]
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        for pattern, receivers in (("storm.end", 3), ("storm.job.a", 3), ("storm.ask", 2)):
            endpoint.wait_for(pattern, receivers=receivers, timeout=TIMEOUT)
    senders = [company.hire(send, f"p{i}", seed) for i in range(3)]
    askers = [company.hire(ask, f"q{i}") for i in range(2)]

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


# The accounts ------------------------------------------------------------------------------------

Origin = tuple[int, int]  # a sender's number, and its incarnation


def sent_by(company: Crew, kind: int) -> dict[Origin, tuple[int, int]]:
    """How many each sender had accepted, and how many it had begun to send: killed in between, it
    does not know."""
    sent = {}
    for name, incarnation, path in company.ledgers("sent"):
        rows = ledger.read(path)
        rows = rows[rows[:, 0] == kind]
        sent[number(name), incarnation] = int(rows[:, 2].sum()), int((rows[:, 2] == 0).sum())
    return sent


def account_for_events(company: Crew, lost: int) -> None:
    """Each survivor heard each event of each sender once, in order; what is missing was counted."""
    sent = sent_by(company, EVENT)
    missing = 0
    for name, _, path in company.ledgers("heard"):
        rows = ledger.read(path)
        counted = int(rows[:, 3].sum())
        gaps = 0
        heard = {(int(s), int(i)) for s, i in np.unique(rows[:, :2], axis=0)}
        assert heard <= set(sent), f"{name} heard what nobody sent"
        for origin, (accepted, begun) in sent.items():
            mine = rows[(rows[:, 0] == origin[0]) & (rows[:, 1] == origin[1]), 2].astype(np.int64)
            assert np.all(np.diff(mine) > 0), f"{name}: out of order or doubled, from {origin}"
            assert mine.size == 0 or mine[-1] < begun, f"{name} heard what {origin} never sent"
            gaps += max(accepted - mine.size, 0)
            if counted == 0:
                assert np.array_equal(mine, np.arange(mine.size)), f"{name}: a gap from {origin}"
                assert accepted <= mine.size <= begun, f"{name}: {mine.size} of {accepted}, {begun}"
        assert gaps <= counted, f"{name}: {gaps} missing, {counted} counted"
        missing += counted
    assert missing <= lost


def letters_of(company: Crew) -> dict[tuple[int, Origin], list[int]]:
    """The numbers of the dead letters, by kind and sender."""
    found = defaultdict(list)
    for _, _, path in company.ledgers("letters"):
        for kind, source, incarnation, sequence in ledger.read(path).tolist():
            found[kind, (source, incarnation)].append(sequence)
    return found


def account_for_once(
    what: str,
    kind: int,
    company: Crew,
    letters: dict[tuple[int, Origin], list[int]],
    *,
    begun_at_most: int,
) -> None:
    """Everything accepted was begun, or is a dead letter; begun more than once only where its
    first receiver was killed over it."""
    begun: dict[Origin, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for _, _, path in company.ledgers(what):
        for source, incarnation, sequence, attempt in ledger.read(path).tolist():
            begun[source, incarnation][sequence].append(attempt)
    for origin, (accepted, tried) in sent_by(company, kind).items():
        dead = letters.get((kind, origin), [])
        assert len(dead) == len(set(dead)), f"dead letters doubled: {what} of {origin}"
        seen = set(begun[origin]) | set(dead)
        assert seen == set(range(len(seen))), (
            f"{what} of {origin} lost: {sorted(set(range(len(seen))) - seen)[:9]}"
        )
        assert accepted <= len(seen) <= tried, f"{what} of {origin}: {len(seen)} of {accepted}"
        for sequence, attempts in begun[origin].items():
            assert len(attempts) <= begun_at_most, f"{what} {sequence} of {origin}: {attempts}"
            assert len(set(attempts)) == len(attempts), f"{what} {sequence} of {origin}: doubled"


def account_for_requests(company: Crew) -> None:
    """Every request ended, once, but the one that its requester was killed over."""
    answered = 0
    for name, incarnation, path in company.ledgers("asked"):
        rows = ledger.read(path)
        open_ = (rows[:, 1] == ASKED).sum() - (rows[:, 1] != ASKED).sum()
        assert open_ in (0, 1), f"{name}, {incarnation}"
        answered += int((rows[:, 1] == ANSWERED).sum())
    assert answered > 0
