"""The doctor frees what the dead left, and only that."""

from __future__ import annotations

import fcntl
import os
import resource
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import shmbus
from ringbuf import Segment
from shmbus.dispatcher import succession
from shmbus.shared import fence, layout, names, processes
from shmbus.testing import (
    TIMEOUT,
    Attach,
    BusProcess,
    Program,
    StartWorker,
    eventually,
    in_shm,
    run_python,
    start_python,
)
from shmbus.views import doctor, leavings
from tests.tools.shmbus_command.conftest import COMMAND


def wait(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("work", lambda message: None)
    endpoint.run(reconnect=True)


leavings_of = leavings.find_leavings


def free(bus: str) -> int:
    return sum(leavings.free_leaving(leaving) for leaving in leavings_of(bus) if leaving.removable)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def dead() -> names.Owner:
    """An attach of a process that is no more."""
    with start_python("import time; time.sleep(600)") as process:
        return names.new_owner(process.pid, processes.start_time(process.pid))


@pytest.fixture
def name() -> Iterator[str]:
    name = f"doctor-{secrets.token_hex(4)}"
    yield name
    assert in_shm(name) == []


def make_up(bus: str, owner: names.Owner) -> Path:
    def prepare(memory: Any) -> None:
        head = layout.view(memory, layout.UP)[0]
        head["identity"] = (owner.pid, 0, owner.start, processes.namespace("pid"), 0)
        head["name"] = b"worker"

    up, kind = names.names_of(bus).up(owner), layout.SegmentKind.UP
    size = -(-layout.UP.itemsize // 8) * 8
    Segment.create(up, size, kind=kind, layout=layout.LAYOUT, prepare=prepare).close()
    return Path("/dev/shm", up)


@pytest.mark.slow
def test_a_bus_of_which_nobody_lives_is_found_and_freed(
    bus_process: BusProcess, worker: StartWorker
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
    rings = shmbus.Settings()
    assert leaving.bytes > rings.in_bytes + rings.out_bytes + 2 * rings.reply_bytes
    assert set(leaving.files) == set(in_shm(bus_process.name))
    ran = run(bus_process.name)
    assert ran.returncode == 1
    none = "leavings: none in"
    assert none not in ran.stdout
    ran = run(bus_process.name, "--fix")
    assert ran.returncode == 0
    assert none in ran.stdout
    assert f"of bus {bus_process.name} (its dispatcher, process" in ran.stdout
    assert in_shm(bus_process.name) == []


@pytest.mark.slow
def test_a_bus_that_somebody_waits_for_is_kept_and_can_be_adopted(
    bus_process: BusProcess, worker: StartWorker
) -> None:
    one = worker(wait, name="one")
    with shmbus.attach(bus_process.name) as client:
        client.wait_for("work", timeout=60)
    bus_process.kill()
    (leaving,) = leavings_of(bus_process.name)
    assert not leaving.removable
    assert f"processes {one.pid} wait for it" in leaving.reason
    before = in_shm(bus_process.name)
    assert leavings.free_leaving(leaving) == 0
    assert set(before) <= set(in_shm(bus_process.name))
    bus_process.start()
    with shmbus.attach(bus_process.name) as client:
        client.wait_for("work", timeout=60)
        client.request("work", timeout=60)


@pytest.mark.smoke
def test_all_buses_are_looked_at(name: str, dead: names.Owner) -> None:
    make_up(name, dead)
    assert name in {leaving.bus for leaving in leavings.find_leavings()}
    assert free(name) > 0


def test_a_bus_that_is_served_is_none_of_its_business(bus: shmbus.Bus) -> None:
    with bus.attach("here"):
        assert leavings_of(bus.name) == []


def test_who_died_on_a_bus_whose_dispatcher_is_stopped_is_left_to_that(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    one, client = worker(wait, name="one"), attach("client")
    client.wait_for("work", timeout=60)
    bus_process.pause()
    one.kill()
    there = in_shm(bus_process.name)
    assert leavings_of(bus_process.name) == []
    assert free(bus_process.name) == 0
    assert in_shm(bus_process.name) == there
    bus_process.resume()
    eventually(lambda: [e.name for e in client.bus.endpoints()] == ["client"])


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


@pytest.mark.smoke
def test_what_belongs_to_the_living_is_kept(name: str) -> None:
    owner = names.new_owner(os.getpid(), processes.start_time(os.getpid()))
    up = make_up(name, owner)
    (leaving,) = leavings_of(name)
    assert not leaving.removable
    assert leavings.free_leaving(leaving) == 0
    assert up.exists()
    up.unlink()


def test_a_fence_whose_file_is_replaced_as_it_is_taken_still_excludes_others(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = names.SHM / names.names_of(bus_name).lock
    take = fcntl.lockf

    def take_too_late(fd: int, how: int) -> None:
        take(fd, how)
        monkeypatch.setattr(fcntl, "lockf", take)
        path.unlink()
        path.touch(0o600)

    monkeypatch.setattr(fcntl, "lockf", take_too_late)
    assert fence.acquire(bus_name) is None
    code = "import sys; from shmbus.shared import fence; print(fence.acquire(sys.argv[1]).pid)"
    assert run_python(code, bus_name) == f"{os.getpid()}\n"
    fence.release(bus_name, remove=True)


def test_a_lock_file_that_nobody_holds_is_freed_and_one_that_is_held_is_not(name: str) -> None:
    assert fence.acquire(name) is None
    assert leavings_of(name) == []
    assert fence.holder(name) is not None
    fence.release(name, remove=False)
    assert fence.holder(name) is None
    assert leavings_of(name)[0].removable
    free(name)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new dispatcher waits long for a process that holds the fence and does not serve."""
    monkeypatch.setattr(succession, "_BEGINNING", TIMEOUT)


@pytest.mark.usefixtures("patient")
def test_a_bus_that_begins_while_it_is_cleared_away_begins_anew(
    name: str, dead: names.Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_up(name, dead)
    assert fence.acquire(name) is None  # as the doctor does
    refused = threading.Event()
    serves = succession._serves

    def look(*arguments: Any) -> bool:
        refused.set()
        return serves(*arguments)

    monkeypatch.setattr(succession, "_serves", look)
    served: list[shmbus.Bus] = []
    thread = threading.Thread(target=lambda: served.append(shmbus.serve(name)))
    thread.start()
    assert refused.wait(TIMEOUT)
    assert not served
    fence.release(name, remove=True)
    thread.join()
    with served[0] as bus, bus.attach("here"):
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_it_may_race_with_buses_that_begin_and_end(name: str) -> None:
    stop = threading.Event()
    seen: list[str] = []

    def clear() -> None:
        while not stop.is_set():
            for leaving in leavings_of(name):
                seen.append(leaving.bus)
                leavings.free_leaving(leaving)

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


DOCTOR = """
import sys
from shmbus.views import leavings
print("ready")
while True:
    freed = sum(map(leavings.free_leaving, leavings.find_leavings(sys.argv[1])))
    if freed:
        print("freed", freed)
"""


@pytest.fixture
def doctor_at_work(bus_name: str) -> Iterator[Program]:
    """Another process that frees whatever may be freed of the test's bus, again and again, and
    prints what it has freed."""
    with start_python(DOCTOR, bus_name) as it:
        assert it.line() == "ready"
        yield it
        assert it.alive  # no error ended it


@pytest.mark.slow
def test_it_races_with_buses_that_begin_end_and_die(bus_name: str, doctor_at_work: Program) -> None:
    for _ in range(30):
        with shmbus.serve(bus_name) as bus, bus.attach("a") as a, bus.attach("b") as b:
            b.handle("x", lambda message: 1)
            b.start()
            assert a.request("x", timeout=60).payload == 1
    assert (doctor_at_work.printed, doctor_at_work.alive) == ("", True)
    code = "import os, shmbus, sys; bus = shmbus.serve(sys.argv[1]); bus.attach('a'); os._exit(0)"
    for _ in range(4):
        run_python(code, bus_name)
    eventually(lambda: not in_shm(bus_name))
    assert doctor_at_work.line().startswith("freed ")


@pytest.mark.slow
def test_it_races_with_dispatchers_that_take_over(
    bus_process: BusProcess, doctor_at_work: Program, worker: StartWorker
) -> None:
    worker(wait, name="one", reconnect=True)
    with shmbus.attach(bus_process.name, name="client", reconnect=True) as client:
        client.wait_for("work", timeout=60)
        for number in range(5):
            bus_process.kill()
            client.send("work")
            bus_process.start()
            assert client.request("work", timeout=60).payload is None
            with shmbus.attach(bus_process.name, name=f"guest{number}", timeout=60) as guest:
                guest.publish("x")
        assert (doctor_at_work.printed, doctor_at_work.alive) == ("", True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_another_users_leavings_are_told_and_left_alone(name: str) -> None:
    path = Path("/dev/shm", names.names_of(name, 12345).bus_segment)
    path.write_bytes(bytes(4096))
    os.chown(path, 12345, 12345)
    try:
        assert leavings_of(name) == []
        (other,) = [f for f in leavings.find_foreign() if f.uid == 12345]
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
    assert not [file for file in os.listdir("/dev/shm") if f"shmbus-doctor-{os.getpid()}" in file]


def test_what_is_wrong_with_one_bus_is_no_matter_of_another(bus: shmbus.Bus, name: str) -> None:
    with shmbus.serve(name):
        Path("/dev/shm", names.names_of(name).door).unlink()
        assert f"bus {name}" in {finding.subject for finding in doctor.check_host()}
        assert f"bus {name}" in {finding.subject for finding in doctor.check_host(name)}
        assert f"bus {name}" not in {finding.subject for finding in doctor.check_host(bus.name)}


def test_it_is_the_soft_limit_of_descriptors_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (92, 1 << 20))
    (found,) = (finding for finding in doctor.check_host() if finding.subject == "descriptors")
    assert found.state == "bad"
    assert found.text.startswith("92 (1048576 at most)")
    assert "can serve 20 endpoints" in found.text
    assert found.remedy.startswith("ulimit -n")


HOST = """
import configparser, os, sys, msgspec  # who else has this process may not read Python's files
from shmbus.views import doctor
PREPARE
os.seteuid(int(sys.argv[1]))
print(msgspec.json.encode(doctor.check_host()).decode())
"""


def checked(
    *, setup: str = "true", prepare: str = "", uid: int = 0, unshare: tuple[str, ...] = ("-m",)
) -> dict[str, doctor.Finding]:
    """What is found on a machine that has been made so, in namespaces of its own, by subject."""
    before = ["unshare", *unshare, "sh", "-ec", f'{setup}; exec "$0" "$@"']
    printed = run_python(HOST.replace("PREPARE", prepare), uid, before=before)
    found = msgspec.json.decode(printed, type=list[doctor.Finding])
    assert all(finding.remedy for finding in found if finding.state == "bad")
    assert len({finding.subject for finding in found}) == len(found)
    return {finding.subject: finding for finding in found}


namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="only root can make another machine of this one",
)


@namespaces
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mount", "state", "expected", "remedy"),
    [
        ("mount -t tmpfs -o size=4m none", "bad", "4 MiB, 4 free: space for 2 ", "--shm-size"),
        ("mount -t tmpfs -o size=24m none", "note", "24 MiB", "--in-bytes"),
        ("mount -t tmpfs -o size=64m none", "good", "64 MiB", ""),
        ("mount -t tmpfs -o ro none", "bad", "may not write", "remount,rw"),
        ("mount --bind /usr", "bad", "not in memory", "mount -t tmpfs"),
    ],
)
def test_a_dev_shm_that_will_not_do_is_reported(
    mount: str, state: str, expected: str, remedy: str
) -> None:
    found = checked(setup=f"{mount} /dev/shm")
    assert found["/dev/shm"].state == state
    assert expected in found["/dev/shm"].text
    assert remedy in found["/dev/shm"].remedy
    assert found["semaphores"].state == ("bad" if "-o ro" in mount else "good")


@namespaces
@pytest.mark.slow
@pytest.mark.parametrize(
    ("main", "dropped_in", "uid", "state"),
    [
        ("", None, 12345, "bad"),  # by default it is on
        ("RemoveIPC=yes", None, 0, "good"),
        ("RemoveIPC=no", None, 12345, "good"),
        ("RemoveIPC=no", "RemoveIPC=yes", 12345, "bad"),
    ],
)
def test_that_logind_empties_dev_shm_is_told(
    tmp_path: Path, main: str, dropped_in: str | None, uid: int, state: str
) -> None:
    (tmp_path / "run/systemd/seats").mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf.d").mkdir(parents=True)
    (tmp_path / "etc/systemd/logind.conf").write_text(f"# of a test\n[Login]\n{main}\n")
    if dropped_in:
        place = tmp_path / "etc/systemd/logind.conf.d/50-more.conf"
        place.write_text(f"[Login]\n{dropped_in}\n")
    # Mounted elsewhere first: the tests' own directory may lie below one of both.
    mount = f"mount --bind {tmp_path}/run /run && mount --bind {tmp_path}/etc /etc"
    found = checked(setup=mount, uid=uid)["RemoveIPC"]
    assert found.state == state
    assert ("enable-linger 12345" in found.remedy) == (state == "bad")


# A seccomp filter that refuses one system call, if the argument that stands there is this one.
FORBID = """
import ctypes, struct
steps = [
    (0x20, 0, 0, 0), (0x15, 0, 3, {number}), (0x20, 0, 0, {at}), (0x15, 0, 1, {argument}),
    (0x06, 0, 0, 0x00050000 | {errno}), (0x06, 0, 0, 0x7FFF0000),
]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
filter = struct.pack("HP", len(steps), ctypes.addressof(program))
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0
assert prctl(22, 2, ctypes.c_char_p(filter), 0, 0) == 0
"""


@namespaces
@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the filter is written for it")
@pytest.mark.parametrize(
    ("prepare", "state", "expected"),
    [
        (FORBID.format(number=434, at=24, argument=0, errno=38), "note", "pidfd_open"),
        (FORBID.format(number=55, at=32, argument=77, errno=92), "note", "SO_PEERPIDFD"),
        (FORBID.format(number=28, at=32, argument=18, errno=22), "bad", "forked children"),
        ("os.confstr = lambda name: 'glibc 2.28'", "note", "sem_clockwait"),
    ],
)
def test_what_linux_lacks_is_reported(prepare: str, state: str, expected: str) -> None:
    found = [f for subject, f in checked(prepare=prepare).items() if subject.startswith("Linux")]
    assert state in {f.state for f in found}
    assert any(expected in f.text for f in found)


@namespaces
@pytest.mark.slow
def test_that_a_bus_is_served_from_another_pid_namespace_is_told(bus: shmbus.Bus) -> None:
    found = checked(unshare=("--pid", "--fork", "--kill-child", "--mount-proc"))["pid namespace"]
    assert found.state == "bad"
    assert bus.name in found.text
    assert "--pid=container" in found.remedy


@pytest.mark.slow
def test_what_is_wrong_with_the_host_is_told_with_a_remedy() -> None:
    shell = 'ulimit -n 100; exec "$@"'
    command = ["sh", "-c", shell, "sh", *COMMAND, "doctor", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 1
    assert '"subject":"descriptors","state":"bad"' in ran.stdout
    assert "ulimit -n 800" in ran.stdout
