"""The doctor frees what the dead left, and only that."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmbus
from ringbuf import Segment
from shmbus import doctor, fence, layout, names, processes
from shmbus.testing import BusProcess, Worker, in_shm

from .cli.conftest import COMMAND

Workers = Callable[..., Worker]


def wait(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("work", lambda message: None)
    endpoint.run(reconnect=True)


leavings_of = doctor.find_leavings


def free(bus: str) -> int:
    return sum(doctor.free(leaving) for leaving in leavings_of(bus) if leaving.removable)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def dead() -> names.Owner:
    """An attach of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        return names.new_owner(process.pid, processes.start_time(process.pid))


@pytest.fixture
def name() -> Iterator[str]:
    name = f"doctor-{secrets.token_hex(4)}"
    yield name
    assert in_shm(name) == []


def make_up(bus: str, owner: names.Owner) -> Path:
    def prepare(memory: Any) -> None:
        said = layout.view(memory, layout.UP)[0]
        said["identity"] = (owner.pid, 0, owner.start, processes.namespace("pid"), 0)
        said["name"] = b"worker"

    up, kind = names.names_of(bus).up(owner), layout.SegmentKind.UP
    size = -(-layout.UP.itemsize // 8) * 8
    Segment.create(up, size, kind=kind, layout=layout.LAYOUT, prepare=prepare).close()
    return Path("/dev/shm", up)


@pytest.mark.slow
def test_a_bus_of_which_nobody_lives_is_found_and_freed(
    bus_process: BusProcess, worker: Workers
) -> None:
    one = worker(wait, name="one")
    with shmbus.attach(bus_process.name) as client:
        client.wait_for("work", timeout=60)
    bus_process.kill()
    one.kill()
    (leaving,) = leavings_of(bus_process.name)
    assert leaving.removable
    assert "endpoints one" in leaving.owner
    assert "its dispatcher, process" in leaving.owner
    assert leaving.bytes > 2 * 1024 * 1024
    assert set(leaving.files) == set(in_shm(bus_process.name))
    ran = run(bus_process.name)
    assert ran.returncode == 1
    none = "leavings: none of the dead"
    assert none not in ran.stdout
    ran = run(bus_process.name, "--fix")
    assert ran.returncode == 0
    assert none in ran.stdout
    assert f"of bus {bus_process.name} (its dispatcher, process" in ran.stdout
    assert in_shm(bus_process.name) == []


@pytest.mark.slow
def test_a_bus_that_somebody_waits_for_is_kept_and_can_be_adopted(
    bus_process: BusProcess, worker: Workers
) -> None:
    one = worker(wait, name="one")
    with shmbus.attach(bus_process.name) as client:
        client.wait_for("work", timeout=60)
    bus_process.kill()
    (leaving,) = leavings_of(bus_process.name)
    assert not leaving.removable
    assert f"processes {one.pid} wait for it" in leaving.reason
    before = in_shm(bus_process.name)
    assert doctor.free(leaving) == 0
    assert set(before) <= set(in_shm(bus_process.name))
    bus_process.start()
    with shmbus.attach(bus_process.name) as client:
        client.wait_for("work", timeout=60)
        client.request("work", timeout=60)


def test_all_buses_are_looked_at(name: str, dead: names.Owner) -> None:
    make_up(name, dead)
    assert name in {leaving.bus for leaving in doctor.find_leavings()}
    assert free(name) > 0


def test_a_bus_that_is_served_is_none_of_its_business(bus: shmbus.Bus) -> None:
    with bus.attach("here"):
        assert leavings_of(bus.name) == []


def test_who_died_at_the_door_of_a_bus_that_is_served_is_cleared_away(
    bus: shmbus.Bus, dead: names.Owner
) -> None:
    with bus.attach("here"):
        up = make_up(bus.name, dead)
        (leaving,) = leavings_of(bus.name)
        assert leaving.removable
        assert leaving.owner == f"endpoint worker, process {dead.pid}"
        assert free(bus.name) > 0
        assert not up.exists()
        assert leavings_of(bus.name) == []
    with bus.attach("still.works"):
        pass


def test_what_belongs_to_the_living_is_kept(name: str) -> None:
    owner = names.new_owner(os.getpid(), processes.start_time(os.getpid()))
    up = make_up(name, owner)
    (leaving,) = leavings_of(name)
    assert not leaving.removable
    assert doctor.free(leaving) == 0
    assert up.exists()
    up.unlink()


def test_a_lock_file_that_nobody_holds_is_freed_and_one_that_is_held_is_not(name: str) -> None:
    assert fence.acquire(name) is None
    assert leavings_of(name) == []
    assert fence.holder(name) is not None
    fence.release(name, remove=False)
    assert fence.holder(name) is None
    assert leavings_of(name)[0].removable
    free(name)


def test_a_bus_that_begins_while_it_is_cleared_away_begins_anew(
    name: str, dead: names.Owner
) -> None:
    make_up(name, dead)
    assert fence.acquire(name) is None  # as the doctor does
    served: list[shmbus.Bus] = []
    thread = threading.Thread(target=lambda: served.append(shmbus.serve(name)))
    thread.start()
    assert not served
    fence.release(name, remove=True)
    thread.join()
    with served[0] as bus, bus.attach("here"):
        pass


@pytest.mark.slow
def test_it_may_race_with_buses_that_begin_and_end(name: str) -> None:
    stop = threading.Event()
    seen: list[str] = []

    def clear() -> None:
        while not stop.is_set():
            for leaving in leavings_of(name):
                seen.append(leaving.bus)
                doctor.free(leaving)

    thread = threading.Thread(target=clear)
    thread.start()
    try:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            with shmbus.serve(name) as bus, bus.attach("a") as a, bus.attach("b") as b:
                b.handle("x", lambda message: 1)
                b.start()
                assert a.request("x", timeout=60).payload == 1
    finally:
        stop.set()
        thread.join()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_another_users_leavings_are_told_and_left_alone(name: str) -> None:
    path = Path("/dev/shm", names.names_of(name, 12345).bus_segment)
    path.write_bytes(bytes(4096))
    os.chown(path, 12345, 12345)
    try:
        assert leavings_of(name) == []
        (other,) = [f for f in doctor.find_foreign() if f.uid == 12345]
        assert name in other.buses
        run(name, "--fix")
        assert path.exists()
    finally:
        path.unlink()


def test_the_host_is_checked() -> None:
    found = {finding.subject: finding for finding in doctor.check_host()}
    assert {"/dev/shm", "semaphores", "descriptors", "pid namespace", "CPUs"} <= set(found)
    assert all(finding.text for finding in found.values())
    assert all(finding.remedy for finding in found.values() if finding.state == "bad")
    assert not [file for file in os.listdir("/dev/shm") if "shmbus-doctor" in file]


@pytest.mark.slow
def test_what_is_wrong_with_the_host_is_told_with_a_remedy() -> None:
    shell = 'ulimit -n 100; exec "$@"'
    command = ["sh", "-c", shell, "sh", *COMMAND, "doctor", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1
    assert '"subject":"descriptors","state":"bad"' in ran.stdout
    assert "ulimit -n 800" in ran.stdout
