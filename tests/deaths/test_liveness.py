"""However a process ends, its death is reported; none that is alive is taken for dead."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import psutil
import pytest

import shmbus
from shmbus import Death, errors
from shmbus.dispatcher import control, door, lookout
from shmbus.shared import names, processes
from shmbus.testing import (
    Attach,
    MakeRecorder,
    Recorder,
    StartWorker,
    eventually,
    start_python,
)

from .roles import NEVER, echo


def die(way: str, group: str) -> None:
    if way == "out of memory":
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
        hoard = []
        while True:
            hoard.append(b"x" * (1 << 20))
    elif way == "exec":
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])
    elif way.startswith("exit"):
        os._exit(int(way[-1]))
    else:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0 if way != "core" else hard, hard))
        os.kill(os.getpid(), signal.SIGABRT if way == "core" else signal.Signals[way])
        NEVER.wait()


def answer_by_dying(endpoint: shmbus.Endpoint, way: str, group: str = "") -> None:
    os.chdir(os.environ.get("TMPDIR", "/tmp"))  # where a core file may go
    endpoint.handle("die", lambda message: die(way, group))
    endpoint.run()


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A cgroup whose processes may use 32 MiB together."""
    root, most = Path("/sys/fs/cgroup/memory"), 32 << 20
    limits = {"memory.limit_in_bytes": most, "memory.memsw.limit_in_bytes": most}
    if not root.exists():
        root, limits = root.parent, {"memory.max": most, "memory.swap.max": 0}
    group = root / f"shmbus-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as problem:
        pytest.skip(f"no cgroup can be made here: {problem}")
    try:
        found = {group / file: limit for file, limit in limits.items() if (group / file).exists()}
        if not found:
            pytest.skip("cgroups do not limit memory here")
        for file, limit in found.items():
            file.write_text(str(limit))
        yield group
    finally:
        group.rmdir()


REASONS = {
    "SIGKILL": "killed",
    "SIGHUP": "killed",
    "SIGSEGV": "killed",
    "core": "killed",
    "out of memory": "killed",
    "exit0": "exited",
    "exit3": "exited",
    "exec": "exec",
}


@pytest.mark.parametrize("way", REASONS)
def test_however_it_dies_its_caller_and_all_who_listen_are_told(
    bus: shmbus.Bus,
    attach: Attach,
    recorder: MakeRecorder,
    worker: StartWorker,
    request: pytest.FixtureRequest,
    way: str,
) -> None:
    group: Path | None = None
    if way == "out of memory":
        group = request.getfixturevalue("memory_group")
    downs = recorder("$bus.endpoint.down")
    victim = worker(answer_by_dying, way, str(group), name="victim")
    caller = attach("caller")
    caller.wait_for("die")
    deaths: list[Death] = []
    caller.on_death("victim", deaths.append)
    with pytest.raises(errors.EndpointDied) as caught:
        caller.request("die", timeout=60)
    assert caught.value.endpoint == "victim"
    assert caught.value.pid == victim.pid
    assert caught.value.reason == REASONS[way]
    assert "victim" in str(caught.value)
    (down,) = downs.wait(where=lambda m: m.payload["name"] == "victim")
    assert down.payload["pid"] == victim.pid
    assert down.payload["reason"] == REASONS[way]
    assert down.source == "$bus"
    (death,) = eventually(lambda: deaths)
    assert death == Death(name="victim", pid=victim.pid, reason=REASONS[way])
    eventually(lambda: "victim" not in {e.name for e in bus.endpoints()})
    attach("victim")  # the name is free
    assert len(deaths) == 1
    victim.kill()  # the program that it has become by exec
    if group is not None:
        accounts = (group / file for file in ("memory.oom_control", "memory.events"))
        account = next(file.read_text() for file in accounts if file.exists())
        assert "oom_kill 1" in account.splitlines()


def exec_beside_a_child_that_c_forked(endpoint: shmbus.Endpoint) -> None:
    """The child inherits the connection to the dispatcher: no hook of Python's runs in it."""
    libc = ctypes.PyDLL(None)

    def die(message: shmbus.Message) -> None:
        if libc.fork() == 0:
            libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: with the program that comes
            while True:
                libc.pause()
        os.execvp("sleep", ["sleep", "600"])

    endpoint.handle("die", die)
    endpoint.run()


