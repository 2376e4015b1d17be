"""What goes wrong around a bus: names removed, no space or descriptors, others' files, forks."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import shmbus
from ringbuf._kernel import MAGIC
from shmbus import errors
from shmbus.dispatcher import admission
from shmbus.shared import layout, names
from shmbus.testing import TIMEOUT, BusProcess, Recorder, Worker, eventually, in_shm
from shmbus.views import doctor, leavings
from shmbus.views.observe import BusView

Attach = Callable[..., shmbus.Endpoint]
Record = Callable[..., Recorder]
Hire = Callable[..., Worker]

SHM = Path("/dev/shm")


def run(code: str, *arguments: str, before: tuple[str, ...] = (), noisy: bool = False) -> str:
    """What a process of its own printed, which must end well, and quietly."""
    done = subprocess.run(
        [*before, sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert noisy or done.stderr == ""
    return done.stdout


# Names removed by others -------------------------------------------------------------------------


def remove_all(bus: str) -> None:
    """As logind does at logout, or a cleaner."""
    for file in in_shm(bus):
        (SHM / file).unlink()


def test_the_attached_go_on_when_all_names_are_removed(
    bus_process: BusProcess, attach: Attach
) -> None:
    server, caller = attach("server"), attach("caller")
    server.handle("echo", lambda message: message.payload)
    server.start()
    caller.wait_for("echo")
    eventually(lambda: caller.bus.health().healthy)
    remove_all(bus_process.name)
    for n in range(100):
        assert caller.request("echo", n, timeout=60).payload == n
    health = caller.bus.health()
    assert not health.healthy
    (reason,) = (reason for reason in health.reasons if "removed" in reason)
    assert "RemoveIPC" in reason


def test_nobody_else_can_attach_then_and_the_next_serve_starts_cleanly(
    bus_process: BusProcess, attach: Attach
) -> None:
    remove_all(bus_process.name)
    with pytest.raises(errors.AttachTimeout) as caught:
        attach("late", timeout=0.3)
    assert (caught.value.pid, caught.value.removed) == (bus_process.pid, True)
    assert "removed" in str(caught.value)
    assert "RemoveIPC" in str(caught.value)
    (found,) = [f for f in doctor.check_host() if f.subject == f"bus {bus_process.name}"]
    assert str(bus_process.pid) in found.text
    assert "RemoveIPC" in found.remedy
    bus_process.stop()
    bus_process.start()
    attach("later").publish("x")
    assert leavings.find_leavings(bus_process.name) == []


def test_who_waits_for_a_bus_that_nobody_can_find_any_more_is_told(
    bus_process: BusProcess, attach: Attach
) -> None:
    waiting = attach("waiting", reconnect=True)
    waiting.subscribe("x")
    remove_all(bus_process.name)
    bus_process.kill()
    assert waiting.receive(0.1) is None  # the next one might find it
    bus_process.start()
    with pytest.raises(errors.BusDown) as caught:
        waiting.receive(60)
    assert "removed its names" in caught.value.reason
    with pytest.raises(errors.BusDown):
        waiting.publish("x")
    attach("waiting").publish("x")


@pytest.mark.parametrize("timeout", [0.0, 0.1])  # too soon for an answer at the door, or not
@pytest.mark.parametrize("removed", ["bus_segment", "ready", "door", "bell"])
def test_whichever_name_was_removed_who_would_attach_is_told(
    bus: shmbus.Bus, removed: str, timeout: float
) -> None:
    name = getattr(names.names_of(bus.name), removed)
    (SHM / (f"sem.{name[1:]}" if name[0] == "/" else name)).unlink()
    with pytest.raises(errors.AttachTimeout) as caught:
        bus.attach("late", timeout=timeout)
    assert (caught.value.pid, caught.value.removed) == (os.getpid(), True)
    assert "removed" in str(caught.value)
    (reason,) = (reason for reason in bus.health().reasons if "removed" in reason)
    assert "RemoveIPC" in reason
    assert bus.name in {f.subject.removeprefix("bus ") for f in doctor.check_host()}


@pytest.mark.parametrize("removed", ["ready", "bell"])
def test_who_would_find_a_name_missing_is_not_let_in(bus: shmbus.Bus, removed: str) -> None:
    name = getattr(names.names_of(bus.name), removed)
    (SHM / (f"sem.{name[1:]}" if name[0] == "/" else name)).unlink()
    head = bus._dispatcher._table.head
    generation = int(head["last_generation"])
    with pytest.raises(errors.AttachTimeout):
        bus.attach("late", timeout=0.2)
    assert int(head["last_generation"]) == generation


def test_who_serves_is_found_whatever_else_it_opens_and_closes(bus_name: str) -> None:
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
    with shmbus.serve(bus_name) as bus:
        for fd in spare:  # below the door, to be taken by whoever looks at what is open
            os.close(fd)
        (SHM / names.names_of(bus_name).door).unlink()
        with pytest.raises(errors.AttachTimeout) as caught:
            bus.attach("late", timeout=0.0)
        assert (caught.value.pid, caught.value.removed) == (os.getpid(), True)


@pytest.mark.parametrize("removed", ["up", "endpoint_bell"])
def test_one_whose_name_was_removed_is_left_out_by_the_next_dispatcher_and_told(
    bus_process: BusProcess, attach: Attach, removed: str
) -> None:
    victim, other = attach("victim", reconnect=True), attach("other", reconnect=True)
    other.subscribe("x")
    bus_process.kill()
    name = getattr(victim._names, removed)(victim._owner)
    (SHM / (f"sem.{name[1:]}" if removed == "endpoint_bell" else name)).unlink()
    bus_process.start()
    other.publish("x", "still")
    message = other.receive(60)
    assert message is not None
    assert message.payload == "still"
    with pytest.raises(errors.Evicted):
        victim.receive(60)
    attach("victim").publish("x", "anew")
    assert other.receive(60) is not None


# No space, no descriptors, signals ---------------------------------------------------------------

namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="only root can mount a small /dev/shm",
)

FULL = """
    import os, shmbus
    from shmbus.testing import eventually
    assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize == 8 << 20
    with shmbus.serve("full") as bus:
        attached = []
        try:
            while True:
                attached.append(bus.attach(f"e{len(attached)}"))
        except shmbus.errors.SegmentError as error:
            print(len(attached), error.size > 1 << 20, error.free < error.size,
                  "--shm-size" in error.remedy, "ring_bytes" in error.remedy)
        first = attached[0]
        first.subscribe("x")
        for n in range(1000):  # whoever is on the bus does not notice
            attached[-1].publish("x", b"x" * 1000)
            assert first.receive(60).payload == b"x" * 1000
        attached.pop().close()

        def again():
            try:
                return bus.attach("again")
            except shmbus.errors.SegmentError:  # the dispatcher has not let go of it yet
                return None

        attached.append(eventually(again))
        small = bus.attach("small", settings=shmbus.Settings(ring_bytes=4096))
        small.publish("x")
    assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
