"""Attaching, leaving, dying and being left: who learns what, and that nothing stays behind."""

import contextlib
import gc
import math
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import shmbus
from ringbuf import Segment
from shmbus import Death, Message, errors
from shmbus.dispatcher import admission
from shmbus.endpoint import attach as attaching
from shmbus.endpoint import door, endpoint, runners
from shmbus.shared.names import SHM, names_of
from shmbus.testing import pause, resume

from .conftest import Attach, Spawn, eventually


def files(bus: str) -> list[str]:
    return [file for file in os.listdir("/dev/shm") if f":{bus}:" in file]


SERVE = "bus = shmbus.serve(NAME)\nprint('ready', flush=True)\nsys.stdin.read()\nbus.close()"


# Attaching


def test_attaching_waits_for_the_bus_to_appear(name: str) -> None:
    got: list[shmbus.Endpoint] = []
    thread = threading.Thread(target=lambda: got.append(shmbus.attach(name, timeout=30)))
    thread.start()
    with shmbus.serve(name):
        thread.join()
        got[0].close()


@pytest.mark.slow
def test_attaching_outlasts_buses_that_end_and_begin(name: str) -> None:
    ended = threading.Event()
    failed: list[Exception] = []

    def attach() -> None:
        try:
            while not ended.is_set():
                shmbus.attach(name, timeout=60).close()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=attach) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(200):
        with shmbus.serve(name):
            ended.wait(0.001 * (i % 4))
    with shmbus.serve(name):
        ended.set()
        for thread in threads:
            thread.join()
    assert failed == []


