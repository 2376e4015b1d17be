"""An endpoint dies: who hears of it, what becomes of its messages, and that nobody else suffers."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import psutil
import pytest

import shmbus
from shmbus import Death, Message, errors
from shmbus.dispatcher import control, door, lookout
from shmbus.shared import names, processes
from shmbus.testing import BusProcess, Recorder, Worker, eventually

Attach = Callable[..., shmbus.Endpoint]
Record = Callable[..., Recorder]
Hire = Callable[..., Worker]

NEVER = threading.Event()


# Ways to go --------------------------------------------------------------------------------------


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
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
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
    "SIGTERM": "killed",
    "SIGSEGV": "killed",
    "core": "killed",
    "out of memory": "killed",
    "exit0": "exited without detaching",
    "exit3": "exited without detaching",
    "exec": "exec",
}


@pytest.mark.parametrize("way", REASONS)
def test_however_it_dies_its_caller_and_all_who_listen_are_told(
    bus: shmbus.Bus,
    attach: Attach,
    recorder: Record,
    worker: Hire,
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
    victim.kill()  # what exec has made of it
    if group is not None:
        accounts = (group / file for file in ("memory.oom_control", "memory.events"))
        account = next(file.read_text() for file in accounts if file.exists())
        assert "oom_kill 1" in account.splitlines()


def exit_beside_its_main_thread(endpoint: shmbus.Endpoint, code: int) -> None:
    endpoint.handle("die", lambda message: os._exit(code))
    endpoint.start()
    NEVER.wait()


@pytest.mark.parametrize("code", [0, 3])
def test_who_exits_in_another_thread_than_its_first_was_not_killed(
    bus: shmbus.Bus, attach: Attach, worker: Hire, code: int
) -> None:
    worker(exit_beside_its_main_thread, code, name="victim")
    caller = attach("caller")
    caller.wait_for("die")
    with pytest.raises(errors.EndpointDied) as caught:
        caller.request("die", timeout=60)
    # The system ends its first thread like one that is killed, and of 0 it says nothing.
    assert caught.value.reason == ("exited without detaching" if code else "died")


def leave_only(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that shows the deaths of others in this way alone."""
    if sign != "pidfd":
        monkeypatch.setattr(door, "_open_pidfd", lambda connection, pid: None)
    if sign != "task flags":
        monkeypatch.setattr(control, "_open_stat", lambda pid: -1)
    if sign != "psutil":
        monkeypatch.setattr(lookout, "_lives", lambda process: True)