"""


def small(size: str) -> tuple[str, ...]:
    mount = f"mount -t tmpfs -o size={size} none /dev/shm"
    return ("unshare", "-m", "sh", "-c", f'{mount} && exec "$0" "$@"')


@namespaces
def test_a_full_dev_shm_is_an_error_that_says_what_to_do_and_no_signal() -> None:
    said = run(FULL, before=small("8m")).split()
    assert said == ["3", "True", "True", "True", "True"]


@namespaces
def test_a_bus_that_does_not_fit_says_so() -> None:
    code = """
        import os, shmbus
        try:
            shmbus.serve("full", settings=shmbus.Settings(max_endpoints=1024))
        except shmbus.errors.SegmentError as error:
            print(error.free, "--shm-size" in error.remedy)
        assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
    """
    assert run(code, before=small("64k")).split()[1] == "True"


ELSEWHERE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@namespaces
def test_who_may_not_take_over_from_another_pid_namespace_leaves_those_who_wait_alone(
    bus_process: BusProcess, attach: Attach
) -> None:
    waiting = attach("waiting", reconnect=True)
    waiting.subscribe("x")
    bus_process.kill()
    code = """
        import sys, shmbus
        try:
            shmbus.serve(sys.argv[1])
        except shmbus.errors.Refused as error:
            print(error.reason)
    """
    assert "another pid namespace" in run(code, bus_process.name, before=ELSEWHERE)
    bus_process.start()
    waiting.publish("x", "still")
    message = waiting.receive(60)
    assert message is not None
    assert message.payload == "still"


@namespaces
def test_who_would_attach_from_another_pid_namespace_is_told(bus: shmbus.Bus) -> None:
    code = """
        import sys, shmbus
        try:
            shmbus.attach(sys.argv[1], timeout=5)
        except shmbus.errors.Refused as error:
            print(error)
    """
    before = in_shm(bus.name)
    assert "another pid namespace" in run(code, bus.name, before=ELSEWHERE)
    assert in_shm(bus.name) == before


FEW = """
    import resource, sys, os, shmbus
    before = len(os.listdir("/proc/self/fd"))
    others = shmbus.attach(sys.argv[1], name="first")
    others.subscribe("x")
    files = len(os.listdir("/proc/self/fd"))
    raised = set()
    for limit in range(files, files + 24):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            shmbus.attach(sys.argv[1], name=f"second{limit}", timeout=0.2).close()
        except (shmbus.errors.BusError, OSError) as error:
            raised.add(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert raised, "never short of descriptors"
    assert len(os.listdir("/proc/self/fd")) == files, "descriptors are left open"
    others.publish("x", 1)
    assert others.receive(60).payload == 1
    second = shmbus.attach(sys.argv[1], name="second")
    second.close()
    others.close()
    print(sorted(raised))
"""


def test_running_out_of_descriptors_at_attach_destroys_nothing(bus: shmbus.Bus) -> None:
    before = in_shm(bus.name)
    said = run(FEW, bus.name)
    assert "OSError" not in said, said
    eventually(lambda: in_shm(bus.name) == before)


LAST = """
    import os, resource, sys, shmbus
    least = len(os.listdir("/proc/self/fd")) - 1
    for limit in range(least, 4096):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            last = shmbus.attach(sys.argv[1], timeout=0.2)
            break
        except shmbus.BusError:
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    last.subscribe("x")
    print("attached", flush=True)
    try:
        last.receive()
    except shmbus.BusDown:
        print("told", flush=True)
"""


def test_who_attached_with_its_last_descriptor_is_told_of_the_dispatchers_death(
    bus_process: BusProcess,
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(LAST), bus_process.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as last:
        assert last.stdout is not None
        try:
            assert last.stdout.readline() == "attached\n"
            bus_process.kill()
            assert last.communicate(timeout=20)[0] == "told\n"
        finally:
            last.kill()


HEIR = """
    import os, resource, sys, shmbus
    least = len(os.listdir("/proc/self/fd"))
    for limit in range(least, 4096):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
        try:
            bus = shmbus.serve(sys.argv[1])
        except (shmbus.errors.SegmentError, shmbus.errors.BusExists):
            continue
        print(limit > least, len(bus.endpoints()))
        bus.close(handover=True)
        break
"""


def test_a_successor_with_too_few_descriptors_takes_nobody_for_dead(
    bus_process: BusProcess, attach: Attach
) -> None:
    everybody = [attach(f"e{n}", reconnect=True) for n in range(8)]
    for endpoint in everybody:
        endpoint.subscribe("x")
    bus_process.kill()
    assert run(HEIR, bus_process.name, noisy=True) == "True 8\n"
    bus_process.start()
    everybody[0].publish("x", 1)
    for endpoint in everybody:
        message = endpoint.receive(60)
        assert message is not None
        assert message.payload == 1


def unseen(self: BusView, name: str) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def test_who_serves_but_has_no_descriptor_to_see_the_bus_does_not_serve_it_for_ever(
    bus_process: BusProcess, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = f"{bus_process.name}-2"
    endpoint = attach("e", reconnect=True)
    endpoint.subscribe("x")
    bus_process.kill()
    monkeypatch.setattr(BusView, "__init__", unseen)
    for name in (bus_process.name, another):
        with pytest.raises(OSError, match="Too many open files"):
            shmbus.serve(name)
    monkeypatch.undo()
    assert in_shm(another) == []
    bus_process.start()
    endpoint.publish("x", 1)
    message = endpoint.receive(60)
    assert message is not None
    assert message.payload == 1


def test_what_cannot_be_looked_at_is_not_called_dead() -> None:
    code = """
        import os, resource, sys
        from shmbus.shared.processes import process_alive, start_time
        parent = os.getppid(), start_time(os.getppid())
        fds = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (fds, fds))
        print(process_alive(*parent), start_time(parent[0]))
    """
    assert run(code) == "True 0\n"


STORM = """
    import signal, sys, shmbus
    hits = 0
    def hit(*_):
        global hits
        hits += 1
    signal.signal(signal.SIGALRM, hit)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    for n in range(20):
        with shmbus.attach(sys.argv[1], name="me", timeout=60) as ep:
            ep.subscribe("x", bool)
            ep.handle("echo", lambda m: m.payload)
            ep.start()
            ep.publish("x", n)
            assert ep.request("echo", n, timeout=60).payload == n
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert hits > 20, hits
"""


def test_a_signal_every_millisecond_does_not_matter(bus: shmbus.Bus) -> None:
    run(STORM, bus.name)


# Strangers' files --------------------------------------------------------------------------------


@pytest.fixture
def any_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("any_umask")
def test_everything_is_the_owners_alone_whatever_the_umask(bus_name: str) -> None:
    for mask in (0, 0o777):
        os.umask(mask)
        with shmbus.serve(bus_name) as bus, bus.attach("me") as endpoint:
            endpoint.subscribe("x")
            modes = {file: stat.S_IMODE((SHM / file).stat().st_mode) for file in in_shm(bus_name)}
            assert set(modes.values()) == {0o600}, modes
            assert len(modes) >= 9


def squat(path: Path, how: str) -> None:
    if how == "a link":
        path.symlink_to("/dev/shm/elsewhere")
    elif how == "a directory":
        path.mkdir(0o600)
    elif how == "a pipe":
        os.mkfifo(path, 0o600)
    elif how == "of another size":
        path.write_bytes(struct.pack("<3Q", MAGIC, layout.LAYOUT, 1 << 20).ljust(65536, b"\0"))
        path.chmod(0o600)
    elif how == "open to others":
        path.write_bytes(bytes(65536))
        path.chmod(0o666)
    elif how == "of another user":
        path.write_bytes(bytes(65536))
        path.chmod(0o600)
        os.chown(path, 12345, 12345)


SQUATTERS = ["a link", "a directory", "a pipe", "of another size", "open to others"]
if os.geteuid() == 0:
    SQUATTERS.append("of another user")


@contextlib.contextmanager
def squatted(path: Path, how: str) -> Iterator[None]:
    squat(path, how)
    try:
        yield
    finally:
        if how == "a directory":
            path.rmdir()
        else:
            path.unlink()


@pytest.mark.parametrize("how", SQUATTERS)
def test_a_squatted_name_is_refused_and_neither_followed_nor_removed(
    bus_name: str, how: str
) -> None:
    path = SHM / names.names_of(bus_name).bus_segment
    with squatted(path, how):
        for call in (
            lambda: shmbus.serve(bus_name),
            lambda: shmbus.attach(bus_name, name="me", timeout=0.2),
            lambda: shmbus.observe(bus_name),
        ):
            with pytest.raises(errors.BusError) as caught:
                call()
            assert caught.value.args or str(caught.value)
        assert os.path.lexists(path)
        assert not (SHM / "elsewhere").exists()
    with shmbus.serve(bus_name):
        pass


@pytest.mark.parametrize("how", SQUATTERS[:3] + SQUATTERS[5:])
def test_nobody_serves_behind_a_squatted_lock(bus_name: str, how: str) -> None:
    path = SHM / names.names_of(bus_name).lock
    with squatted(path, how):
        with pytest.raises(errors.SegmentError) as caught:
            shmbus.serve(bus_name)
        assert caught.value.name == path.name
        assert caught.value.remedy
        assert os.path.lexists(path)
        assert not (SHM / "elsewhere").exists()
    with shmbus.serve(bus_name):
        pass


@pytest.mark.parametrize("file", ["{}ready", "{}door", "sem.{}bell"])
def test_a_name_that_cannot_be_cleared_away_is_told(bus_name: str, file: str) -> None:
    path = SHM / file.format(names.names_of(bus_name).prefix)
    descriptors = os.listdir("/proc/self/fd")
    with squatted(path, "a directory"):
        with pytest.raises(errors.SegmentError) as caught:
            shmbus.serve(bus_name)
        assert path.name in str(caught.value)
    assert os.listdir("/proc/self/fd") == descriptors
    with shmbus.serve(bus_name):
        pass


def test_that_nobody_can_be_let_in_is_said_once(
    bus: shmbus.Bus, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    spare: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (waiting[1].fileno() + 8, before[1]))
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(waiting[0].fileno()))
        for knocking in waiting:
            knocking.connect(f"/dev/shm/{names.names_of(bus.name).door}")
            eventually(lambda: "nobody can be let in" in caplog.text)
        seen = bus.info().control_age
        assert seen is not None
        rounds = 0
        while rounds < 20:  # the control thread tries again and again
            now = bus.info().control_age or 0.0
            rounds += now < seen
            seen = now
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in spare:
            os.close(fd)
        for knocking in waiting:
            knocking.close()
    assert caplog.text.count("nobody can be let in") == 1


def test_interests_that_cannot_be_read_are_told_of_once_and_tried_again(
    bus: shmbus.Bus, attach: Callable[..., shmbus.Endpoint], caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = attach("reader")
    (log,) = (Path("/dev/shm", file) for file in in_shm(bus.name) if ":int:" in file)
    away = log.rename(log.with_name(f"away-{bus.name}"))
    subscribing = threading.Thread(target=endpoint.subscribe, args=("x",))
    subscribing.start()
    try:
        eventually(lambda: "cannot be read" in caplog.text)
        beats, seen = 0, 0.0
        while beats < 10:  # it is tried at each look around
            age = bus.health().heartbeat_age or 0.0
            beats += age < seen
            seen = age
    finally:
        away.rename(log)
        subscribing.join(60)
    endpoint.publish("x")
    assert endpoint.receive(60) is not None
    (told,) = (one for one in caplog.messages if "cannot be read" in one)
    assert f"endpoint 'reader' (pid {os.getpid()})" in told


def test_who_says_nothing_at_the_door_is_let_go_when_the_bus_ends(bus_name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        with shmbus.serve(bus_name) as bus:
            visitor.connect(str(SHM / names.names_of(bus_name).door))
            bus.attach("next").close()  # so that the visitor has been let in, too
        assert visitor.recv(1) == b""


def test_who_waits_for_a_name_when_the_bus_ends_leaves_no_descriptor(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", TIMEOUT)

    def pidfds() -> int:
        found = 0
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the one by which this is read
                found += "pidfd" in os.readlink(f"/proc/self/fd/{fd}")
        return found

    before, go = pidfds(), threading.Event()
    with shmbus.serve(bus_name) as bus, bus.attach("worker") as worker:
        worker.handle("job", lambda message: go.wait(60))
        worker.start()
        worker.send("job")
        drain = threading.Thread(target=worker.drain)
        drain.start()
        eventually(lambda: bus.endpoints()[0].state == "leaving")
        there = pidfds()

        second = threading.Thread(target=lambda: bus.attach("worker", timeout=60).close())
        second.start()
        eventually(lambda: pidfds() == there + 1)
        bus.close(timeout=0)
        go.set()
        drain.join()
    with shmbus.serve(bus_name):  # so that the second one need not wait any longer
        second.join()
    assert pidfds() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_leavings_of_another_user_do_not_block_mine(bus_name: str) -> None:
    theirs = [
        SHM / names.names_of(bus_name, 12345).bus_segment,
        SHM / names.names_of(bus_name, 12345).lock,
        SHM / names.names_of(bus_name, 12345).door,
    ]
    for path in theirs:
        path.write_bytes(bytes(4096))
        os.chown(path, 12345, 12345)
    try:
        with shmbus.serve(bus_name) as bus, bus.attach("me") as endpoint:
            endpoint.publish("x")
        assert all(path.exists() for path in theirs)
    finally:
        for path in theirs:
            path.unlink()


# Ways to make processes --------------------------------------------------------------------------


def take_part(bus: str, name: str) -> None:
    with shmbus.attach(bus, name=name, timeout=60) as endpoint:
        assert endpoint.request("echo", name, timeout=60).payload == name


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_multiprocessing_attach_like_any_other(
    bus: shmbus.Bus, attach: Attach, method: str
) -> None:
    server = attach("server")
    server.handle("echo", lambda message: message.payload)
    server.start()
    context: Any = multiprocessing.get_context(method)
    processes = [
        context.Process(target=take_part, args=(bus.name, f"{method}{n}")) for n in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    eventually(lambda: {e.name for e in bus.endpoints()} == {"server"})


def test_a_forked_childs_end_is_not_its_parents(bus: shmbus.Bus, recorder: Record) -> None:
    downs = recorder("$bus.endpoint.down")
    code = """
        import os, sys, warnings, shmbus
        warnings.simplefilter("ignore")
        ep = shmbus.attach(sys.argv[1], name="parent")
        ep.subscribe("x")
        for way in ("exit", "exception", "_exit"):
            child = os.fork()
            if child == 0:
                if way == "_exit":
                    os._exit(0)
                sys.exit(0)
            os.waitpid(child, 0)
        ep.publish("x", 1)
        assert ep.receive(60).payload == 1
        print("fine")
    """
    assert run(code, bus.name) == "fine\n"
    (down,) = downs.wait()
    assert down.payload["reason"] == "detached"


@pytest.mark.parametrize("way", ["return", "raise ValueError", "sys.exit()"])
def test_a_handler_that_forks_goes_on_in_its_parent_alone(bus: shmbus.Bus, way: str) -> None:
    code = """
        import os, sys, threading, warnings, shmbus
        warnings.simplefilter("ignore")
        worker = shmbus.attach(sys.argv[1], name="worker")
        seen = []

        def job(message):
            seen.append(message.payload)
            if len(seen) == 3:
                threading.Thread(target=worker.close).start()
            if len(seen) > 1:
                return
            child = os.fork()
            if child == 0:
                WAY
            os.waitpid(child, 0)
            (worker_seen,) = worker.bus.find("job")
            print(worker_seen.in_hand, worker_seen.handler_errors, flush=True)

        worker.subscribe("job", job, group="g")
        for number in range(3):
            worker.publish("job", number)
        try:
            worker.run()
        except shmbus.errors.ForkedEndpoint:
            os._exit(3)
        print(*seen, flush=True)
        worker.close()
    """
    code = code.replace("WAY", way)
    assert run(code, bus.name, noisy=True) == "1 0\n0 1 2\n"


def test_a_host_that_forks_serves_on_when_its_child_ends(bus: shmbus.Bus) -> None:
    code = """
        import os, sys, warnings, shmbus
        warnings.simplefilter("ignore")
        with shmbus.serve(sys.argv[1] + "2") as bus, bus.attach("me") as ep:
            ep.subscribe("x")
            child = os.fork()
            if child == 0:
                sys.exit(0)
            os.waitpid(child, 0)
            ep.publish("x", 1)
            assert ep.receive(60).payload == 1
            with bus.attach("other") as other:
                other.publish("x", 2)
                assert ep.receive(60).payload == 2
        print("fine")
    """
    assert run(code, bus.name) == "fine\n"
    assert in_shm(bus.name + "2") == []


def test_a_finalizer_that_puts_an_endpoint_out_does_not_stop_the_bus(bus_name: str) -> None:
    code = """
        import gc, linecache, sys, shmbus
        with shmbus.serve(sys.argv[1]) as bus:
            evict, collections = bus._dispatcher._kernel.evict, 0

            def collect(phase, info):
                global collections
                caller = sys._getframe(1)
                line = linecache.getline(caller.f_code.co_filename, caller.f_lineno)
                if "notices()" in line:
                    collections += 1
                    evict(0, 0)  # as a finalizer would that closes something of the bus

            gc.callbacks.append(collect)
            gc.set_threshold(1, 1, 1)  # which takes away the spare tuples, too
            for _ in range(50):  # until a collection falls into that call; from 3.12 on none does
                guests = [bus.attach(f"guest{n}") for n in range(20)]
                for guest in guests:
                    bus.evict(guest.name)
                for guest in guests:
                    guest.close()
                if collections or sys.version_info >= (3, 12):
                    break
            bus.attach("another").close()
            gc.callbacks.remove(collect)
        print("fine" if collections or sys.version_info >= (3, 12) else "not tried")
    """
    assert run(code, bus_name) == "fine\n"


INTERPRETER = """
    import sys, warnings
    try:
        import _interpreters as interpreters
        new = lambda: interpreters.create("legacy")
        run = lambda i, code: (lambda e: e and e.formatted)(interpreters.exec(i, code))
    except ImportError:
        import _xxsubinterpreters as interpreters
        new = lambda: interpreters.create(isolated=False)
        def run(i, code):
            try:
                interpreters.run_string(i, code)
            except Exception as error:
                return str(error)
    warnings.simplefilter("ignore")
    if sys.argv[1] == "after":
        import shmbus
    said = run(new(), "import warnings; warnings.simplefilter('ignore'); import shmbus")
    print("ImportError" in str(said), "main interpreter" in str(said))
    import shmbus
    with shmbus.serve(sys.argv[2]) as bus, bus.attach("me") as endpoint:
        endpoint.publish("x")
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_subinterpreter_is_refused_at_import_and_harms_nobody(bus_name: str, when: str) -> None:
    said = run(INTERPRETER, when, bus_name, noisy=True).split()
    assert said[0] == "True"
    if when == "before":
        assert said[1] == "True"


