"""The kill storm of all other ways to talk: replies in parts, questions to all, values that are
kept, mailboxes, keys and urgent events, while endpoints and dispatchers are killed at random."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from itertools import pairwise

import ledger
import loops
import numpy as np
import pytest
import ways
from accounts import account_for_requests
from crew import Crew, Member, Reclaimed
from roles import number

import shmbus
from shmbus.testing import TIMEOUT, BusProcess, eventually
from shmbus.views.facts import Retained

Origin = tuple[int, int, int]  # a sender's number and incarnation, and the key


def published(company: Crew, kind: int) -> dict[Origin, tuple[int, int]]:
    """How many of each sender and key were accepted, and how many it had begun to publish."""
    sent: dict[Origin, tuple[int, int]] = {}
    for name, incarnation, path in company.ledgers("published"):
        rows = ledger.read(path)
        if not rows.size:
            continue
        rows = rows[rows[:, 0] == kind]
        for key in np.unique(rows[:, 1]).tolist():
            mine = rows[rows[:, 1] == key]
            accepted, begun = int(mine[:, 3].sum()), int((mine[:, 3] == 0).sum())
            sent[number(name), incarnation, key] = accepted, begun
    return sent


def account_for_shown(company: Crew, shows: dict[str, int], newest: set[str]) -> None:
    """Whoever watches sees each sender's messages in order, none twice, and all that were sent are
    seen or counted. `newest`: who always has the newest of each sender."""
    for name, _, path in company.ledgers("seen"):
        rows, sent = ledger.read(path), published(company, shows[name])
        seen, counted = len(rows), int(rows[:, 3].sum())
        last = {source: max(i for s, i, _ in sent if s == source) for source, _, _ in sent}
        for (source, incarnation, _), (accepted, begun) in sent.items():
            of = (rows[:, 0] == source) & (rows[:, 1] == incarnation)
            mine = rows[of, 2].astype(np.int64)
            assert np.all(np.diff(mine) > 0), f"{name}: out of order or doubled, from {source}"
            assert mine.size == 0 or mine[-1] < begun
            if name in newest and incarnation == last[source] and accepted:
                assert mine.size, f"{name} saw nothing of {source}, {incarnation}"
                assert mine[-1] >= accepted - 1, f"{name}: not the last of {accepted}"
        accepted, begun = (sum(pair[n] for pair in sent.values()) for n in (0, 1))
        assert accepted <= seen + counted <= begun, f"{name}: {seen} seen, {counted} lost"


def account_for_visits(company: Crew) -> None:
    """Who joins late sees of each type what was kept, then what is newer: no gap, none twice."""
    rows_of = [(path, ledger.read(path)) for _, _, path in company.ledgers("visits")]
    assert sum(int(rows[:, 5].sum()) for _, rows in rows_of) > 0, "nobody saw what was kept"
    for path, rows in rows_of:
        by_type: dict[tuple[int, int], list[list[int]]] = defaultdict(list)
        for visit, source, incarnation, n, _, retained in rows.tolist():
            by_type[visit, source].append([incarnation, n, retained])
        for (visit, source), seen in by_type.items():
            where = f"{path.name}, visit {visit}, of {source}"
            assert sum(retained for *_, retained in seen) <= 2, where
            assert [r for *_, r in seen] == sorted((r for *_, r in seen), reverse=True), where
            for (one, n, _), (two, m, _) in pairwise(seen):
                assert (two, m) == (one, n + 1) or (two == one + 1 and m == 0) or two > one, (
                    f"{where}: {one, n} before {two, m}"
                )


def account_for_orders(company: Crew) -> None:
    """Each order was begun, the orders of one sender and key in their order, whoever had them."""
    begun: dict[Origin, list[tuple[int, int, int]]] = defaultdict(list)
    for _, _, path in company.ledgers("orders"):
        for source, incarnation, n, key, attempt, at in ledger.read(path).tolist():
            begun[source, incarnation, key].append((at, n, attempt))
    for origin, (accepted, tried) in published(company, ways.ORDER).items():
        mine = sorted(begun[origin])
        numbers = [n for _, n, _ in mine]
        assert numbers == sorted(numbers), f"orders of {origin}: {numbers}"
        assert set(numbers) == set(range(len(set(numbers)))), f"orders of {origin} lost"
        assert accepted <= len(set(numbers)) <= tried
        for n in set(numbers):
            attempts = [attempt for _, m, attempt in mine if m == n]
            assert len(attempts) <= 2, f"order {n} of {origin}: {attempts}"
            assert len(set(attempts)) == len(attempts), f"order {n} of {origin}: doubled"


def account_for_kept(company: Crew, kept: list[Retained]) -> None:
    """The bus still has the last state of each."""
    last: dict[str, tuple[int, int]] = {}
    for message in kept:
        last[message.source] = max(last.get(message.source, (0, 0)), tuple(message.payload))
    for (source, incarnation, _), (accepted, begun) in published(company, ways.STATE).items():
        name = f"{chr(source // 1000)}{source % 1000}"
        if accepted and incarnation == max(
            i for s, i, _ in published(company, ways.STATE) if s == source
        ):
            assert name in last, f"nothing of {name} is kept"
            assert last[name][0] == incarnation
            assert accepted - 1 <= last[name][1] < begun


@pytest.mark.bus(block_timeout=60.0)
def test_parts_answers_kept_values_mailboxes_and_keys_survive_all_kills(
    bus_process: BusProcess,
    company: Crew,
    all_reclaimed: Reclaimed,
    seed: int,
    chance: random.Random,
    long: bool,
) -> None:
    kills, dispatcher_kills = (1000, 100) if long else (50, 8)
    stay = [
        company.hire(ways.show, "s0", "ways.sample.>", "latest"),
        company.hire(ways.show, "s1", "ways.alarm.>", "block"),
        company.hire(ways.show, "s2", "ways.sample.>", "drop_oldest"),
    ]
    spared = company.hire(ways.carry, "c0")
    carriers = [company.hire(ways.carry, "c1"), company.hire(ways.carry, "c2")]
    servers = [company.hire(ways.serve, "h0"), company.hire(loops.serve, "h1")]
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        for pattern, receivers in (
            ("ways.end", 3),
            ("ways.sample.a", 2),
            ("ways.order.1.a", 3),
            ("ways.parts", 2),
        ):
            endpoint.wait_for(pattern, receivers=receivers, timeout=TIMEOUT)
    publishers = [company.hire(ways.publish, f"p{i}", seed) for i in range(3)]
    readers = [company.hire(ways.read, "q0", seed), company.hire(ways.ask_all, "q1")]
    joiners = [company.hire(ways.join, "j0"), company.hire(loops.join, "j1")]

    idle = threading.Event()

    def strike(crowd: list[Member]) -> None:
        at = chance.randrange(len(crowd))
        crowd[at].kill()
        crowd[at].wait()
        if chance.random() < 0.5:
            idle.wait(chance.random() * 0.05)
        crowd[at] = company.hire_again(crowd[at])

    when_dispatcher = set(range(kills // dispatcher_kills // 2, kills, kills // dispatcher_kills))
    for n in range(kills):
        idle.wait(chance.expovariate(10))
        if n in when_dispatcher:
            bus_process.kill()
            if chance.random() < 0.5:
                strike(chance.choice([carriers, servers, publishers, readers, joiners]))
            bus_process.start()
            continue
        strike(chance.choice([carriers, servers, publishers, readers, joiners]))

    ending = [*publishers, *readers, *joiners]
    for member in ending:
        member.end()
    for member in ending:
        assert member.ended_well()
    workers = [spared, *carriers, *servers]
    all_reclaimed(*(member.place.name for member in [*stay, *workers]))
    with shmbus.observe(bus_process.name) as view:
        eventually(
            lambda: all(e.untouched == 0 and e.in_hand == 0 for e in view.endpoints()),
            "all orders are done",
        )
        kept = view.retained("ways.state.>")
        for member in workers:
            member.end()
        for member in workers:
            assert member.ended_well()
        all_reclaimed(*(member.place.name for member in stay))
        assert view.health().violations == 0
    with shmbus.attach(bus_process.name, name="main") as endpoint:
        endpoint.publish("ways.end")
        for member in stay:
            assert member.wait() == 0

    shows = {"s0": ways.SAMPLE, "s1": ways.ALARM, "s2": ways.SAMPLE}
    account_for_shown(company, shows, newest={"s0", "s1"})
    account_for_visits(company)
    account_for_orders(company)
    account_for_kept(company, kept)
    account_for_requests(company)
