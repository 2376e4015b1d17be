"""The dispatcher dies, or hangs: who gets an error, what still works, what the next one adopts."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.endpoint import endpoint as endpoint_module
from shmbus.endpoint import subscribing
from shmbus.shared import names
from shmbus.testing import Attach, BusProcess, StartWorker, eventually, in_shm, kill, start_python
from tests.kept import Kept

from .roles import NEVER, echo

# Who gets an error -----------------------------------------------------------------------------


def test_a_request_under_way_raises_bus_down_with_the_pid(
    bus_process: BusProcess, attach: Attach
) -> None:
    server, caller, kept = attach("server"), attach("caller"), Kept()
    server.handle("hang", kept)
    server.start()
    reply = caller.request_async("hang", timeout=60)
    eventually(lambda: kept)
    raised: list[errors.BusDown] = []

    def ask() -> None:
        try:
            caller.request("hang", timeout=60)
        except errors.BusDown as why:
            raised.append(why)

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: len(caller.bus.requests("caller")) == 2)
    pid = bus_process.pid
    bus_process.kill()
    asking.join(60)
    (why,) = raised
    assert why.pid == pid
    assert why.bus == bus_process.name
    with pytest.raises(errors.BusDown):
        reply.result(60)
    with pytest.raises(errors.BusDown):
        caller.request("hang", timeout=60)
    with pytest.raises(errors.BusDown):
        caller.receive(60)
    with pytest.raises(errors.BusDown):
        caller.subscribe("x")


def test_requests_that_ended_with_a_dispatcher_leave_their_places_to_others(
    bus_process: BusProcess, attach: Attach
) -> None:
    caller = attach(
        "caller",
        settings=shmbus.Settings(max_requests=2, in_bytes=8192, out_bytes=8192, reply_bytes=8192),
    )
    server = attach("server", reconnect=True)
    server.handle("hang", Kept())
    server.start()
    hung = caller.request_async("hang", timeout=60)
    eventually(lambda: server.bus.find("hang")[0].in_hand)
    bus_process.pause()
    with pytest.raises(errors.QueueFull):
        caller.publish_many([("x", bytes(1000))] * 9, timeout=0)
    raised: list[errors.BusDown] = []

    def ask() -> None:
        try:
            caller.request_async("hang", bytes(1000), timeout=60)
        except errors.BusDown as why:
            raised.append(why)

    asking = threading.Thread(target=ask)
    asking.start()  # it waits for space
    eventually(lambda: len(caller.bus.requests("caller")) == 2)
    bus_process.kill()
    asking.join(60)
    with pytest.raises(errors.BusDown):
        hung.result(60)
    assert len(raised) == 1
    bus_process.start()
    for _ in range(2):
        eventually(lambda: not caller._connection.trouble())
        caller.request_async("hang", timeout=60)
    with pytest.raises(errors.RequestsFull):
        caller.request("hang", timeout=0)


@pytest.mark.smoke
def test_what_is_published_while_it_is_dead_is_delivered_by_the_next(
    bus_process: BusProcess, attach: Attach
) -> None:
    publisher, reader = attach("publisher"), attach("reader", reconnect=True)
    group = [attach(f"member{n}", reconnect=True) for n in range(2)]
    reader.subscribe("n")
    for member in group:
        member.subscribe("n", group="g")
    publisher.publish("n", 0)
    bus_process.kill()
    for n in range(1, 500):
        publisher.publish("n", n)
    bus_process.start()
    for n in range(500, 600):
        publisher.publish("n", n)
    assert [reader.receive(60).payload for _ in range(600)] == list(range(600))  # type: ignore[union-attr]
    assert reader.receive(0.05) is None
    got: list[Any] = []
    while len(got) < 600:
        for member in group:
            got += [m.payload for m in member.receive_many(600, 0.01)]
    assert sorted(got) == list(range(600))


def test_with_reconnect_a_request_waits_for_the_next_dispatcher(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    worker(echo, name="server")
    caller = attach("caller", reconnect=True)
    caller.wait_for("echo")
    bus_process.kill()
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(caller.request("echo", "there?", timeout=60).payload)
    )
    asking.start()
    asking.join(0.2)
    assert asking.is_alive()
    bus_process.start()
    asking.join(60)
    assert answers == ["there?"]


def test_a_request_begun_before_is_answered_through_the_next_dispatcher(
    bus_process: BusProcess, attach: Attach
) -> None:
    server, caller = attach("server", reconnect=True), attach("caller", reconnect=True)
    begun, go = threading.Event(), threading.Event()

    def slow(message: Message) -> str:
        begun.set()
        go.wait(60)
        return "done"

    server.handle("slow", slow)
    server.start()
    reply = caller.request_async("slow", timeout=60)
    assert begun.wait(60)
    bus_process.kill()
    go.set()
    bus_process.start()
    assert reply.result(60).payload == "done"


def test_one_that_drains_is_adopted_though_nobody_else_is_there(
    bus_process: BusProcess, attach: Attach
) -> None:
    drains = attach("drains", reconnect=True)
    begun, go = threading.Event(), threading.Event()

    @drains.handle("slow")
    def slow(message: Message) -> None:
        begun.set()
        go.wait(60)
        drains.publish("finished", "work")

    drains.start()
    drains.send("slow")
    begun.wait(60)
    draining = threading.Thread(target=drains.drain)
    draining.start()
    view = drains.bus
    eventually(lambda: [e.state for e in view.endpoints()] == ["leaving"])
    bus_process.kill()
    bus_process.start()
    other = attach("other")
    other.subscribe("finished")
    with shmbus.observe(bus_process.name) as now:
        assert {e.name for e in now.endpoints()} == {"drains", "other"}
        go.set()
        message = other.receive(60)
        assert message is not None
        assert (message.payload, message.source) == ("work", "drains")
        draining.join(60)
        eventually(lambda: [e.name for e in now.endpoints()] == ["other"])


def test_who_died_meanwhile_is_seen_off_by_the_next_dispatcher(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    victim = worker(hang_in_hand, name="victim")
    caller = attach("caller", reconnect=True)
    caller.subscribe("$bus.endpoint.down")
    caller.wait_for("hang")
    reply = caller.request_async("hang", timeout=60)
    eventually(lambda: caller.bus.find("hang")[0].in_hand)
    bus_process.kill()
    victim.kill()
    bus_process.start()
    with pytest.raises(errors.EndpointDied) as caught:
        reply.result(60)
    assert caught.value.endpoint == "victim"
    down = caller.receive(60)
    assert down is not None
    assert down.payload["name"] == "victim"
    eventually(lambda: [e.name for e in caller.bus.endpoints()] == ["caller"])
    attach("victim")


@pytest.mark.parametrize("pidfds", [True, False])
def test_the_next_dispatcher_sees_the_deaths_of_whom_it_took_over(
    bus_process: BusProcess,
    monkeypatch: pytest.MonkeyPatch,
    attach: Attach,
    worker: StartWorker,
    pidfds: bool,
) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    victim = worker(echo, name="victim", reconnect=True)
    caller = attach("caller", reconnect=True)
    caller.subscribe("$bus.endpoint.down")
    caller.wait_for("echo")
    bus_process.kill()
    if not pidfds:
        monkeypatch.setattr(os, "pidfd_open", refuse)
    with shmbus.serve(bus_process.name):
        assert caller.request("echo", 1, timeout=60).payload == 1
        victim.kill()
        down = caller.receive(60)
        assert down is not None
        assert (down.payload["name"], down.payload["pid"]) == ("victim", victim.pid)
        assert down.payload["reason"] in ("killed", "died")  # it is reaped at once
        caller.close()


def hang_in_hand(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("hang", lambda message: NEVER.wait())
    endpoint.run()


def test_who_went_on_while_it_was_dead_is_not_stalled_any_more(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    server = worker(echo, name="server")
    caller = attach("caller", reconnect=True)
    caller.subscribe("$bus.endpoint.*")
    caller.wait_for("echo")
    server.pause()

    def next_of_server() -> str:
        while (message := caller.receive(60)) is not None and message.payload["name"] != "server":
            pass
        assert message is not None
        return message.type

    while next_of_server() != "$bus.endpoint.stalled":
        pass
    bus_process.kill()
    server.resume()
    bus_process.start()
    assert next_of_server() == "$bus.endpoint.resumed"
    assert not caller.bus.find("echo")[0].stalled


OTHER = "import time; time.sleep(600)"


def become_another_program(endpoint: shmbus.Endpoint) -> None:
    with contextlib.suppress(errors.BusDown):
        endpoint.subscribe("go.on")
        endpoint.receive()
    os.execv(sys.executable, [sys.executable, "-c", OTHER])


def test_who_called_exec_meanwhile_is_seen_to_be_gone_by_the_next_dispatcher(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    guest = worker(become_another_program, name="guest")
    bus_process.kill()
    eventually(lambda: OTHER in Path(f"/proc/{guest.pid}/cmdline").read_text())
    bus_process.start()
    watcher = attach("watcher")
    eventually(lambda: [e.name for e in watcher.bus.endpoints()] == ["watcher"])
    assert guest.alive
    guest.kill()  # it is not attached any more


def test_who_calls_exec_after_that_is_seen_to_be_gone_by_the_next_dispatcher(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    guest = worker(become_another_program, name="guest", reconnect=True)
    bus_process.restart()
    watcher = attach("watcher")
    watcher.subscribe("$bus.endpoint.down")
    watcher.wait_for("go.on", timeout=60)
    watcher.publish("go.on")
    down = watcher.receive(60)
    assert down is not None
    assert (down.payload["name"], down.payload["reason"]) == ("guest", "exec")
    assert guest.alive
    guest.kill()


@pytest.mark.slow
def test_with_reconnect_subscribing_waits_for_the_next_dispatcher_however_late_that_comes(
    bus_process: BusProcess, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribing, "CONFIRM", 1.0)
    monkeypatch.setattr(endpoint_module, "CONFIRM", 1.0)
    patient, closes = (attach(name, reconnect=True) for name in ("patient", "closes"))
    bus_process.kill()
    with ThreadPoolExecutor() as pool:
        subscribed = pool.submit(patient.subscribe, "x")
        descriptor = pool.submit(patient.fileno)
        given_up = pool.submit(closes.subscribe, "x")
        calls: list[Future[Any]] = [subscribed, descriptor]
        try:
            assert not wait(calls, timeout=1.5, return_when=FIRST_COMPLETED).done
            closes.close()
            given_up.result(60)
        finally:
            bus_process.start()
        assert subscribed.result(60).pattern == "x"
        assert descriptor.result(60) >= 0
    sender = attach("sender")
    sender.publish("x", 1)
    got = patient.receive(60)
    assert got is not None
    assert got.payload == 1


def test_attaching_waits_for_a_dispatcher_and_says_when_there_is_none(
    bus_process: BusProcess, attach: Attach
) -> None:
    bus_process.kill()
    with pytest.raises(errors.AttachTimeout) as caught:
        attach("early", timeout=0.3)
    assert caught.value.bus == bus_process.name
    assert caught.value.seconds >= 0.3
    found: list[shmbus.Endpoint] = []
    attaching = threading.Thread(target=lambda: found.append(attach("patient")))
    attaching.start()
    bus_process.start()
    attaching.join(60)
    assert found[0].name == "patient"


def test_a_dispatcher_that_stands_still_is_named_by_attach(
    bus_process: BusProcess, attach: Attach
) -> None:
    bus_process.pause()
    try:
        with pytest.raises(errors.AttachTimeout) as caught:
            attach("early", timeout=0.5)
    finally:
        bus_process.resume()
    assert caught.value.pid == bus_process.pid
    assert f"dispatcher {bus_process.pid} is stopped" in str(caught.value)
    assert str(caught.value).endswith(f"Let it go on: kill -CONT {bus_process.pid}")
    attach("later")


def test_those_who_are_attached_survive_that_their_dispatcher_stands_still(
    bus_process: BusProcess,
    attach: Attach,
    worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscribing, "CONFIRM", 0.3)
    worker(echo, name="server")
    caller = attach("caller")
    caller.wait_for("echo")
    bus_process.pause()
    with pytest.raises(errors.RequestTimeout) as caught:
        caller.request("echo", timeout=0.3)
    with pytest.raises(errors.AttachTimeout) as unheard:
        caller.subscribe("x")
    with pytest.raises(errors.QueueFull) as full:
        caller.publish_many([("x", bytes(10_000))] * 100, timeout=0.1)
    bus_process.resume()
    assert (caught.value.dispatcher, caught.value.stopped) == (bus_process.pid, True)
    assert f"dispatcher {bus_process.pid} is stopped" in str(caught.value)
    for error in (caught.value, unheard.value, full.value):
        assert str(error).endswith(f"Let it go on: kill -CONT {bus_process.pid}")
    assert caller.request("echo", 1, timeout=60).payload == 1


STANDSTILL = 1.0
"""Seconds that an endpoint may take nothing, below: less than the dispatcher is stopped for."""


@pytest.mark.slow
@pytest.mark.bus(
    stall_after=STANDSTILL,
    block_timeout=STANDSTILL,
    in_bytes=4096,
    out_bytes=4096,
    reply_bytes=4096,
)
@pytest.mark.parametrize("told", ["stalled", "lost"])
def test_while_its_dispatcher_stands_still_an_endpoint_need_not_take_anything(
    bus_process: BusProcess, attach: Attach, told: str
) -> None:
    deaf, sender = attach("deaf"), attach("sender")
    deaf.subscribe("x")

    def full() -> bool:
        with contextlib.suppress(errors.QueueFull):
            sender.publish("x", bytes(900), timeout=0.0)
        there = {e.name: e for e in sender.bus.endpoints()}
        return min(there["deaf"].incoming.fill, there["sender"].outgoing.fill) > 0.75

    time.sleep(STANDSTILL / 2)  # so that its last progress is long ago
    began = time.monotonic()
    eventually(full)
    bus_process.pause()
    ran = time.monotonic() - began
    time.sleep(1.5 * STANDSTILL)
    resumed = time.monotonic()
    bus_process.resume()
    eventually(lambda: getattr(deaf.bus.find("x")[0], told))
    # Of the stop at most the time between two looks at the endpoints is counted.
    assert time.monotonic() - resumed > STANDSTILL - ran - 0.15


@pytest.fixture
def unlisted(bus_name: str) -> list[Path]:
    """What a dispatcher of that bus leaves which is killed between making a segment and listing it
    in BUS: one of each kind."""
    of = names.names_of(bus_name)
    made = (of.down(15, 99), of.backlog(1080, 99), of.mailbox(1270, 99), of.retained(63))
    return [names.SHM / name for name in made]


def test_what_a_killed_dispatcher_had_made_and_not_listed_goes_when_the_next_takes_over(
    bus_process: BusProcess, attach: Attach, unlisted: list[Path]
) -> None:
    client = attach("client", reconnect=True)
    for path in unlisted:
        path.touch(0o600)
    bus_process.restart()
    client.subscribe("x")
    assert [path for path in unlisted if path.exists()] == []


KILLED_AS_IT_ADMITS = """
    import os, signal, sys, time
    from shmbus.dispatcher import table
    import shmbus

    bus = shmbus.serve(sys.argv[1])
    enter = table.Table.enter

    def killed(self, slot, generation, name, owner):
        if name == "second":
            os.kill(os.getpid(), signal.SIGKILL)
        enter(self, slot, generation, name, owner)

    table.Table.enter = killed
    print("serves")
    time.sleep(60)