@pytest.mark.parametrize(
    ("pretend", "says"),
    [("sys.platform = 'darwin'", "Linux only"), ("sys._is_gil_enabled = lambda: False", "GIL")],
)
def test_other_systems_and_a_python_without_gil_are_refused_at_import(
    pretend: str, says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {pretend}; import shmbus"],
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert says in last


EXIT = """
    import sys, threading, shmbus
    ep = shmbus.attach(sys.argv[1])
    ep.handle("never", lambda m: m.defer())
    ep.subscribe("x")
    def go(call):
        threading.Thread(target=call, daemon=True).start()
    go(lambda: ep.receive())
    go(lambda: ep.request("never", timeout=None))
    go(lambda: ep.wait_for("nobody", timeout=None))
    ep.on_death("somebody", print)
    ep.request_async("never", timeout=None)
    other = shmbus.attach(sys.argv[1])
    go(lambda: [other.publish("x", b"y" * 1000) for _ in range(10**9)])
    if sys.argv[2] == "error":
        raise SystemExit(3)
"""


@pytest.mark.parametrize("way", ["end", "error"])
def test_the_interpreter_ends_cleanly_whatever_its_daemon_threads_wait_for(
    bus: shmbus.Bus, way: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EXIT), bus.name, way],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == (3 if way == "error" else 0), done.stderr
    assert "Fatal" not in done.stderr
    eventually(lambda: bus.endpoints() == [])
