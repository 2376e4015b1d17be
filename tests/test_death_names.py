"""What is known of the dead: whose message this was, and that a name is free again."""

from __future__ import annotations

from collections.abc import Callable

import shmbus
from shmbus.testing import BusProcess, Worker, eventually, kill


def say(endpoint: shmbus.Endpoint, count: int) -> None:
    for n in range(count):
        endpoint.publish("said", n)
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
    reader.subscribe("said")
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


def test_a_name_is_free_again_as_soon_as_its_owner_is_dead(
    bus_process: BusProcess, worker: Callable[..., Worker]
) -> None:
    for _ in range(5):
        kill(worker(say, 1, name="same").pid)
    bus_process.kill()
    bus_process.start()
    kill(worker(say, 1, name="same").pid)