"""


def test_a_dispatcher_killed_as_it_admits_leaves_nothing_once_its_bus_has_ended(
    bus_name: str,
) -> None:
    with start_python(KILLED_AS_IT_ADMITS, bus_name) as host:
        assert host.line() == "serves"
        with shmbus.attach(bus_name, name="first", reconnect=True) as first:
            attached: list[shmbus.Endpoint] = []
            second = threading.Thread(
                target=lambda: attached.append(shmbus.attach(bus_name, name="second", timeout=60))
            )
            second.start()
            host.wait()
            with shmbus.serve(bus_name):
                second.join()
                first.subscribe("x")
                attached[0].close()
    assert in_shm(bus_name) == []


def test_a_bus_that_is_ended_in_good_order_says_so(bus_process: BusProcess, attach: Attach) -> None:
    endpoint = attach("endpoint", reconnect=True)
    bus_process.stop()
    with pytest.raises(errors.BusDown) as caught:
        endpoint.receive(60)
    assert "ended" in caught.value.reason
    endpoint.close()
    assert in_shm(bus_process.name) == []


# One at a time -----------------------------------------------------------------------------------


def test_a_second_dispatcher_is_refused_with_the_pid_of_the_first(
    bus_process: BusProcess,
) -> None:
    with pytest.raises(errors.BusExists) as caught:
        shmbus.serve(bus_process.name)
    assert caught.value.pid == bus_process.pid


def test_a_second_dispatcher_is_refused_in_the_same_process_too(bus: shmbus.Bus) -> None:
    with pytest.raises(errors.BusExists) as caught:
        shmbus.serve(bus.name)
    assert caught.value.pid == os.getpid()


def test_who_fails_to_adopt_a_bus_leaves_it_to_the_next(
    bus_process: BusProcess, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = attach("client", reconnect=True)
    bus_process.kill()

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            shmbus.serve(bus_process.name)
    bus_process.start()
    client.subscribe("x")


def try_to_serve(endpoint: shmbus.Endpoint, bus: str) -> str:
    try:
        shmbus.serve(bus).close()
    except errors.BusExists as why:
        return f"exists {why.pid}"
    return "served"


def test_a_lock_file_that_others_opened_and_closed_still_keeps_the_second_out(
    bus: shmbus.Bus, worker: StartWorker
) -> None:
    lock = f"/dev/shm/{names.names_of(bus.name).lock}"
    with open(lock) as file:  # in the holder's own process: closing it releases the lock
        file.read()
    second = worker(try_to_serve, bus.name, name="second")
    assert second.result() == f"exists {os.getpid()}"


@contextlib.contextmanager
def host_with_child(bus: str) -> Iterator[tuple[int, int]]:
    """The pids of a process that serves, and of a child that it forked and that does nothing."""
    code = """
        import os, signal, shmbus, sys
        bus = shmbus.serve(sys.argv[1])
        child = os.fork()
        if child == 0:
            signal.pause()
        print(child)
        signal.pause()
    """
    with start_python(code, bus) as host:
        child = int(host.line())
        try:
            yield host.pid, child
        finally:
            os.kill(child, signal.SIGKILL)
            host.kill()


def test_a_forked_child_that_outlives_a_killed_host_does_not_block_the_restart(
    bus_name: str,
) -> None:
    with host_with_child(bus_name) as (host, _):
        endpoint = shmbus.attach(bus_name, name="endpoint", reconnect=True)
        endpoint.subscribe("x")
        os.kill(host, signal.SIGKILL)
        bus = eventually(lambda: serve_if_free(bus_name))
        assert bus is not None
        with bus:
            endpoint.publish("x", "through the next")
            message = endpoint.receive(60)
            assert message is not None
            assert message.payload == "through the next"
            endpoint.close()


def test_who_knocks_while_only_that_child_is_left_is_let_in_by_the_next(bus_name: str) -> None:
    with host_with_child(bus_name) as (host, _):
        kill(host)
        found: list[shmbus.Endpoint] = []
        attaching = threading.Thread(
            target=lambda: found.append(shmbus.attach(bus_name, name="early", timeout=None))
        )
        attaching.start()
        attaching.join(0.2)
        bus = eventually(lambda: serve_if_free(bus_name))
        assert bus is not None
        with bus:
            attaching.join(60)
            assert [endpoint.name for endpoint in found] == ["early"]
            found[0].close()


def serve_if_free(bus: str) -> shmbus.Bus | None:
    try:
        return shmbus.serve(bus)
    except errors.BusExists:
        return None


def test_a_newer_package_of_the_same_layout_adopts_the_bus(
    bus_process: BusProcess, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = attach("endpoint", reconnect=True)
    endpoint.subscribe("x")
    bus_process.kill()
    monkeypatch.setattr("importlib.metadata.version", lambda package: "99.0")
    with shmbus.serve(bus_process.name) as bus:
        endpoint.publish("x", 1)
        assert endpoint.receive(60) is not None
        assert bus.info().package == "99.0"
        endpoint.close()


def relabel(bus: str) -> None:
    """As another layout would have left it: the second word of the frozen prefix."""
    with open(f"/dev/shm/{names.names_of(bus).bus_segment}", "r+b") as file:
        file.seek(8)
        word = bytearray(file.read(8))
        word[0] ^= 1
        file.seek(8)
        file.write(word)


def test_another_layout_in_use_is_refused_with_both_versions_or_replaced(
    bus_process: BusProcess, attach: Attach
) -> None:
    endpoint = attach("endpoint")
    bus_process.kill()
    relabel(bus_process.name)
    with pytest.raises(errors.LayoutMismatch) as caught:
        shmbus.serve(bus_process.name)
    assert caught.value.mine != caught.value.theirs
    assert caught.value.pids == (os.getpid(),)
    assert caught.value.mine in str(caught.value)
    assert caught.value.theirs in str(caught.value)
    with pytest.raises(errors.LayoutMismatch):
        shmbus.attach(bus_process.name, name="other")
    with shmbus.serve(bus_process.name, replace=True):
        with pytest.raises(errors.BusDown):
            endpoint.receive(60)
        with shmbus.attach(bus_process.name, name="other") as other:
            other.publish("x")
        endpoint.close()
