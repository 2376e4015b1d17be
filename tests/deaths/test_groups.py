"""What becomes of a group's messages when a member dies: handed on, let go, or dead letters."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import pytest

import shmbus
from shmbus import Message
from shmbus.testing import (
    Attach,
    BusProcess,
    MakeRecorder,
    StartWorker,
    eventually,
)

from .roles import NEVER, seen, take_and_hang


@pytest.mark.smoke
def test_a_group_message_goes_on_to_another_member(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victim = worker(take_and_hang, "job", "workers", name="victim")
    publisher = attach("publisher")
    publisher.wait_for("job")
    for n in range(4):
        publisher.publish("job", n)
    begun.wait()
    eventually(lambda: bus.find("job")[0].untouched == 1)
    other = attach("other")
    other.subscribe("job", group="workers")
    messages = other.receive_many(1, 60) + other.receive_many(1, 60)
    victim.kill()
    messages += other.receive_many(1, 60) + other.receive_many(1, 60)
    assert [seen(m) for m in messages] == [
        (2, 1, False),  # it had waited for whoever is free
        (3, 1, False),
        (0, 2, True),  # it had been begun
        (1, 1, True),
    ]
    assert [m.source for m in messages] == ["publisher"] * 4
    assert other.receive(0) is None
    assert not letters.messages
    assert sum(e.redelivered for e in bus.endpoints()) == 2


def receive_and_hang(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("job", group="workers")
    message = endpoint.receive()
    endpoint.publish("begun", message and message.payload)
    NEVER.wait()


def test_a_message_that_was_received_counts_as_begun(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun = recorder("begun")
    victim = worker(receive_and_hang, name="victim")
    sender, heir = attach("sender"), attach("heir")
    sender.wait_for("job")
    sender.publish("job", "heavy")
    begun.wait()
    heir.subscribe("job", group="workers")
    victim.kill()
    message = heir.receive(60)
    assert message is not None
    assert seen(message) == ("heavy", 2, True)


def die_with_more_than_it_holds(
    bus: shmbus.Bus,
    attach: Attach,
    recorder: MakeRecorder,
    worker: StartWorker,
    count: int,
    *,
    hold_limit: int,
) -> shmbus.Endpoint:
    """Kill the only member of a group while it has so many messages; returns the next member."""
    begun, settings = recorder("begun"), shmbus.Settings(hold_limit=hold_limit)
    victim = worker(take_and_hang, "job", "workers", count, name="victim", settings=settings)
    publisher = attach("publisher")
    publisher.wait_for("job")
    for n in range(count):
        publisher.publish("job", n)
    begun.wait(count)
    (holder,) = bus.find("job")
    assert (holder.held, holder.let_go) == (hold_limit, count - hold_limit)
    other = attach("other")
    other.subscribe("job", group="workers")
    victim.kill()
    return other


def test_of_more_group_messages_than_may_be_held_the_oldest_is_let_go(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    letters = recorder("$bus.undeliverable")
    other = die_with_more_than_it_holds(bus, attach, recorder, worker, 3, hold_limit=2)
    messages = other.receive_many(1, 60) + other.receive_many(1, 60)
    assert [seen(m) for m in messages] == [(1, 2, True), (2, 2, True)]
    eventually(lambda: "victim" not in [e.name for e in bus.endpoints()])
    assert other.receive(0) is None
    (letter,) = letters.wait()
    assert (letter.payload["type"], letter.payload["source"]) == ("job", "publisher")
    assert msgspec.msgpack.decode(letter.payload["payload"]) == 0
    assert "let it go" in letter.payload["reason"]


def test_what_was_let_go_is_all_accounted_for(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    letters = recorder("$bus.undeliverable")
    other = die_with_more_than_it_holds(bus, attach, recorder, worker, 20, hold_limit=1)
    message = other.receive(60)
    assert message is not None
    assert seen(message) == (19, 2, True)
    eventually(lambda: "victim" not in [e.name for e in bus.endpoints()])
    told = [msgspec.msgpack.decode(m.payload["payload"]) for m in letters.wait(16)]
    assert sorted(told) == list(range(3, 19))
    assert (bus.health().dead_letters, bus.health().lost) == (16, 3)


def take_until(endpoint: shmbus.Endpoint, enough: str, threads: int) -> None:
    def work(message: Message) -> None:
        endpoint.publish("begun", message.payload)
        eventually(lambda: os.path.exists(enough))

    endpoint.subscribe("job", work, group="workers")
    endpoint.run(threads=threads)


def test_what_was_let_go_and_is_done_is_no_dead_letter(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker, tmp_path: Path
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    one, enough = shmbus.Settings(hold_limit=1), tmp_path / "enough"
    victim = worker(take_until, str(enough), 20, name="victim", settings=one)
    publisher = attach("publisher")
    publisher.wait_for("job")
    for n in range(20):
        publisher.publish("job", n)
    begun.wait(20)
    assert bus.find("job")[0].let_go == 19
    enough.touch()
    eventually(lambda: bus.find("job")[0].in_hand == 0)
    victim.kill()
    eventually(lambda: "victim" not in [e.name for e in bus.endpoints()])
    assert not letters.messages
    assert (bus.health().dead_letters, bus.health().lost) == (0, 0)


def hang_at_the_first(endpoint: shmbus.Endpoint) -> None:
    def take(message: Message) -> None:
        endpoint.publish("begun", message.size)
        if message.size == 1:
            NEVER.wait()

    endpoint.subscribe("job", take, group="workers")
    endpoint.run(threads=2)


@pytest.mark.bus(block_timeout=60.0)  # longer than the victim may not run
def test_a_message_that_never_gets_done_does_not_keep_the_ring_full(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    small = shmbus.Settings(in_bytes=8192, out_bytes=8192)
    victim = worker(hang_at_the_first, name="victim", settings=small)
    publisher = attach("publisher")
    publisher.wait_for("job")
    publisher.publish("job", b"1")
    begun.wait()
    assert bus.find("job")[0].held == 1
    for _ in range(50):
        publisher.publish("job", bytes(1000))
    begun.wait(51)
    eventually(lambda: bus.find("job")[0].in_hand == 1)
    (holder,) = bus.find("job")
    assert (holder.held, holder.let_go, holder.lost) == (0, 1, 0)
    other = attach("other")
    other.subscribe("job", group="workers")
    victim.kill()
    eventually(lambda: "victim" not in [e.name for e in bus.endpoints()])
    assert other.receive(0) is None
    (letter,) = letters.wait()
    assert letter.payload["payload"] == b"1"


def die_of_poison(endpoint: shmbus.Endpoint) -> None:
    def take(message: Message) -> None:
        endpoint.publish("taken", [endpoint.name, *seen(message)])
        if message.payload == "poison":
            os.kill(os.getpid(), signal.SIGKILL)

    endpoint.subscribe("job", take, group="workers")
    endpoint.run()


def test_a_poisonous_message_kills_two_workers_and_is_then_a_dead_letter(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    taken, letters = recorder("taken"), recorder("$bus.undeliverable")
    workers = [worker(die_of_poison, name=f"worker{n}") for n in range(4)]
    publisher = attach("publisher")
    publisher.wait_for("job", receivers=4)
    publisher.publish("job", "poison")
    (letter,) = letters.wait()
    poison = [t.payload for t in taken.wait(2)]
    assert [p[1:] for p in poison] == [["poison", 1, False], ["poison", 2, True]]
    assert poison[0][0] != poison[1][0]
    assert letter.payload["type"] == "job"
    assert letter.payload["source"] == "publisher"
    assert letter.payload["kind"] == "event"
    assert msgspec.msgpack.decode(letter.payload["payload"]) == "poison"
    assert letter.payload["reason"]
    eventually(lambda: sum(w.alive for w in workers) == 2)
    for n in range(10):
        publisher.publish("job", n)
    taken.wait(12)
    assert sum(w.alive for w in workers) == 2
    assert bus.health().dead_letters == 1


def test_a_poisonous_message_kills_no_third_worker_whatever_becomes_of_the_dispatcher(
    bus_process: BusProcess, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    letters = recorder("$bus.undeliverable", reconnect=True)
    workers = [worker(die_of_poison, name=f"worker{n}", reconnect=True) for n in range(4)]
    publisher = attach("publisher", reconnect=True)
    publisher.wait_for("job", receivers=4)
    publisher.publish("job", "poison")
    for _ in range(3):  # while both die
        bus_process.restart()
    letters.wait()
    publisher.publish("job", "harmless")
    eventually(lambda: sum(w.alive for w in workers) == 2)
    bus_process.restart()
    publisher.wait_for("job", receivers=2)
    assert sum(w.alive for w in workers) == 2
    assert len(letters) == 1


@pytest.mark.slow  # close() waits a second for the dispatcher
@pytest.mark.bus(in_bytes=8192, out_bytes=8192, block_timeout=60.0)
def test_what_waits_to_be_handed_on_at_a_close_outlives_the_dispatcher(
    bus_process: BusProcess, attach: Attach
) -> None:
    leaving, stays, source = (attach(n, reconnect=True) for n in ("leaving", "stays", "source"))
    leaving.subscribe("job", group="workers")
    waits = "x" * 1500  # more than the space that is left
    source.publish("job", waits)
    view = source.bus

    def incoming(name: str) -> shmbus.views.EndpointInfo:
        return next(e for e in view.endpoints() if e.name == name)

    eventually(lambda: incoming("leaving").untouched == 1)
    stays.subscribe("job", group="workers")
    stays.subscribe("fill", overflow="drop_newest")
    while incoming("stays").lost == 0:
        source.publish("fill", bytes(500))
    leaving.close()
    bus_process.restart()
    got: list[object] = []
    while waits not in got:
        message = stays.receive(20)
        assert message is not None, "it was lost"
        got.append(message.payload)
    eventually(lambda: "leaving" not in [e.name for e in view.endpoints()])
