"""Processes that write garbage over everything an endpoint may write, beside others that behave.

The dispatcher must neither crash nor hang nor forward what no endpoint sent; an endpoint whose
garbage it reads is quarantined, and the others are not affected.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import ledger
import numpy as np
import pytest
from accounts import account_for_events, account_for_once, account_for_requests, letters_of
from crew import Crew, Place, Reclaimed
from forger import DATA, ERROR, EVENT, REPLIES, REPLY, REQUEST, SEND, Forger, record
from roles import FORGED, JOB, TASK, ask, handle, send, survive, watch, work

import shmbus
from shmbus import errors
from shmbus.limits import HELD
from shmbus.shared import layout
from shmbus.testing import TIMEOUT, BusProcess

Scribble = Callable[[Forger, random.Random], None]


def word(chance: random.Random, near: int = 0) -> int:
    """A number that is wrong in one of the ways in which numbers are."""
    return chance.choice(
        (
            0,
            1,
            (1 << 64) - 1,
            1 << 63,
            chance.getrandbits(64),
            chance.getrandbits(32),
            (near + 8 * chance.randrange(-9, 10)) % (1 << 64),
            (near + chance.randrange(-9, 10)) % (1 << 64),
            (near + (1 << chance.randrange(12, 40))) % (1 << 64),
        )
    )


def garbage_in_rings(f: Forger, chance: random.Random) -> None:
    """Random bytes, and a head behind them."""
    ring = chance.choice((DATA, REPLIES))
    start, capacity = f.places[ring]
    at = chance.randrange(0, capacity - 4096)
    f.memory[start + at : start + at + 4096] = chance.randbytes(4096)
    head = int(f.up["outgoing"][ring]["head"])
    f.up["outgoing"][ring]["head"] = (head + 8 * chance.randrange(0, 512)) % (1 << 64)


def records_with_wrong_fields(f: Forger, chance: random.Random) -> None:
    """Records that are sound but for one or two fields; lengths above all."""
    ring = chance.choice((DATA, REPLIES))
    kind = chance.choice((EVENT, SEND, REQUEST, REPLY, ERROR, 0, 6, 9, chance.getrandbits(16)))
    fields: dict[str, int] = {}
    for _ in range(chance.randrange(0, 3)):
        name = chance.choice(
            ("length", "type_length", "extension_length", "peer", "peer_generation", "interests")
        )
        width = {"length": 32, "peer_generation": 32, "interests": 32}.get(name, 16)
        fields[name] = chance.choice((0, 1, 63, 64, 65, 255, 256, chance.getrandbits(width)))
    type = chance.choice(("storm.event.x0", "storm.ask", "storm.task.x0", "x", "", "a..b", "\x00"))
    made = record(kind, type, chance.randbytes(chance.randrange(64)), **fields)
    if f.space(ring) > 4 * len(made):
        f.push(ring, made)


def positions_out_of_bounds(f: Forger, chance: random.Random) -> None:
    ring = chance.choice((DATA, REPLIES))
    side, name = chance.choice(
        [("outgoing", "head"), ("outgoing", "need"), ("outgoing", "high")]
        + [("incoming", n) for n in ("tail", "taken", "taken_count")]
    )
    f.up[side][ring][name] = word(chance, int(f.up[side][ring][name]))


def interests_that_are_none(f: Forger, chance: random.Random) -> None:
    how = chance.randrange(4)
    log = layout.INTERESTS.itemsize
    if how == 0:
        at = chance.randrange(log, len(f.interests_memory) - 64)
        f.interests_memory[at : at + 64] = chance.randbytes(64)
    elif how == 1:
        f.interests["bytes"] = word(chance, int(f.interests["bytes"]))
    elif how == 2:
        f.up["outgoing"][DATA]["interests_serial"] = word(chance, 1)
    f.up["outgoing"][DATA]["interests_version"] += np.uint64(1)


def requests_that_are_none(f: Forger, chance: random.Random) -> None:
    """Entries of the pending table, and requests that name them or others."""
    index = chance.randrange(len(f.pending))
    f.pending[index]["id"] = list(chance.randbytes(16))
    f.pending[index]["state"] = word(chance)
    f.pending[index]["deadline_ns"] = word(chance, time.monotonic_ns())
    id = bytes(f.pending[index]["id"][:14]) + index.to_bytes(2, "big")
    if chance.random() < 0.5:
        f.pending[index]["id"] = list(id)
        f.pending[index]["state"] = 1
    for _ in range(chance.randrange(3)):
        if f.space(DATA) > 4096:
            f.push(DATA, record(REQUEST, "storm.ask", b"garbage", correlation=id))


def holding_and_counting(f: Forger, chance: random.Random) -> None:
    entry = chance.randrange(HELD)
    f.up["held"][entry]["position"] = word(chance, int(f.up["incoming"][DATA]["tail"]))
    f.up["held"][entry]["done"] = word(chance)
    kept = f.up["kept"][chance.randrange(layout.KEPT)]
    forged = record(chance.choice((EVENT, SEND, REQUEST)), FORGED, chance.randbytes(300))
    if chance.random() < 0.5:
        forged = chance.randbytes(len(forged))
    kept["record"][: len(forged)] = list(forged)[: len(kept["record"])]
    kept["at"] = word(chance, int(f.up["incoming"][DATA]["tail"]))
    f.up["let_go_unkept"] = word(chance)
    for name in ("in_hand", "in_hand_since_ns", "receivers", "progress_ns", "bell", "state"):
        if chance.random() < 0.2:
            f.up[name] = word(chance, int(f.up[name]))


def ready_for_everybody(f: Forger, chance: random.Random) -> None:
    """The one page that all endpoints share."""
    f.ready[chance.randrange(256)] = chance.getrandbits(32)
    f.ring_bell()


def anything_at_all(f: Forger, chance: random.Random) -> None:
    """Random bytes anywhere in the segment, its beginning and its tables included."""
    for _ in range(chance.randrange(1, 20)):
        end = len(f.memory) if chance.random() < 0.2 else layout.UP.itemsize
        at, length = chance.randrange(end - 64), chance.randrange(1, 64)
        f.memory[at : at + length] = chance.randbytes(length)


SCRIBBLES: tuple[Scribble, ...] = (
    garbage_in_rings,
    records_with_wrong_fields,
    positions_out_of_bounds,
    interests_that_are_none,
    requests_that_are_none,
    holding_and_counting,
    ready_for_everybody,
    anything_at_all,
)


def scribble(place: Place, seed: int) -> None:
    """One life: attach, take part in everything, write garbage of one or of all sorts, die."""
    chance = random.Random(f"{seed} {place.name} {place.incarnation}")
    book = ledger.Ledger(place.path("scribbled"), 1)
    endpoint = place.attach(reconnect=False)
    endpoint.subscribe("storm.event.>", overflow=chance.choice(("block", "drop_newest")))
    if chance.random() < 0.3:
        endpoint.subscribe("x.>", group="workers")
    forger = Forger(endpoint)
    sorts = SCRIBBLES if chance.random() < 0.3 else (chance.choice(SCRIBBLES),)
    book.write(1)
    for _ in range(chance.randrange(1, 200)):
        chance.choice(sorts)(forger, chance)
        forger.ring_bell()
        if chance.random() < 0.1:
            time.sleep(0.001)
        try:
            endpoint.publish(f"storm.event.{place.name}", [place.incarnation, 1 << 40], timeout=0)
        except (errors.QueueFull, errors.RingCorrupt, errors.Evicted):
            pass
    time.sleep(chance.random() * 0.1)
    if chance.random() < 0.2:
        endpoint.close()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.bus(block_timeout=1.0)
def test_garbage_harms_nobody_but_its_writer(
    bus_process: BusProcess,
    company: Crew,
    all_reclaimed: Reclaimed,
    seed: int,
    long: bool,
) -> None:
    lives = 5000 if long else 80
    stay = [company.hire(survive, "s0"), company.hire(survive, "s1"), company.hire(watch, "w0")]
    servers = [company.hire(work, "g0"), company.hire(handle, "h0")]
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        for pattern, receivers in (("storm.end", 3), ("storm.job.a", 1), ("storm.ask", 1)):
            endpoint.wait_for(pattern, receivers=receivers, timeout=TIMEOUT)
    senders = [company.hire(send, "p0", seed), company.hire(ask, "q0")]
    pid = bus_process.pid
    vandals = [company.hire(scribble, f"x{n}", seed) for n in range(3)]
    for n in range(lives):
        vandal = vandals.pop(0)
        vandal.wait()
        vandals.append(company.hire_again(vandal) if n < lives - 3 else vandal)
    for member in senders:
        member.end()
    for member in senders:
        assert member.ended_well()
    names = [member.place.name for member in stay + servers]
    all_reclaimed(*names)
    assert bus_process.alive
    assert bus_process.pid == pid
    for member in servers:
        member.end()
    for member in servers:
        assert member.ended_well()
    all_reclaimed(*(member.place.name for member in stay))
    with shmbus.observe(bus_process.name) as view:
        health = view.health()
        lost = sum(e.lost for e in view.endpoints())
        assert [e.state for e in view.endpoints()] == ["attached"] * 3
    print(f"{health.violations} of {lives} were quarantined")
    assert health.violations > lives // 10
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        endpoint.publish("storm.end")
        for member in stay:
            assert member.wait() == 0
    account_for_events(company, lost)
    letters = letters_of(company)
    account_for_once("jobs", JOB, company, letters, begun_at_most=1)
    account_for_once("tasks", TASK, company, letters, begun_at_most=1)
    account_for_requests(company)