def test_attaching_outlasts_a_bus_that_ends_while_the_next_is_being_made(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    knock, await_bus = door.knock, attaching._await_bus
    buses = [shmbus.serve(name)]

    def knock_in_vain(*given: Any, **more: Any) -> door.Admission:
        monkeypatch.setattr(door, "knock", knock)
        monkeypatch.setattr(attaching, "_await_bus", await_next)
        admission = knock(*given, **more)
        buses[0].close()
        unfinished = SHM / names_of(name).bus_segment
        unfinished.touch(0o600)
        os.truncate(unfinished, 4096)
        return admission

    def await_next(*given: Any) -> Segment:
        buses.append(shmbus.serve(name))
        return await_bus(*given)

    monkeypatch.setattr(door, "knock", knock_in_vain)
    shmbus.attach(name, timeout=60).close()
    buses[1].close()


def test_no_bus_in_time(name: str) -> None:
    with pytest.raises(errors.AttachTimeout) as caught:
        shmbus.attach(name, timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.bus, caught.value.seconds, caught.value.pid) == (name, 0.05, None)


def test_a_dispatcher_that_does_not_answer_is_named(name: str, spawn: Spawn) -> None:
    host = spawn(SERVE)
    pause(host.pid)
    with pytest.raises(errors.AttachTimeout) as caught:
        shmbus.attach(name, timeout=0.2)
    assert caught.value.pid == host.pid
    resume(host.pid)
    shmbus.attach(name, timeout=30).close()
    host.communicate()


def test_names_are_unique_and_free_again_after_close(bus: shmbus.Bus, attach: Attach) -> None:
    first = attach("worker")
    with pytest.raises(errors.NameTaken) as caught:
        attach("worker")
    assert (caught.value.name, caught.value.pid) == ("worker", os.getpid())
    first.close()
    attach("worker")


def test_a_dispatcher_that_did_not_run_meanwhile_looks_again_before_it_calls_a_name_taken(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)  # it is over whenever somebody looks
    first = attach("worker")
    begun, go = threading.Event(), threading.Event()

    @first.handle("slow")
    def slow(message: Message) -> None:
        begun.set()
        go.wait(60)

    first.start()
    first.send("slow")
    begun.wait(60)
    drain = threading.Thread(target=first.drain)
    drain.start()
    eventually(lambda: bus.endpoints()[0].state == "leaving")
    second = threading.Thread(target=attach, args=("worker",))

    def choose(*given: Any, **more: Any) -> int | None:
        slot = choose_slot(*given, **more)
        go.set()
        return slot

    choose_slot = admission.choose_slot
    monkeypatch.setattr(admission, "choose_slot", choose)
    monkeypatch.setattr(admission, "_TRIES", sys.maxsize)
    second.start()
    second.join()
    drain.join()
    assert [info.name for info in bus.endpoints()] == ["worker"]


def test_a_full_bus_says_so(name: str) -> None:
    with (
        shmbus.serve(name, settings=shmbus.Settings(max_endpoints=1)),
        shmbus.attach(name),
        pytest.raises(errors.BusFull) as caught,
    ):
        shmbus.attach(name)
    assert caught.value.limit == 1


def test_names_are_made_up_where_none_is_given(bus: shmbus.Bus) -> None:
    with shmbus.attach(bus.name) as one, bus.attach() as two:
        assert one.name != two.name
        assert {info.name for info in bus.endpoints()} == {one.name, two.name}


@pytest.mark.parametrize("wrong", ["", "a b", "a:b", "x" * 49])
def test_wrong_names_are_refused(bus: shmbus.Bus, wrong: str) -> None:
    with pytest.raises(errors.InvalidName):
        bus.attach(wrong)


# Leaving


def test_a_closed_endpoint_refuses_and_says_that_it_was_closed_here(attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x")
    endpoint.close()
    endpoint.close()
    calls: list[Callable[[], object]] = [
        lambda: endpoint.publish("x"),
        lambda: endpoint.send("x"),
        lambda: endpoint.request("x"),
        lambda: endpoint.request_async("x"),
        lambda: endpoint.receive(0),
        lambda: endpoint.subscribe("y"),
        lambda: endpoint.handle("y", print),
        lambda: endpoint.run(),
        lambda: endpoint.wait_for("x"),
        lambda: endpoint.on_death("x", print),
    ]
    for call in calls:
        with pytest.raises(errors.EndpointClosed) as caught:
            call()
        assert caught.value.endpoint == "e"


def test_closing_ends_every_wait(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint, server = attach("e"), attach("server")
    endpoint.subscribe("x")
    server.handle("q", lambda message: message.defer())
    server.start()
    ended: list[str] = []

    def iterate() -> None:
        for _ in endpoint:
            pass
        ended.append("iteration")

    def expect(what: str, call: Callable[[], object]) -> None:
        try:
            call()
        except errors.EndpointClosed:
            ended.append(what)

    threads = [
        threading.Thread(target=iterate),
        threading.Thread(target=expect, args=("receive", lambda: endpoint.receive(60))),
        threading.Thread(
            target=expect, args=("request", lambda: endpoint.request("q", timeout=60))
        ),
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: (bus.endpoints()[0].receivers, bus.endpoints()[0].pending) == (2, 1))
    endpoint.close()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["iteration", "receive", "request"]


def test_what_was_sent_before_close_arrives(bus: shmbus.Bus, attach: Attach) -> None:
    receiver = attach("r")
    receiver.subscribe("x")
    with shmbus.attach(bus.name) as sender:
        for i in range(1000):
            sender.publish("x", i)
    got: list[int] = []
    while len(got) < 1000:
        message = receiver.receive(10)
        assert message is not None
        got.append(message.payload)
    assert got == list(range(1000))


def test_what_is_accepted_while_the_sender_closes_arrives(bus: shmbus.Bus, attach: Attach) -> None:
    attach("r").subscribe("x", overflow="drop_newest")
    accepted = 0

    def flood() -> None:
        nonlocal accepted
        with contextlib.suppress(errors.EndpointClosed):
            while True:
                sender.publish("x")
                accepted += 1

    for _ in range(20):
        sender, before = bus.attach("s"), accepted
        thread = threading.Thread(target=flood)
        thread.start()
        eventually(lambda: accepted > before)  # noqa: B023
        sender.close()
        thread.join()
    info = bus.endpoints()[0]
    assert info.untouched + info.lost == accepted


def test_draining_handles_what_was_accepted(bus: shmbus.Bus, attach: Attach) -> None:
    sender, worker = attach("s"), attach("w")
    got: list[int] = []
    worker.handle("add", lambda message: got.append(message.payload))
    for i in range(1000):
        sender.send("add", i)
    eventually(lambda: bus.endpoints()[0].forwarded == 1000)
    worker.drain()
    assert got == list(range(1000))


def test_draining_lets_running_handlers_finish(attach: Attach) -> None:
    client, worker = attach("c"), attach("w")
    begun, go = threading.Event(), threading.Event()

    @worker.handle("slow")
    def slow(message: Message) -> str:
        begun.set()
        go.wait(30)
        return "done"

    worker.start(threads=2)
    future = client.request_async("slow", timeout=60)
    begun.wait(30)
    thread = threading.Thread(target=worker.drain)
    thread.start()
    go.set()
    thread.join()
    assert future.result(30).payload == "done"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_handler_may_drain_its_endpoint(
    bus: shmbus.Bus,
    attach: Attach,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    monkeypatch.setattr(runners, "PATIENCE", 3600.0)  # that nobody runs them yet is no surprise
    sender, worker = attach("s"), attach("w")
    got: list[int] = []

    def add(message: Message) -> None:
        got.append(message.payload)
        worker.drain(timeout=30)

    worker.handle("add", add)
    for i in range(100):
        sender.send("add", i)
    eventually(lambda: bus.endpoints()[1].untouched == 100)
    worker.run(threads=threads)
    assert sorted(got) == list(range(100))
    assert caplog.records == []


def test_subscriptions_change_no_more_while_it_drains(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, worker = attach("s"), attach("w")
    begun, go = threading.Event(), threading.Event()
    told: list[str] = []
    own = worker.subscribe("mine", print)

    def work(message: Message) -> None:
        begun.set()
        go.wait(30)
        own.close()
        try:
            worker.subscribe("more", print)
        except errors.EndpointClosed:
            told.append("closed")

    worker.handle("work", work)
    worker.start()
    sender.send("work")
    begun.wait(30)
    thread = threading.Thread(target=worker.drain)
    thread.start()
    eventually(lambda: [e.state for e in bus.endpoints()] == ["attached", "leaving"])
    monkeypatch.setattr(endpoint, "CONFIRM", 3600.0)  # nothing is waited for that does not come
    go.set()
    thread.join()
    assert told == ["closed"]


def test_draining_says_what_it_could_not_finish(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, worker = attach("s"), attach("w")
    go = threading.Event()
    worker.handle("slow", lambda message: go.wait(30))
    for _ in range(3):
        sender.send("slow")
    eventually(lambda: bus.endpoints()[1].untouched == 3)
    worker.start()
    close = worker._close

    def let_go(patience: float) -> None:
        go.set()
        close(patience)

    monkeypatch.setattr(worker, "_close", let_go)  # when it has counted them
    with pytest.raises(errors.DrainTimeout) as caught:
        worker.drain(timeout=0.01)
    assert (caught.value.endpoint, caught.value.left) == ("w", 3)


def test_a_handler_may_close_its_endpoint(attach: Attach) -> None:
    client, worker = attach("c"), attach("w")
    worker.handle("stop", lambda message: worker.close())
    thread = threading.Thread(target=worker.run)
    thread.start()
    client.send("stop")
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("ending", ["close", "drain"])
def test_handlers_of_several_threads_may_close_at_once(
    attach: Attach, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "CLOSING", 3600.0)  # neither waits for the other
    client, worker = attach("c"), attach("w")
    both = threading.Barrier(2)

    @worker.handle("stop")
    def stop(message: Message) -> None:
        both.wait(30)
        getattr(worker, ending)()

    for _ in range(2):
        client.send("stop")
    worker.run(threads=2)
    with pytest.raises(errors.EndpointClosed):
        worker.publish("x")


def test_untouched_group_messages_go_on_to_another_member(bus: shmbus.Bus, attach: Attach) -> None:
    sender, leaving, staying = attach("s"), attach("leaving"), attach("staying")
    leaving.subscribe("job", group="g")
    for i in range(10):
        sender.publish("job", i)
    eventually(lambda: bus.endpoints()[1].untouched == 10)
    staying.subscribe("job", group="g")
    first = leaving.receive(10)
    assert first is not None
    leaving.close()
    rest: list[int] = []
    while len(rest) < 9:
        message = staying.receive(10)
        assert message is not None
        assert message.redelivered
        rest.append(message.payload)
    assert rest == list(range(1, 10))


# Dying


def test_a_callers_wait_ends_when_its_handler_dies(
    bus: shmbus.Bus, attach: Attach, spawn: Spawn
) -> None:
    client = attach("c")
    victim = spawn(
        """
        ep = shmbus.attach(NAME, name="victim")
        ep.handle("die", lambda message: os.kill(os.getpid(), signal.SIGKILL))
        print("ready", flush=True)
        ep.run()
        """
    )
    with pytest.raises(errors.EndpointDied) as caught:
        client.request("die", timeout=60)
    assert (caught.value.endpoint, caught.value.pid) == ("victim", victim.pid)
    attach("victim")  # the name is free again


def test_a_begun_group_message_is_handed_on_with_its_attempt(
    bus: shmbus.Bus, attach: Attach, spawn: Spawn
) -> None:
    sender = attach("s")
    victim = spawn(
        """
        ep = shmbus.attach(NAME, name="victim")
        ep.subscribe("job", group="g")
        print("ready", flush=True)
        message = ep.receive()
        print("begun", flush=True)
        time.sleep(60)
        """
    )
    assert victim.stdout is not None
    sender.publish("job", "heavy")
    victim.stdout.readline()
    heir = attach("heir")
    heir.subscribe("job", group="g")
    victim.kill()
    message = heir.receive(30)
    assert message is not None
    assert (message.payload, message.redelivered, message.attempt) == ("heavy", True, 2)


def test_on_death_fires_once_however_it_ends(attach: Attach, spawn: Spawn) -> None:
    watcher, closing = attach("watcher"), attach("closing")
    victim = spawn(
        "ep = shmbus.attach(NAME, name='victim'); print('ready', flush=True); time.sleep(60)"
    )
    deaths: list[Death] = []
    watcher.on_death("victim", deaths.append)
    watcher.on_death("closing", deaths.append)
    watcher.on_death("nobody", deaths.append)
    unwanted = watcher.on_death("victim", deaths.append)
    eventually(lambda: len(deaths) == 1)
    assert deaths[0] == Death(name="nobody", pid=None, reason="absent")
    unwanted.close()
    closing.close()
    eventually(lambda: len(deaths) == 2)
    assert deaths[1] == Death(name="closing", pid=os.getpid(), reason="detached")
    victim.kill()
    eventually(lambda: len(deaths) == 3)
    assert (deaths[2].name, deaths[2].pid) == ("victim", victim.pid)
    assert deaths[2].reason in ("killed", "died")
    again: list[Death] = []
    watcher.on_death("victim", again.append)
    eventually(lambda: len(again) == 1)
    assert len(deaths) == 3


def test_an_evicted_endpoint_is_told(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x")
    failed: list[errors.BusError] = []

    def receive() -> None:
        try:
            endpoint.receive(60)
        except errors.Evicted as error:
            failed.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    eventually(lambda: bus.endpoints()[0].receivers == 1)
    bus.evict("e")
    thread.join()
    assert (failed[0].endpoint, failed[0].reason) == ("e", "evicted")  # type: ignore[attr-defined]
    with pytest.raises(errors.Evicted):
        endpoint.publish("x")


def test_an_evicted_endpoint_begins_nothing_that_was_handed_on(
    bus: shmbus.Bus, attach: Attach
) -> None:
    first, second, client = attach("first"), attach("second"), attach("client")
    begun, evicted = threading.Event(), threading.Event()
    done: dict[str, list[int]] = {"first": [], "second": []}

    def slow(message: shmbus.Message) -> None:
        begun.set()
        assert evicted.wait(60)
        done["first"].append(message.payload)

    first.handle("job", slow)
    for number in range(20):
        client.send("job", number)
    first.start()
    assert begun.wait(60)
    second.handle("job", lambda message: done["second"].append(message.payload))
    second.start()
    bus.evict("first")
    eventually(lambda: len(done["second"]) == 19)
    evicted.set()
    eventually(lambda: not first._running.threads)
    assert (done["first"], sorted(done["second"])) == ([0], list(range(1, 20)))


@pytest.mark.parametrize("timeout", [None, math.inf])
def test_there_may_be_no_limit_to_waiting(name: str, timeout: float | None) -> None:
    bus = shmbus.serve(name)
    endpoint = shmbus.attach(name, timeout=timeout)
    endpoint.subscribe("x")
    endpoint.wait_for("x", timeout=timeout)
    endpoint.publish("x", timeout=timeout)
    assert endpoint.receive(timeout) is not None
    endpoint.drain(timeout)
    bus.close(timeout=timeout)


def test_no_timeout_is_nan(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("me")
    calls: list[Callable[[float], object]] = [
        lambda timeout: shmbus.attach(bus.name, timeout=timeout),
        lambda timeout: endpoint.wait_for("unknown", timeout=timeout),
        lambda timeout: endpoint.request("unknown", timeout=timeout),
        endpoint.receive,
        endpoint.drain,
    ]
    for call in calls:
        with pytest.raises(ValueError, match="number of seconds"):
            call(float("nan"))
    endpoint.publish("still.attached")


def test_a_wait_that_closing_ends_says_so(bus: shmbus.Bus) -> None:
    for _ in range(30):
        endpoint = bus.attach("e")
        failed: list[Exception] = []

        def wait() -> None:
            try:
                endpoint.wait_for("nobody", timeout=60)  # noqa: B023
            except Exception as error:
                failed.append(error)  # noqa: B023

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        endpoint.close()
        for thread in threads:
            thread.join()
        assert {type(error) for error in failed} == {errors.EndpointClosed}


def test_wait_for_waits_for_receivers(attach: Attach) -> None:
    endpoint, late = attach("e"), attach("late")
    with pytest.raises(errors.WaitTimeout) as caught:
        endpoint.wait_for("x", timeout=0.02)
    assert (caught.value.pattern, caught.value.receivers, caught.value.found) == ("x", 1, 0)
    thread = threading.Thread(target=lambda: endpoint.wait_for("x", timeout=30))
    thread.start()
    late.subscribe("x")
    thread.join()
    endpoint.publish("x")
    assert late.receive(10) is not None


def test_wait_for_counts_subscribers_and_handlers_but_no_taps(attach: Attach) -> None:
    endpoint, both, tap = attach("e"), attach("both"), attach("tap")
    endpoint.subscribe("x.*")
    both.subscribe("x.y")
    both.handle("x.>", print)
    tap.tap("x.y")
    endpoint.wait_for("x.y", receivers=2, timeout=30)
    with pytest.raises(errors.WaitTimeout) as caught:
        endpoint.wait_for("x.y", receivers=3, timeout=0.02)
    assert caught.value.found == 2


# The end of the bus


def test_the_end_of_the_bus_is_told(name: str) -> None:
    bus = shmbus.serve(name)
    endpoint = shmbus.attach(name)
    endpoint.subscribe("x")
    failed: list[errors.BusDown] = []

    def receive() -> None:
        try:
            endpoint.receive(60)
        except errors.BusDown as error:
            failed.append(error)

    thread = threading.Thread(target=receive)
    thread.start()
    eventually(lambda: bus.endpoints()[0].receivers == 1)
    bus.close()
    thread.join()
    assert failed[0].bus == name
    for call in (lambda: endpoint.publish("x"), lambda: endpoint.request("x"), endpoint.run):
        with pytest.raises((errors.BusDown, errors.ReceiveConflict)):
            call()
    endpoint.close()


def test_a_handler_that_the_end_of_the_bus_cut_short_is_told_in_one_line(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bus = shmbus.serve(name)
    endpoint = bus.attach("e")
    begun, ended = threading.Event(), threading.Event()

    def send(message: Message) -> None:
        begun.set()
        ended.wait(30)
        endpoint.publish("y")

    endpoint.subscribe("x", send)
    endpoint.start()
    endpoint.publish("x")
    begun.wait(30)
    bus.close()
    ended.set()
    endpoint.close()
    (record,) = [r for r in caplog.records if "handler" in r.getMessage()]
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert "BusDown" in record.getMessage()


def test_a_killed_dispatcher_is_told_to_callers(name: str, spawn: Spawn) -> None:
    host = spawn(SERVE)
    endpoint = shmbus.attach(name)
    endpoint.handle("x", lambda message: message.defer())
    endpoint.start()
    failed: list[errors.BusDown] = []

    def ask() -> None:
        try:
            endpoint.request("x", timeout=60)
        except errors.BusDown as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    with shmbus.observe(name) as view:
        eventually(lambda: view.endpoints()[0].in_hand == 1)
    host.kill()
    thread.join()
    assert (failed[0].bus, failed[0].pid) == (name, host.pid)
    endpoint.publish("x", "still accepted")
    with pytest.raises(errors.BusDown):
        endpoint.request("x")
    with pytest.raises(errors.BusDown):
        endpoint.wait_for("nobody", timeout=60)
    endpoint.close()
    with shmbus.serve(name):  # clears away what the killed one left
        pass


def test_a_request_that_no_dispatcher_took_says_so(name: str, spawn: Spawn) -> None:
    host = spawn(SERVE)
    endpoint = shmbus.attach(name, reconnect=True)
    host.kill()
    host.wait()
    with pytest.raises(errors.RequestTimeout, match="the bus has no dispatcher"):
        endpoint.request("x", timeout=0.5)
    endpoint.close()
    shmbus.serve(name).close()  # clears away what the killed one left


def test_a_killed_dispatchers_successor_takes_over(name: str, spawn: Spawn) -> None:
    host = spawn(SERVE)
    server = shmbus.attach(name, name="server")
    client = shmbus.attach(name, name="client", reconnect=True)
    got: list[object] = []
    server.handle("x", lambda message: got.append(message.payload))
    server.start()
    client.request("x", 0, timeout=30)
    host.kill()
    host.wait()
    client.send("x", 1)
    answers: list[Message] = []
    thread = threading.Thread(target=lambda: answers.append(client.request("x", 2, timeout=60)))
    thread.start()
    with shmbus.serve(name):
        thread.join()
        client.send("x", 3)
        client.request("x", 4, timeout=30)
        assert got == [0, 1, 2, 3, 4]
        server.close()
        client.close()


def test_a_bus_that_is_handed_over_goes_on(name: str) -> None:
    bus = shmbus.serve(name)
    server = shmbus.attach(name, name="server")
    client = shmbus.attach(name, name="client")
    server.handle("x", lambda message: message.payload)
    server.start()
    client.request("x", timeout=30)
    bus.close(handover=True)
    client.send("x", "accepted meanwhile")
    with pytest.raises(errors.BusDown):
        client.request("x")
    with shmbus.serve(name):
        assert client.request("x", "again", timeout=30).payload == "again"
        client.close()
        server.close()


def test_what_a_living_process_handed_over_is_served_by_another(name: str) -> None:
    bus = shmbus.serve(name)
    with shmbus.attach(name, name="client", reconnect=True) as client:
        bus.close(handover=True)
        done = run("with shmbus.serve(NAME) as bus: print(bus.endpoints()[0].name)", name)
        assert (done.stderr, done.stdout) == ("", "client\n")
        with pytest.raises(errors.BusDown):
            client.publish("x")
    assert files(name) == []


# Forks, signals and the interpreter's end


def run(code: str, name: str) -> "subprocess.CompletedProcess[str]":
    head = f"import os, signal, sys, threading, time\nimport shmbus\nNAME = {name!r}\n"
    return subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_forked_child_refuses_and_may_attach_anew(bus: shmbus.Bus, name: str) -> None:
    done = run(
        """
ep = shmbus.attach(NAME, name="parent")
ep.subscribe("x")
import warnings
warnings.simplefilter('ignore')  # from 3.12 on, of forking beside threads
child = os.fork()
if child == 0:
    calls = [lambda: ep.publish("x"), lambda: ep.receive(0), lambda: ep.request("x")]
    for call in [*calls, lambda: ep.subscribe("y")]:
        try:
            call()
        except shmbus.errors.ForkedEndpoint as error:
            assert error.pid == os.getppid()
        else:
            os._exit(1)
    own = shmbus.attach(NAME, name="child")
    own.publish("x", "from the child")
    own.close()
    ep.close()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
message = ep.receive(30)
assert message.source == "child"
ep.publish("x", "from the parent")
assert ep.receive(30).payload == "from the parent"
ep.close()
print("fine")
""",
        name,
    )
    assert (done.stderr, done.stdout, done.returncode) == ("", "fine\n", 0)


def test_the_interpreter_ends_cleanly_with_threads_that_wait(bus: shmbus.Bus, name: str) -> None:
    for _ in range(3):
        done = run(
            """
ep = shmbus.attach(NAME)
ep.subscribe("x", print)
ep.handle("y", print)
ep.start(threads=3)
other = shmbus.attach(NAME)
other.subscribe("z")
threading.Thread(target=lambda: list(other), daemon=True).start()
other.request_async("y", timeout=None)
""",
            name,
        )
        assert (done.stderr, done.returncode) == ("", 0)
    eventually(lambda: bus.endpoints() == [])


def test_ctrl_c_drains_and_is_raised_again(bus: shmbus.Bus, name: str, attach: Attach) -> None:
    client = attach("c")
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import shmbus, time
ep = shmbus.attach({name!r}, name="worker")
ep.handle("x", lambda message: (time.sleep(0.001), message.payload)[1])
try:
    ep.run()
except KeyboardInterrupt:
    print("interrupted", flush=True)
""",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    client.wait_for("x", timeout=60)
    futures = [client.request_async("x", i, timeout=60) for i in range(100)]
    eventually(lambda: bus.endpoints()[0].forwarded == 100)  # all are accepted
    futures[0].result(60)
    child.send_signal(signal.SIGINT)
    answered = []
    for future in futures:
        try:
            answered.append(future.result(60).payload)
        except errors.RemoteError:  # the one that it was at
            pass
    assert len(answered) >= 99
    assert child.communicate()[0] == "interrupted\n"
    assert child.returncode == 0


@pytest.mark.parametrize("wait", ["receive(None)", "request('q', timeout=None)", "run()"])
def test_ctrl_c_ends_a_wait(bus: shmbus.Bus, name: str, attach: Attach, wait: str) -> None:
    server = attach("server")
    server.handle("q", lambda message: message.defer())
    server.start()
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import shmbus
ep = shmbus.attach({name!r}, name="waiting")
ep.subscribe("x", print)
print("ready", flush=True)
with ep:
    ep.{wait}
""",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in stderr
    assert child.returncode != 0


@pytest.mark.slow
def test_ctrl_c_while_it_closes_ends_the_waiting_but_not_the_leaving(
    bus: shmbus.Bus, name: str
) -> None:
    done = run(
        """
ep = shmbus.attach(NAME, name="e")
begun, go = threading.Event(), threading.Event()
ep.handle("slow", lambda message: (begun.set(), go.wait(60)))
ep.start()
ep.send("slow")
begun.wait(60)
await_others = ep._running.await_others
def interrupted(timeout):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    await_others(3600)
ep._running.await_others = interrupted
try:
    ep.close()
except KeyboardInterrupt:
    print("interrupted")
shmbus.attach(NAME, name="e").close()
try:
    ep.publish("x")
except shmbus.errors.EndpointClosed:
    print("closed")
go.set()
""",
        name,
    )
    assert (done.stderr, done.stdout) == ("", "interrupted\nclosed\n")


@pytest.mark.parametrize("handler", ["default_int_handler", "lambda *_: bus.close()"])
def test_signals_do_not_tear_the_end_of_a_bus_apart(name: str, handler: str) -> None:
    done = run(
        f"""
from signal import default_int_handler
signal.signal(signal.SIGINT, {handler})
bus = shmbus.serve(NAME, settings=shmbus.Settings(ring_bytes=4096, block_timeout=60))
with bus.attach("deaf") as deaf, bus.attach("e") as ep:
    deaf.subscribe("x")
    try:
        while True:
            ep.publish("x", bytes(500), timeout=0.1)
    except shmbus.errors.QueueFull:
        pass
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        bus.close(timeout=0.5)  # what waits before the deaf one cannot be forwarded
        timer.join()
    except KeyboardInterrupt:
        pass
""",
        name,
    )
    assert (done.stderr, done.returncode, files(name)) == ("", 0, [])


def test_a_signal_that_waits_for_the_end_of_a_bus_reaches_an_event_loop_once(name: str) -> None:
    done = run(
        """
import asyncio
async def main():
    loop, told = asyncio.get_running_loop(), []
    loop.add_signal_handler(signal.SIGTERM, told.append, "told")
    bus = shmbus.serve(NAME, settings=shmbus.Settings(ring_bytes=4096, block_timeout=60))
    with bus.attach("deaf") as deaf, bus.attach("e") as ep:
        deaf.subscribe("x")
        for _ in range(6):
            ep.publish("x", bytes(900))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        bus.close(timeout=0.5)
    while not told:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    print(told)
asyncio.run(main())
""",
        name,
    )
    assert (done.stderr, done.stdout) == ("", "['told']\n")


@pytest.mark.slow
def test_no_signal_that_waits_for_the_end_of_a_bus_is_lost(name: str) -> None:
    done = run(
        """
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, lambda *_: print("told"))
bus = shmbus.serve(NAME, settings=shmbus.Settings(ring_bytes=4096, block_timeout=60))
with bus.attach("deaf") as deaf, bus.attach("e") as ep:
    deaf.subscribe("x")
    for _ in range(6):
        ep.publish("x", bytes(900))
    for number in (signal.SIGINT, signal.SIGTERM):
        threading.Timer(0.1 * number / 2, os.kill, (os.getpid(), number)).start()
    bus.close(timeout=2)
""",
        name,
    )
    assert (done.stderr, done.stdout) == ("", "told\n")


def test_ctrl_c_as_a_bus_has_just_ended_leaves_no_signal_unheard(name: str) -> None:
    done = run(
        """
from signal import SIGINT, SIGTERM, default_int_handler, getsignal
signal.signal(SIGTERM, print)
bus, restore = shmbus.serve(NAME), signal.signal
def interrupted(number, handler):
    before = restore(number, handler)
    if handler is default_int_handler:
        signal.raise_signal(SIGINT)
    return before
signal.signal = interrupted
try:
    bus.close()
except KeyboardInterrupt:
    print(getsignal(SIGINT) is default_int_handler, getsignal(SIGTERM) is print)
""",
        name,
    )
    assert (done.stderr, done.stdout) == ("", "True True\n")


@pytest.mark.slow
def test_what_a_signal_s_handler_raises_comes_when_the_endpoint_is_closed(name: str) -> None:
    done = run(
        """
def late(*_):
    raise RuntimeError("late")
signal.signal(signal.SIGALRM, late)
bus = shmbus.serve(NAME, settings=shmbus.Settings(ring_bytes=4096, block_timeout=60))
with bus.attach("deaf") as deaf:
    ep = bus.attach("e")
    deaf.subscribe("x")
    for _ in range(6):
        ep.publish("x", bytes(900))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        ep.close()  # what waits before the deaf one cannot be forwarded
    except RuntimeError as why:
        print(why, ep)
    bus.close(timeout=0)
""",
        name,
    )
    shown = f"late <endpoint 'e' on bus {name!r}, closed>\n"
    assert (done.stderr, done.stdout, files(name)) == ("", shown, [])


def test_handlers_that_are_not_python_s_own_are_left_alone(name: str) -> None:
    done = run(
        """
del sys.modules["signal"], sys.modules["_signal"]  # who loads it anew takes ours for its host's
import signal
assert signal.getsignal(signal.SIGINT) is None
from shmbus.shared.signals import heard
with heard(), shmbus.serve(NAME):
    print("served")
""",
        name,
    )
    assert (done.stderr, done.stdout) == ("", "served\n")


@pytest.mark.parametrize("disposition", ["SIG_IGN", "SIG_DFL"])
def test_a_process_that_is_started_uninterrupted_gets_its_parent_s_signals(
    name: str, disposition: str
) -> None:
    done = run(
        f"""
import subprocess
from shmbus.shared.signals import uninterrupted
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.{disposition})
child = [sys.executable, "-c", "import signal; print(*map(signal.getsignal, (2, 15)))"]
before = subprocess.check_output(child)
with uninterrupted():
    assert subprocess.check_output(child) == before
""",
        name,
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_nothing_is_left_of_an_attach_that_fails(name: str, spawn: Spawn) -> None:
    with shmbus.serve(name, settings=shmbus.Settings(max_endpoints=1)):
        with shmbus.attach(name):
            before = sorted(files(name))
            with pytest.raises(errors.BusFull):
                shmbus.attach(name)
            assert sorted(files(name)) == before


def test_a_forgotten_endpoint_leaves_in_good_order_where_warnings_are_errors(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    deaths: list[Death] = []
    forgotten = [bus.attach("forgotten")]
    attach("watcher").on_death("forgotten", deaths.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forgotten.clear()
        gc.collect()
    eventually(lambda: len(deaths) == 1)
    assert (deaths[0].reason, len(raised)) == ("detached", 1)


@pytest.mark.parametrize("older", [False, True])
def test_an_endpoint_that_is_forgotten_leaves_the_bus(
    bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    if older:  # than its connection, by which the order of finalisation is another
        knock = door.knock
        monkeypatch.setattr(door, "knock", lambda *a, **k: gc.collect(0) + 1 and knock(*a, **k))

    def forget() -> None:
        bus.attach("forgotten").publish("x")
        gc.collect()

    with pytest.warns(ResourceWarning, match="forgotten"):
        forget()
    eventually(lambda: bus.endpoints() == [])
