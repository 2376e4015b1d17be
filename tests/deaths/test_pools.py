"""Large payloads when somebody dies: who looks sees what was sent, what was begun goes on to
another, and the sender gets its pool back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import shmbus
from shmbus import Message
from shmbus.shared import names
from shmbus.testing import Attach, BusProcess, MakeRecorder, StartWorker, eventually
from shmbus.views.facts import EndpointInfo
from shmbus.views.observe import BusView

from .roles import NEVER, take_and_hang

PIXELS = 200_000  # more than a quarter of a ring
SHM = Path("/dev/shm")
FEW = shmbus.Settings(pool_bytes=8 * 204_800)
"""A pool that has space for eight of them."""
PATIENT = shmbus.Settings(pool_bytes=8 * 204_800, block_timeout=60)
SOON_SLOW = shmbus.Settings(pool_bytes=8 * 204_800, block_timeout=0.2)


def picture(number: int) -> np.ndarray:
    return np.full(PIXELS, number % 251, np.uint8)


def shows(message: Message | None, number: int) -> bool:
    return message is not None and bool((message.payload == picture(number)).all())


def pools_of(bus: str) -> int:
    return sum(entry.kind == "pool" for _, entry in names.entries(bus))


def collect(endpoint: shmbus.Endpoint) -> None:
    """Holds what it gets."""
    endpoint.subscribe("picture")
    held = [endpoint.receive() for _ in range(4)]
    endpoint.publish("collected", len(held))
    NEVER.wait()


@pytest.mark.smoke
@pytest.mark.slow
@pytest.mark.parametrize("bus_settings", [FEW])
def test_what_a_dead_one_held_comes_back_and_what_it_had_begun_goes_on(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, collected = recorder("begun"), recorder("collected")
    collector = worker(collect, name="collector")
    victim = worker(take_and_hang, "job", "workers", name="victim")
    source, other = attach("source"), attach("other")
    source.wait_for("picture")
    source.wait_for("job")
    for number in range(4):
        source.publish("picture", picture(number))
    source.publish("job", picture(7))
    begun.wait()
    collected.wait()
    other.subscribe("job", group="workers")
    victim.kill()
    job = other.receive(60)
    assert job is not None
    assert shows(job, 7)
    assert job.redelivered
    collector.kill()
    del job
    assert other.receive(0) is None  # it is done with that
    begun.messages.clear()  # it had the picture, too
    source.publish("whole", bytes(1_600_000), timeout=60)  # that takes the whole pool
    assert bus.health().violations == 0


def half_a_pool(endpoint: shmbus.Endpoint) -> None:
    """As the pool of one that is killed while it makes it."""
    pool = names.names_of(endpoint.bus.name).pool(endpoint._seat.slot, endpoint._seat.generation)
    (SHM / pool).touch()
    NEVER.wait()


@pytest.mark.usefixtures("bus")
def test_a_pool_that_was_never_finished_leaves_no_name(bus_name: str, worker: StartWorker) -> None:
    victim = worker(half_a_pool, name="victim")
    eventually(lambda: pools_of(bus_name) == 1)
    victim.kill()
    eventually(lambda: pools_of(bus_name) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("bus_settings", [PATIENT])
def test_a_fan_out_that_is_under_way_at_the_dispatchers_death_reaches_everybody_once(
    bus_process: BusProcess, attach: Attach
) -> None:
    small = shmbus.Settings(in_bytes=4096)
    full = attach("full", settings=small, reconnect=True)
    source, filler, eye = (attach(n, reconnect=True) for n in ("source", "filler", "eye"))
    full.subscribe("small")
    full.subscribe("picture")
    eye.subscribe("picture")
    for _ in range(60):  # more than its ring holds
        filler.publish("small", bytes(100))
    eventually(lambda: info(full.bus, "filler").unforwarded)
    for number in range(3):
        source.publish("picture", picture(number))
    assert shows(eye.receive(60), 0)  # and `full` is owed it
    bus_process.kill()
    assert full.receive(0) is not None
    bus_process.restart()
    got = [full.receive(60) for _ in range(62)]
    pictures = [one for one in got if one is not None and one.type == "picture"]
    assert len(pictures) == 3
    assert all(shows(one, number) for number, one in enumerate(pictures))
    assert all(shows(eye.receive(60), number) for number in (1, 2))
    assert full.receive(0) is None
    assert eye.receive(0) is None
    del got, pictures
    source.publish("whole", bytes(1_600_000), timeout=60)  # that takes the whole pool
    with shmbus.observe(bus_process.name) as bus:
        assert (bus.health().lost, bus.health().violations) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("bus_settings", [FEW])
def test_views_outlive_sender_and_bus_and_a_successor_loses_no_block(
    bus_process: BusProcess, attach: Attach
) -> None:
    source = attach("source", reconnect=True)
    eye, newest = attach("eye", reconnect=True), attach("newest", reconnect=True)
    eye.subscribe("picture")
    newest.subscribe("picture", overflow="latest")
    for number in range(4):
        source.publish("picture", picture(number))
    first = eye.receive(60)
    assert shows(first, 0)
    bus_process.kill()
    assert shows(eye.receive(60), 1)
    bus_process.restart()
    for number in (2, 3):
        assert shows(eye.receive(60), number)
    for number in range(4, 40):  # far more than the pool holds
        source.publish("picture", picture(number), timeout=60)
        assert shows(eye.receive(60), number)
    eventually(lambda: (m := newest.receive(60)) is not None and shows(m, 39))
    source.close()
    assert shows(first, 0)
    eye.close()
    newest.close()
    assert shows(first, 0)
    eventually(lambda: pools_of(bus_process.name) == 0)


@pytest.mark.slow
@pytest.mark.parametrize("leaves", [False, True])
def test_who_gives_back_what_lies_in_a_pool_that_a_successor_cannot_open_is_not_at_fault(
    bus_process: BusProcess, attach: Attach, leaves: bool
) -> None:
    source, one = attach("source", reconnect=True), attach("one", reconnect=True)
    one.subscribe("picture", group="g")
    source.publish("picture", picture(7))
    message = one.receive(60)
    assert message is not None
    seat = source._seat
    pool, aside = (
        SHM / seat.names.pool(seat.slot, seat.generation),
        SHM / f"{bus_process.name}-aside",
    )
    if leaves:
        source.close()
        eventually(lambda: [e.name for e in one.bus.endpoints()] == ["one"])
    bus_process.kill()
    message.nack()
    pool.rename(aside)
    try:
        pool.symlink_to(aside)  # which is not followed
        bus_process.restart()
        again = one.receive(60)
        assert shows(again, 7)
        assert again is not None
        assert (again.attempt, one.bus.health().violations) == (2, 0)
    finally:
        aside.replace(pool)


@pytest.mark.slow
@pytest.mark.parametrize("bus_settings", [FEW])
def test_a_large_value_is_kept_where_it_is_and_outlives_publisher_and_dispatcher(
    bus_process: BusProcess, attach: Attach
) -> None:
    source, display = attach("source"), attach("display", reconnect=True)
    for number in range(30):  # nobody waits for a block because of what is kept
        source.publish("picture", picture(number), retain=True, timeout=60)
    eventually(lambda: bool((display.bus.retained("*")[-1].payload == picture(29)).all()))
    source.close()
    bus_process.kill()
    bus_process.restart()
    display.subscribe("picture", history=1)
    got = display.receive(60)
    assert got is not None
    assert shows(got, 29)
    assert (got.retained, got.source) == (True, "source")


def info(bus: shmbus.Bus | BusView, name: str) -> EndpointInfo:
    return next(e for e in bus.endpoints() if e.name == name)


def watch(endpoint: shmbus.Endpoint) -> None:
    """Says what it gets, and how many it lost before."""
    endpoint.subscribe("picture")
    while True:
        message = endpoint.receive()
        assert message is not None
        endpoint.publish("watched", [int(message.payload[0]), message.lost])


@pytest.mark.parametrize("bus_settings", [SOON_SLOW])
def test_a_stopped_subscriber_loses_pictures_and_holds_up_no_other(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    watched = recorder("watched")
    watcher = worker(watch, name="watcher")
    source, eye = attach("source"), attach("eye")
    eye.subscribe("picture")
    source.wait_for("picture", receivers=2)
    watcher.pause()
    for number in range(20):
        source.publish("picture", picture(number), timeout=60)
        assert shows(eye.receive(60), number)
    assert info(bus, "watcher").lost_by.slow == 20
    watcher.resume()
    eventually(lambda: not info(bus, "watcher").slow)
    source.publish("picture", picture(99), timeout=60)
    watched.wait()
    assert [message.payload for message in watched.messages] == [[99, 20]]
