"""The names of the dead: messages keep their source, and the name is free again."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import shmbus
from shmbus.dispatcher import admission, control, door, lookout
from shmbus.testing import TIMEOUT, BusProcess, Worker, eventually, kill


def say(endpoint: shmbus.Endpoint, count: int) -> None:
    for n in range(count):
        endpoint.publish("news", n)
    endpoint.publish("done")
    endpoint.run()


def command(endpoint: shmbus.Endpoint) -> None:
    endpoint.send("nobody.does.this", "it")
    endpoint.publish("done")
    endpoint.run()


def test_messages_of_the_dead_still_say_who_sent_them(
    bus: shmbus.Bus, attach: Callable[..., shmbus.Endpoint], worker: Callable[..., Worker]
) -> None:
    reader = attach("reader")
    reader.subscribe("news")
    done = attach("done")
    done.subscribe("done")
    for incarnation in range(3):
        speaker = worker(say, 10, name=f"speaker{incarnation}")
        assert done.receive(60) is not None
        kill(speaker.pid)
    eventually(lambda: {e.name for e in bus.endpoints()} == {"reader", "done"})
    newcomers = [attach(f"newcomer{n}") for n in range(5)]
    messages = reader.receive_many(30, 60)
    assert [m.payload for m in messages] == 3 * list(range(10))
    assert [m.source for m in messages] == [f"speaker{n}" for n in range(3) for _ in range(10)]
    assert len(newcomers) == 5


@pytest.mark.bus(max_endpoints=2)
def test_a_message_does_not_say_that_it_is_of_who_had_the_slot_before(
    bus: shmbus.Bus, attach: Callable[..., shmbus.Endpoint]
) -> None:
    reader = attach("reader")
    reader.subscribe("news")
    for name in ("first", "second"):
        speaker = attach(name)
        speaker.publish("news")
        message = reader.receive(60)
        assert message is not None
        assert message.source == name
        speaker.close()


@pytest.mark.bus(max_endpoints=2)
def test_a_message_does_not_say_that_it_is_of_who_has_the_slot_now(
    bus: shmbus.Bus, attach: Callable[..., shmbus.Endpoint]
) -> None:
    reader = attach("reader")
    reader.subscribe("news")
    speaker = attach("first")
    speaker.publish("news")
    speaker.close()
    attach("second")
    message = reader.receive(60)
    assert message is not None
    assert message.source == ""


def test_a_message_says_who_sent_it_while_what_is_said_of_that_one_changes(
    bus: shmbus.Bus, attach: Callable[..., shmbus.Endpoint]
) -> None:
    reader, speaker = attach("reader"), attach("speaker")
    reader.subscribe("news")
    (row,) = (row for row in bus._dispatcher._table.rows if row["name"] == b"speaker")
    row["seq"] += 1
    speaker.publish("news")
    message = reader.receive(60)
    row["seq"] += 1
    assert message is not None
    assert message.source == "speaker"


@pytest.mark.slow
def test_a_name_is_free_again_as_soon_as_its_owner_is_dead(
    bus_process: BusProcess, worker: Callable[..., Worker]
) -> None:
    for _ in range(5):
        kill(worker(say, 1, name="same").pid)
    bus_process.kill()
    bus_process.start()
    kill(worker(say, 1, name="same").pid)


def test_the_name_of_a_dead_one_is_waited_for_however_late_its_death_is_seen(
    bus: shmbus.Bus,
    attach: Callable[..., shmbus.Endpoint],
    worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "_open_pidfd", lambda connection, pid: None)
    monkeypatch.setattr(control, "_open_stat", lambda pid: -1)
    monkeypatch.setattr(lookout, "_alive", lambda process: True)
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)
    monkeypatch.setattr(admission, "_TRIES", 0)
    worker(say, 1, name="same").kill()
    assert [e.state for e in bus.endpoints()] == ["dead"]
    found: list[shmbus.Endpoint] = []
    attaching = threading.Thread(target=lambda: found.append(attach("same")))
    attaching.start()
    eventually(lambda: bus._dispatcher._waiting)
    bus.evict("same")
    attaching.join(TIMEOUT)
    assert found[0].name == "same"