def test_exec_is_seen_although_a_child_that_c_forked_lives_on(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    downs = recorder("$bus.endpoint.down")
    victim = worker(exec_beside_a_child_that_c_forked, name="victim")
    caller = attach("caller")
    caller.wait_for("die")
    with pytest.raises(errors.EndpointDied) as caught:
        caller.request("die", timeout=20)
    assert (caught.value.endpoint, caught.value.reason) == ("victim", "exec")
    downs.wait(where=lambda m: m.payload["name"] == "victim")
    (child,) = psutil.Process(victim.pid).children()
    assert child.status() == psutil.STATUS_SLEEPING
    attach("victim")  # the name is free
    victim.kill()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def serve_beside_children_that_c_forked(endpoint: shmbus.Endpoint) -> None:
    libc = ctypes.PyDLL(None)
    for _ in range(3):
        if libc.fork() == 0:
            libc.prctl(1, signal.SIGKILL)
            while True:
                libc.pause()
    endpoint.handle("echo", lambda message: message.payload)
    endpoint.run()


def answers_on(attach: Attach, downs: Recorder) -> None:
    """Its requests are answered through several looks at all processes, and nobody is down."""
    caller = attach("caller")
    caller.wait_for("echo")
    for n in range(200):
        assert caller.request("echo", n, timeout=60).payload == n
        NEVER.wait(0.001)
    assert not downs.messages


def test_who_has_children_that_c_forked_goes_on(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    downs = recorder("$bus.endpoint.down")
    worker(serve_beside_children_that_c_forked, name="parent")
    answers_on(attach, downs)


def exit_beside_its_main_thread(endpoint: shmbus.Endpoint, code: int) -> None:
    endpoint.handle("die", lambda message: os._exit(code))
    endpoint.start()
    NEVER.wait()


@pytest.mark.parametrize("code", [0, 3])
def test_who_exits_in_another_thread_than_its_first_was_not_killed(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker, code: int
) -> None:
    worker(exit_beside_its_main_thread, code, name="victim")
    caller = attach("caller")
    caller.wait_for("die")
    with pytest.raises(errors.EndpointDied) as caught:
        caller.request("die", timeout=60)
    # The system ends its first thread like a killed one, and does not show an exit code of 0.
    assert caught.value.reason == ("exited" if code else "died")


def leave_only(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that shows deaths in this way alone."""
    if sign != "pidfd":
        monkeypatch.setattr(door, "_open_pidfd", lambda connection, pid: None)
    if sign != "task flags":
        monkeypatch.setattr(control, "_open_stat", lambda pid: -1)
    if sign != "psutil":
        monkeypatch.setattr(lookout, "_alive", lambda process: True)


def serve_beside_a_dead_leader(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("echo", lambda message: message.payload)
    endpoint.start()
    number = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # exit: of this thread alone
    ctypes.CDLL(None).syscall(number, 0)


def serve_under_an_odd_name(endpoint: shmbus.Endpoint) -> None:
    """The lines of its threads in /proc read as those of zombies where a name is taken to end at
    the first bracket."""
    for task in Path("/proc/self/task").iterdir():
        (task / "comm").write_text("a) Z 1 (")
    endpoint.handle("echo", lambda message: message.payload)
    endpoint.run()


def test_a_process_may_have_any_name(
    monkeypatch: pytest.MonkeyPatch,
    bus: shmbus.Bus,
    attach: Attach,
    recorder: MakeRecorder,
    worker: StartWorker,
) -> None:
    downs = recorder("$bus.endpoint.down")
    worker(serve_under_an_odd_name, name="odd")
    answers_on(attach, downs)


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("sign", ["pidfd", "task flags", "psutil"])
def test_a_zombie_leader_whose_threads_run_is_not_dead(
    monkeypatch: pytest.MonkeyPatch,
    bus: shmbus.Bus,
    attach: Attach,
    recorder: MakeRecorder,
    worker: StartWorker,
    sign: str,
) -> None:
    downs = recorder("$bus.endpoint.down")
    leave_only(sign, monkeypatch)
    undead = worker(serve_beside_a_dead_leader, name="undead")
    caller = attach("caller")
    caller.wait_for("echo")
    eventually(lambda: state_of(undead.pid) == "Z")
    for n in range(200):
        assert caller.request("echo", n, timeout=60).payload == n
        NEVER.wait(0.001)  # several looks at all processes
    assert not downs.messages
    os.kill(undead.pid, signal.SIGKILL)
    (down,) = downs.wait()
    assert down.payload["name"] == "undead"
    with pytest.raises(errors.NoRoute):
        caller.request("echo", timeout=60)


def test_without_descriptors_to_look_at_its_threads_a_zombie_leader_is_not_called_dead(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    downs = recorder("$bus.endpoint.down")
    undead = worker(serve_beside_a_dead_leader, name="undead")
    caller = attach("caller")
    caller.wait_for("echo")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
        for n in range(200):
            assert caller.request("echo", n, timeout=60).payload == n
            NEVER.wait(0.001)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in spare:
            os.close(fd)
    assert state_of(undead.pid) == "Z"
    assert not downs.messages
    os.kill(undead.pid, signal.SIGKILL)
    downs.wait()


def test_a_thread_that_ends_while_one_looks_says_nothing_of_its_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with start_python("") as ended:
        ended.wait()
    me, status = os.getpid(), psutil.Process.status
    threads = [mock.Mock(id=ended.pid), mock.Mock(id=os.getppid())]
    monkeypatch.setattr(psutil.Process, "threads", lambda process: threads)
    monkeypatch.setattr(
        psutil.Process, "status", lambda p: psutil.STATUS_ZOMBIE if p.pid == me else status(p)
    )
    assert lookout._alive(names.new_owner(me, processes.start_time(me)))


@pytest.mark.smoke
def test_a_zombie_is_dead(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    downs = recorder("$bus.endpoint.down")
    victim = worker(echo, name="victim")
    os.kill(victim.pid, signal.SIGKILL)
    downs.wait()
    eventually(lambda: state_of(victim.pid) == "Z")  # nobody has waited for it
    eventually(lambda: not bus.endpoints()[1:])


@pytest.mark.parametrize("sign", ["pidfd", "task flags", "psutil"])
def test_each_sign_of_a_death_suffices_alone(
    monkeypatch: pytest.MonkeyPatch,
    bus: shmbus.Bus,
    attach: Attach,
    recorder: MakeRecorder,
    worker: StartWorker,
    sign: str,
) -> None:
    downs = recorder("$bus.endpoint.down")
    leave_only(sign, monkeypatch)
    victim = worker(echo, name="victim")
    caller = attach("caller")
    caller.wait_for("echo")
    assert caller.request("echo", 1, timeout=60).payload == 1
    victim.kill()
    (down,) = downs.wait()
    assert (down.payload["name"], down.payload["pid"]) == ("victim", victim.pid)
    with pytest.raises(errors.NoRoute):
        caller.request("echo", timeout=60)
    eventually(lambda: "victim" not in {e.name for e in bus.endpoints()})
    attach("victim")