def serve_beside_a_dead_leader(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("echo", lambda message: message.payload)
    endpoint.start()
    number = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # exit: of this thread alone
    ctypes.CDLL(None).syscall(number, 0)


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("sign", ["pidfd", "task flags", "psutil"])
def test_a_zombie_leader_whose_threads_run_is_not_dead(
    monkeypatch: pytest.MonkeyPatch,
    bus: shmbus.Bus,
    attach: Attach,
    recorder: Record,
    worker: Hire,
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
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
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
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    me, status = os.getpid(), psutil.Process.status
    threads = [mock.Mock(id=ended.pid), mock.Mock(id=os.getppid())]
    monkeypatch.setattr(psutil.Process, "threads", lambda process: threads)
    monkeypatch.setattr(
        psutil.Process, "status", lambda p: psutil.STATUS_ZOMBIE if p.pid == me else status(p)
    )
    assert lookout._lives(names.new_owner(me, processes.start_time(me)))


def idle(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("echo", lambda message: message.payload)
    endpoint.run()


def test_a_zombie_is_dead(bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire) -> None:
    downs = recorder("$bus.endpoint.down")
    victim = worker(idle, name="victim")
    os.kill(victim.pid, signal.SIGKILL)
    downs.wait()
    eventually(lambda: state_of(victim.pid) == "Z")  # nobody has waited for it
    eventually(lambda: not bus.endpoints()[1:])


@pytest.mark.parametrize("sign", ["pidfd", "task flags", "psutil"])
def test_each_sign_of_a_death_suffices_alone(
    monkeypatch: pytest.MonkeyPatch,
    bus: shmbus.Bus,
    attach: Attach,
    recorder: Record,
    worker: Hire,
    sign: str,
) -> None:
    downs = recorder("$bus.endpoint.down")
    leave_only(sign, monkeypatch)
    victim = worker(idle, name="victim")
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


# Stopped is not dead -----------------------------------------------------------------------------


def answer_after_a_stop(endpoint: shmbus.Endpoint) -> None:
    def stop(message: Message) -> str:
        os.kill(os.getpid(), signal.SIGSTOP)
        return "at last"

    endpoint.handle("stop", stop)
    endpoint.run()


def told_of(message: Message) -> tuple[str, str]:
    """What the bus says, and of whom."""
    return message.type.rpartition(".")[2], message.payload["name"]


def test_a_stopped_process_is_stalled_then_resumes_and_answers(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    told = recorder("$bus.endpoint.*")
    server = worker(answer_after_a_stop, name="server")
    caller = attach("caller")
    caller.wait_for("stop")
    told.wait(where=lambda m: m.payload["name"] == "caller")
    told.clear()
    reply = caller.request_async("stop", timeout=60)
    told.wait(where=lambda m: told_of(m) == ("stalled", "server"))
    assert not reply.done()
    (info,) = bus.find("stop")
    assert info.stalled
    assert bus.health().healthy is False
    server.resume()
    assert reply.result(60).payload == "at last"
    told.wait(where=lambda m: told_of(m) == ("resumed", "server"))
    of_server = [told_of(m) for m in told.messages if m.payload["name"] == "server"]
    assert of_server == [("stalled", "server"), ("resumed", "server")]
    eventually(lambda: not bus.find("stop")[0].stalled)


@pytest.mark.bus(stall_after=0.2)
def test_who_takes_nothing_is_stalled_after_the_time_that_was_set(
    bus: shmbus.Bus, attach: Attach, recorder: Record
) -> None:
    told = recorder("$bus.endpoint.*")
    attach("sluggard").subscribe("x")
    attach("publisher").publish("x")
    told.wait(where=lambda m: m.type == "$bus.endpoint.stalled")
    (info,) = bus.find("x")
    assert (info.condition, bus.health().healthy) == ("stalled", False)
    bus.evict("sluggard")  # being stalled is never its end
    told.wait(where=lambda m: m.type == "$bus.endpoint.down" and m.payload["reason"] == "evicted")


def take_long(endpoint: shmbus.Endpoint, enough: str) -> None:
    def work(message: Message) -> str:
        while not os.path.exists(enough):
            pass
        return "done"

    endpoint.handle("work", work)
    endpoint.run()


@pytest.mark.slow
@pytest.mark.bus(stall_after=0.2)
def test_a_long_handler_is_busy_and_not_stalled(
    bus: shmbus.Bus, attach: Attach, worker: Hire, tmp_path: Path
) -> None:
    enough = tmp_path / "enough"
    worker(take_long, str(enough), name="server")
    caller = attach("caller")
    caller.wait_for("work")
    replies = [caller.request_async("work", timeout=60) for _ in range(2)]

    def server() -> shmbus.views.EndpointInfo:
        return bus.find("work")[0]

    eventually(lambda: server().in_hand == 1 and server().untouched == 1)
    for _ in range(2):  # the look that was under way then, and one that began since
        await_look(bus)
    while server().in_hand_seconds < 1.0:
        assert server().condition == "busy"
        await_look(bus)
    enough.touch()
    assert [reply.result(60).payload for reply in replies] == ["done", "done"]


def await_look(bus: shmbus.Bus) -> None:
    """Wait until the dispatcher begins another look at all endpoints."""
    before = heartbeat(bus)
    eventually(lambda: heartbeat(bus) != before)


def heartbeat(bus: shmbus.Bus) -> int:
    return int(bus._dispatcher._table.head["heartbeat_ns"])


def echo(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("echo", lambda message: message.payload)
    endpoint.run()


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Four processes that compute, for each core."""
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(4 * (os.cpu_count() or 1))
    ]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


@pytest.mark.slow
def test_who_is_slow_because_the_machine_is_busy_is_not_stalled(
    bus: shmbus.Bus,
    bus_settings: shmbus.Settings,
    busy_machine: None,
    attach: Attach,
    recorder: Record,
    worker: Hire,
) -> None:
    told = recorder("$bus.endpoint.stalled")
    worker(echo, name="server")
    caller = attach("caller")
    caller.wait_for("echo", timeout=60)
    longest = 0.0
    for number in range(300):
        began = time.monotonic()
        assert caller.request("echo", number, timeout=60).payload == number
        longest = max(longest, time.monotonic() - began)
    stalled = [m for m in told.messages if m.payload["name"] == "server"]
    assert not stalled or longest > bus_settings.stall_after  # so busy that it is true


# What becomes of its messages --------------------------------------------------------------------


def take_and_hang(
    endpoint: shmbus.Endpoint, pattern: str, group: str | None, threads: int = 1
) -> None:
    """Takes one message in each thread, says so, and does not get on."""

    def hang(message: Message) -> None:
        endpoint.publish("begun", message.payload)
        NEVER.wait()

    if group:
        endpoint.subscribe(pattern, hang, group=group)
    else:
        endpoint.handle(pattern, hang)
    endpoint.run(threads=threads)


def seen(message: Message) -> tuple[Any, int, bool]:
    return message.payload, message.attempt, message.redelivered


def test_a_group_message_goes_on_to_another_member(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victim = worker(take_and_hang, "job", "workers", name="victim")
    publisher = attach("publisher")
    publisher.wait_for("job")
    for n in range(4):
        publisher.publish("job", n)
    begun.wait()
    eventually(lambda: bus.find("job")[0].untouched == 3)
    other = attach("other")
    other.subscribe("job", group="workers")
    victim.kill()
    messages = other.receive_many(1, 60) + other.receive_many(1, 60)
    messages += other.receive_many(1, 60) + other.receive_many(1, 60)
    assert [seen(m) for m in messages] == [
        (0, 2, True),  # it had been begun
        (1, 1, True),
        (2, 1, True),
        (3, 1, True),
    ]
    assert [m.source for m in messages] == ["publisher"] * 4
    assert other.receive(0) is None
    assert not letters.messages
    assert sum(e.redelivered for e in bus.endpoints()) == 4


def die_with_more_than_it_holds(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire, count: int, *, hold_limit: int
) -> shmbus.Endpoint:
    """Has the only member of a group killed over so many messages; returns the next member."""
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
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
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
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
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
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire, tmp_path: Path
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


@pytest.mark.bus(block_timeout=60.0)  # however seldom the victim runs
def test_a_message_that_never_gets_done_does_not_keep_the_ring_full(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    small = shmbus.Settings(ring_bytes=8192)
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
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
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
    bus_process: BusProcess, attach: Attach, recorder: Record, worker: Hire
) -> None:
    letters = recorder("$bus.undeliverable", reconnect=True)
    workers = [worker(die_of_poison, name=f"worker{n}", reconnect=True) for n in range(4)]
    publisher = attach("publisher", reconnect=True)
    publisher.wait_for("job", receivers=4)
    publisher.publish("job", "poison")
    for _ in range(3):  # amid both deaths
        bus_process.restart()
    letters.wait()
    publisher.publish("job", "harmless")
    eventually(lambda: sum(w.alive for w in workers) == 2)
    bus_process.restart()
    publisher.wait_for("job", receivers=2)
    assert sum(w.alive for w in workers) == 2
    assert len(letters) == 1


def test_an_untouched_request_goes_on_and_a_begun_one_ends_with_an_error(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun = recorder("begun")
    victim = worker(take_and_hang, "ask", None, name="victim")
    caller = attach("caller")
    caller.wait_for("ask")
    first = caller.request_async("ask", 1, timeout=60)
    begun.wait()
    second = caller.request_async("ask", 2, timeout=60)
    eventually(lambda: bus.find("ask")[0].untouched == 1)
    other = attach("other")
    got: list[tuple[Any, int, bool]] = []

    def answer(message: Message) -> int:
        got.append(seen(message))
        return int(message.payload) * 10

    other.handle("ask", answer)
    other.start()
    victim.kill()
    with pytest.raises(errors.EndpointDied) as caught:
        first.result(60)
    assert caught.value.endpoint == "victim"
    assert second.result(60).payload == 20
    assert got == [(2, 1, True)]


def test_a_request_whose_only_handler_died_ends_with_its_name(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun = recorder("begun")
    victim = worker(take_and_hang, "ask", None, name="victim")
    caller = attach("caller")
    caller.wait_for("ask")
    replies = [caller.request_async("ask", n, timeout=60) for n in range(8)]
    begun.wait()
    eventually(lambda: bus.find("ask")[0].untouched == 7)
    victim.kill()
    for reply in replies:
        with pytest.raises(errors.EndpointDied) as caught:
            reply.result(60)
        assert caught.value.endpoint == "victim"
    with pytest.raises(errors.NoRoute):
        caller.request("ask", timeout=60)
    assert bus.requests("caller") == []


def test_a_begun_command_is_a_dead_letter_and_an_untouched_one_goes_on(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victim = worker(take_and_hang, "do", None, name="victim")
    sender = attach("sender")
    sender.wait_for("do")
    for n in range(3):
        sender.send("do", n)
    begun.wait()
    eventually(lambda: bus.find("do")[0].untouched == 2)
    other = attach("other")
    got: list[tuple[Any, int, bool]] = []
    other.handle("do", lambda m: got.append(seen(m)))
    other.start()
    victim.kill()
    (letter,) = letters.wait()
    assert letter.payload["kind"] == "send"
    assert msgspec.msgpack.decode(letter.payload["payload"]) == 0
    eventually(lambda: len(got) == 2)
    assert got == [(1, 1, True), (2, 1, True)]


@pytest.mark.bus(ring_bytes=1 << 20)
@pytest.mark.parametrize(("ring", "kept"), [(4096, 256), (1 << 20, 64768)])
def test_a_dead_letter_has_as_much_of_its_payload_as_fits(
    bus: shmbus.Bus, attach: Attach, recorder: Record, ring: int, kept: int
) -> None:
    letters = recorder("$bus.undeliverable", settings=shmbus.Settings(ring_bytes=ring))
    sender, payload = attach("sender"), os.urandom(200_000)
    for size in (0, 10, kept, kept + 1, len(payload)):
        sender.send("nobody.handles.it", payload[:size])
    for letter in (m.payload for m in letters.wait(5)):
        assert (letter["type"], letter["source"]) == ("nobody.handles.it", "sender")
        assert (letter["kind"], letter["format"]) == ("send", "raw")
        assert letter["reason"] == "nobody handles it"
        assert letter["payload"] == payload[: min(letter["size"], kept)]
    assert [m.payload["size"] for m in letters.messages] == [0, 10, kept, kept + 1, len(payload)]
    assert bus.health().dead_letters == 5
    assert next(e for e in bus.endpoints() if e.name == "sender").undeliverable == 5


def test_there_are_no_dead_letters_about_dead_letters(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victims = [worker(take_and_hang, "$bus.undeliverable", "readers", name=n) for n in "ab"]
    sender = attach("sender")
    sender.send("nobody.handles.it", 1)
    for count in (1, 2):  # whoever reads it dies of it, and that is enough
        begun.wait(count)
        (reader,) = (e.pid for e in bus.find("$bus.undeliverable") if e.name in "ab" and e.in_hand)
        next(victim for victim in victims if victim.pid == reader).kill()
    eventually(lambda: not bus.find("$bus.undeliverable")[1:])
    sender.send("nor.this", 2)
    letters.wait(2)
    assert [m.payload["type"] for m in letters.messages] == ["nobody.handles.it", "nor.this"]


def take_again(endpoint: shmbus.Endpoint) -> None:
    def hang(message: Message) -> None:
        endpoint.publish("begun", message.payload)
        NEVER.wait()

    endpoint.handle("do", hang, redeliver=True)
    endpoint.run()


def test_a_begun_command_is_done_again_where_its_handler_asked_for_it(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victim = worker(take_again, name="victim")
    sender = attach("sender")
    sender.wait_for("do")
    sender.send("do", "it")
    begun.wait()
    other = attach("other")
    got: list[tuple[Any, int, bool]] = []
    other.handle("do", lambda m: got.append(seen(m)), redeliver=True)
    other.start()
    victim.kill()
    eventually(lambda: got)
    assert got == [("it", 2, True)]
    assert not letters.messages


def never_read(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("news")
    endpoint.publish("begun")
    NEVER.wait()


def test_events_that_the_dead_had_not_touched_are_counted(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire
) -> None:
    begun, heard = recorder("begun"), recorder("news")
    victim = worker(never_read, name="victim")
    begun.wait()
    publisher = attach("publisher")
    for n in range(7):
        publisher.publish("news", n)
    heard.wait(7)
    eventually(lambda: next(e for e in bus.endpoints() if e.name == "victim").untouched == 7)
    assert bus.health().lost == 0
    victim.kill()
    eventually(lambda: bus.health().lost == 7)
    assert heard.payloads == list(range(7))


def say_and_die(endpoint: shmbus.Endpoint, count: int) -> None:
    for n in range(count):
        endpoint.publish("last.words", n)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_the_dead_had_sent_is_delivered(
    bus: shmbus.Bus, recorder: Record, worker: Hire
) -> None:
    heard = recorder("last.words")
    worker(say_and_die, 3000, name="victim")
    messages = heard.wait(3000)
    assert [m.payload for m in messages] == list(range(3000))
    assert {m.source for m in messages} == {"victim"}


def ask_and_hang(endpoint: shmbus.Endpoint) -> None:
    endpoint.request("ask", timeout=600)


def test_the_reply_to_a_dead_requester_is_counted_and_dropped(
    bus: shmbus.Bus, attach: Attach, worker: Hire
) -> None:
    server = attach("server")
    asked, go = threading.Event(), threading.Event()

    def answer(message: Message) -> str:
        asked.set()
        go.wait(60)
        return "too late"

    server.handle("ask", answer)
    server.start()
    victim = worker(ask_and_hang, name="victim")
    assert asked.wait(60)
    victim.kill()
    eventually(lambda: "victim" not in {e.name for e in bus.endpoints()})
    go.set()
    eventually(lambda: bus.health().orphans == 1)


# Who waits for the dead --------------------------------------------------------------------------


def fill(sender: shmbus.Endpoint) -> int:
    """How many messages were accepted before nothing moved for a while."""
    for n in itertools.count():
        try:
            sender.publish("news", b"x" * 500, timeout=0.2)
        except errors.QueueFull:
            return n
    raise AssertionError


@pytest.mark.bus(block_timeout=60.0, ring_bytes=4096)
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_sender_that_waits_for_room_goes_on_when_the_full_one_goes(
    bus: shmbus.Bus, attach: Attach, recorder: Record, worker: Hire, how: str
) -> None:
    begun = recorder("begun")
    full = worker(never_read, name="full")
    begun.wait()
    sender = attach("sender")
    while fill(sender):  # its ring, and then what the full one left in ours
        pass
    waiting = threading.Thread(target=sender.publish, args=("news", b"y" * 500), daemon=True)
    waiting.start()
    if how == "kill":
        full.kill()
    else:
        full.stop()
    waiting.join(60)
    assert not waiting.is_alive()


# on_death ----------------------------------------------------------------------------------------


def test_on_death_of_nobody_fires_at_once(bus: shmbus.Bus, attach: Attach) -> None:
    deaths: list[Death] = []
    attach("me").on_death("nobody", deaths.append)
    (death,) = eventually(lambda: deaths)
    assert death == Death(name="nobody", pid=None, reason="absent")


def test_on_death_may_do_anything_and_is_told_of_a_detach_too(
    bus: shmbus.Bus, attach: Attach
) -> None:
    me = attach("me")
    me.subscribe("obituary")
    me.handle("echo", lambda m: m.payload)
    seen: list[Death] = []

    def mourn(death: Death) -> None:
        me.on_death("nobody", seen.append)
        other = bus.attach("mourner")
        other.publish("obituary", death.reason)
        other.close()
        seen.append(death)

    subscription = attach("friend")
    me.on_death("friend", mourn)
    subscription.close()
    message = me.receive(60)
    assert message is not None
    assert message.payload == "detached"
    eventually(lambda: len(seen) == 2)
    assert {death.name for death in seen} == {"friend", "nobody"}


@pytest.mark.slow
def test_on_death_fires_once_however_often_the_name_comes_back(
    bus: shmbus.Bus, attach: Attach, worker: Hire
) -> None:
    me = attach("me")
    deaths: list[Death] = []
    closed: list[Death] = []
    first = worker(idle, name="phoenix")
    me.on_death("phoenix", deaths.append)
    me.on_death("phoenix", closed.append).close()
    first.kill()
    for _ in range(3):
        worker(idle, name="phoenix").kill()
    last: list[Death] = []
    me.on_death("phoenix", last.append)
    eventually(lambda: last)
    assert [death.pid for death in deaths] == [first.pid]
    assert closed == []


def test_on_death_may_close_the_endpoint_that_waits(
    bus: shmbus.Bus, attach: Attach, worker: Hire
) -> None:
    victim = worker(idle, name="victim")
    me, closed = attach("me"), threading.Event()

    def mourn(death: Death) -> None:
        me.close()
        closed.set()

    me.on_death("victim", mourn)
    victim.kill()
    assert closed.wait(60)
    attach("me")


def test_on_death_fires_once_though_nobody_served_when_it_died(
    bus_process: BusProcess, attach: Attach, worker: Hire
) -> None:
    victim = worker(idle, name="victim")
    me = attach("me", reconnect=True)
    me.wait_for("echo")
    deaths: list[Death] = []
    me.on_death("victim", deaths.append)
    bus_process.kill()
    victim.kill()
    bus_process.start()
    eventually(lambda: deaths)
    bus_process.restart()
    last: list[Death] = []
    me.on_death("victim", last.append)
    eventually(lambda: last)
    assert [(death.name, death.pid) for death in deaths] == [("victim", victim.pid)]
    assert deaths[0].reason in ("killed", "died")


def test_an_evicted_endpoint_is_dead_to_others_and_told_so_itself(
    bus: shmbus.Bus, attach: Attach, recorder: Record
) -> None:
    downs = recorder("$bus.endpoint.down")
    victim, caller = attach("victim"), attach("caller")
    victim.handle("ask", lambda m: m.defer())
    victim.start()
    reply = caller.request_async("ask", timeout=60)
    eventually(lambda: bus.find("ask")[0].in_hand)
    bus.evict("victim")
    with pytest.raises(errors.EndpointDied) as caught:
        reply.result(60)
    assert caught.value.reason == "evicted"
    (down,) = downs.wait()
    assert down.payload["reason"] == "evicted"
    with pytest.raises(errors.Evicted):
        victim.publish("x")
    with pytest.raises(errors.NoSuchEndpoint):
        bus.evict("nobody")
