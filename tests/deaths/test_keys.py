"""Groups with a key: who has a key next begins where the one that was killed has ended."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

import shmbus
from shmbus import Message, events
from shmbus.testing import Attach, BusProcess, MakeRecorder, StartWorker, eventually

from .roles import NEVER

KEYS, TIMES = 8, 40


def keep_books(endpoint: shmbus.Endpoint, books: str) -> None:
    """Writes down what it begins and what it has done, each in one piece."""
    file = os.open(books, os.O_WRONLY | os.O_APPEND)

    def work(message: Message) -> None:
        key = message.type.split(".")[1]
        for what in ("begun", "done"):
            os.write(file, f"{key} {message.payload} {what} {endpoint.name}\n".encode())

    endpoint.subscribe("order.*.>", work, group="books", key="order.{id}.>")
    endpoint.run()


def check_books(lines: list[list[str]], total: int) -> None:
    """Of each key all was done in order; nobody began one before the one before was done, or its
    holder was dead."""
    by_key: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for key, number, what, name in lines:
        by_key[key].append((int(number), what, name))
    assert len(by_key) == KEYS
    for entries in by_key.values():
        done, begun, holder = 0, -1, ""
        for n, what, name in entries:
            if what == "begun":
                assert n in (done, done - 1)
                assert not holder or holder in DEAD
                begun, holder = n, name
            else:
                assert (n, name) == (begun, holder)
                done, holder = n + 1, ""
        assert done == total


DEAD = ("victim-0", "victim-1")


@pytest.mark.slow
def test_keys_are_in_order_and_on_one_hand_whoever_is_killed(
    bus_process: BusProcess, attach: Attach, worker: StartWorker, tmp_path: Path
) -> None:
    books = tmp_path / "books"
    books.touch()
    publisher, sent = attach("publisher", reconnect=True), 0

    def publish() -> None:
        nonlocal sent
        publisher.publish_many(
            (f"order.{k}.x", sent + n) for n in range(TIMES) for k in range(KEYS)
        )
        sent += TIMES

    def lines() -> list[list[str]]:
        return [line.split() for line in books.read_text().splitlines()]

    worker(keep_books, str(books), name="stays", reconnect=True)
    victims = [worker(keep_books, str(books), name=name, reconnect=True) for name in DEAD]
    publisher.wait_for("order.1.x")
    publish()
    eventually(lambda: len(lines()) > KEYS * TIMES // 4)
    victims[0].kill()
    publish()
    worker(keep_books, str(books), name="later", reconnect=True)
    publish()
    bus_process.kill()
    victims[1].kill()
    bus_process.start()
    publish()

    def all_done() -> bool:
        finished = {(key, n) for key, n, what, _ in lines() if what == "done"}
        return len(finished) == KEYS * sent

    eventually(all_done)
    check_books(lines(), sent)


def test_the_next_owner_has_the_event_and_then_what_was_begun(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker, recorder: MakeRecorder
) -> None:
    told = recorder("$bus.group.rebalanced")
    victim = worker(hang, name="victim")
    begun, publisher = recorder("begun"), attach("publisher")
    publisher.wait_for("order.1.x")
    for n in range(3):
        publisher.publish("order.1.x", n)
    begun.wait()
    heir = attach("heir")
    heir.subscribe("order.*.>", group="books", key="order.{id}.>")
    victim.kill()
    got = [heir.receive(60) for _ in range(3)]
    assert [(m.payload, m.attempt) for m in got if m] == [(0, 2), (1, 1), (2, 1)]
    last = msgspec.convert(told.wait(3)[-1].payload, events.GroupRebalanced)
    assert (last.reason, [m.name for m in last.members]) == ("died", ["heir"])


def hang(endpoint: shmbus.Endpoint) -> None:
    def work(message: Message) -> None:
        endpoint.publish("begun", message.payload)
        NEVER.wait()

    endpoint.subscribe("order.*.>", work, group="books", key="order.{id}.>")
    endpoint.run()
