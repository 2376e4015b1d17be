"""Queues whose producers and consumers are killed at any moment, and replaced."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import ledger
import numpy as np
import pytest
from crew import Crew, Place
from ledger import Ledger
from roles import number

import shmbus
from shmbus.testing import eventually

BEGUN, DONE = 0, 1
EACH = 4
LEDGERS = {"p": "sent", "c": "taken"}
BURST, PAUSE = 32, 0.005
"""So many messages are put after so many seconds: about as many as can be taken meanwhile."""
SIZES = (0, 0, 0, 0, 0, 0, 10, 1000, 20_000)
Message = tuple[int, int, int, bytes]
"""Its producer, the incarnation of that, its number there, and more bytes."""


def produce(place: Place, queue: shmbus.Queue[Message | None], seed: int) -> None:
    """Puts messages of many sizes until it is killed, or told to end."""
    chance = random.Random(f"{seed} {place.name} {place.incarnation}")
    sent = Ledger(place.path("sent"), 2)
    sequence = 0
    while True:
        if sequence % BURST == 0:
            time.sleep(PAUSE)
        size = chance.choice(SIZES)
        message = number(place.name), place.incarnation, sequence, bytes([sequence % 251]) * size
        sent.write(sequence, BEGUN)
        queue.put(message)
        sent.write(sequence, DONE)
        sequence += 1


def consume(place: Place, queue: shmbus.Queue[Message | None]) -> None:
    """Takes messages until it is killed, or has taken the end."""
    taken = Ledger(place.path("taken"), 3)
    while (message := queue.get()) is not None:
        producer, incarnation, sequence, more = message
        if more.count(sequence % 251) != len(more):
            raise AssertionError(f"{message[:3]} is not as it was put")
        taken.write(producer, incarnation, sequence)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crew]:
    """The processes of a test that have no bus."""
    crowd = Crew("", tmp_path)
    yield crowd
    crowd.dismiss()


@pytest.mark.parametrize(("maxsize", "redeliver"), [(0, False), (100, True)])
def test_a_queue_keeps_every_message_however_many_of_its_users_are_killed(
    crowd: Crew, seed: int, chance: random.Random, long: bool, maxsize: int, redeliver: bool
) -> None:
    kills = 1000 if long else 12
    killed = Counter[str]()
    queue: shmbus.Queue[Message | None] = shmbus.Queue(maxsize, redeliver=redeliver)
    members = [crowd.hire(produce, f"p{n}", queue, seed) for n in range(EACH)]
    members += [crowd.hire(consume, f"c{n}", queue) for n in range(EACH)]
    eventually(lambda: len(crowd.ledgers("taken")) == EACH, "all have begun")
    dead = set[tuple[str, int]]()
    idle = threading.Event()
    for _ in range(kills):
        idle.wait(chance.expovariate(20))
        at = chance.randrange(len(members))
        begun = members[at].place.path(LEDGERS[members[at].place.name[0]])
        eventually(begun.exists)  # one that has not is a user until this process ends
        members[at].kill()
        members[at].wait()
        killed[members[at].place.name[0]] += 1
        dead.add((members[at].place.name, members[at].place.incarnation))
        members[at] = crowd.hire_again(members[at])
    producers, consumers = members[:EACH], members[EACH:]
    for member in producers:
        eventually(member.place.path("sent").exists)
        member.end()
    for member in producers:
        assert member.ended_well()
    eventually(queue.empty, "all was taken")
    if redeliver:
        eventually(lambda: missing(crowd) == 0, "what the dead had was taken by others")
    for _ in consumers:
        queue.put(None)
    for member in consumers:
        assert member.wait() == 0
    assert queue.empty()
    lost = queue.lost
    print(f"killed: {dict(killed)}; lost: {lost}")
    account_for(crowd, dead, lost, redeliver)
    name = queue.name
    queue.close()
    assert not [file for file in os.listdir("/dev/shm") if name in file]


Origin = tuple[int, int]
Taker = tuple[str, int]


def missing(crowd: Crew) -> int:
    """How many messages that were put has nobody written down."""
    put = {
        (number(name), incarnation): int((ledger.read(path)[:, 1] == DONE).sum())
        for name, incarnation, path in crowd.ledgers("sent")
    }
    taken = [ledger.read(path)[:, :3] for *_, path in crowd.ledgers("taken")]
    rows: list[list[int]] = np.unique(np.concatenate(taken), axis=0).tolist()
    return sum(put.values()) - sum(n < put[producer, at] for producer, at, n in rows)


def account_for(crowd: Crew, dead: set[Taker], lost: int, redeliver: bool) -> None:
    """Each message that was put was taken once, in order; or by a consumer that was killed."""
    takers: dict[Origin, dict[int, list[Taker]]] = defaultdict(lambda: defaultdict(list))
    last: dict[Taker, tuple[int, int, int]] = {}
    for name, incarnation, path in crowd.ledgers("taken"):
        rows = [(int(a), int(b), int(c)) for a, b, c in ledger.read(path)[:, :3]]
        newest: dict[Origin, int] = {}
        late = 0
        for producer, at, sequence in rows:
            takers[producer, at][sequence].append((name, incarnation))
            late += sequence <= newest.get((producer, at), -1)
            newest[producer, at] = max(sequence, newest.get((producer, at), -1))
        # What a dead consumer had comes again, later than its successors.
        assert late <= (len(dead) if redeliver else 0), f"{name} got messages out of order"
        if rows:
            last[name, incarnation] = rows[-1]
    absent = doubled = 0
    for name, incarnation, path in crowd.ledgers("sent"):
        sent = ledger.read(path)
        put, begun = int((sent[:, 1] == DONE).sum()), int((sent[:, 1] == BEGUN).sum())
        taken = takers.pop((number(name), incarnation), {})
        assert not taken or max(taken) < begun, f"{name} never sent {max(taken)}"
        absent += sum(sequence not in taken for sequence in range(put))
        for sequence, by in taken.items():
            message = number(name), incarnation, sequence
            gone = [taker for taker in by if taker in dead and last[taker] == message]
            assert len(by) - len(gone) <= 1, f"{message} was taken by {by}"
            doubled += len(by) - 1
    assert not takers, "somebody took what nobody sent"
    died = sum(name[0] == "c" for name, _ in dead)
    assert doubled <= (died if redeliver else 0)
    assert absent <= lost <= (0 if redeliver else died)
