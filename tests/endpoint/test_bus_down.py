"""The bus ends, is handed over, or its dispatcher is killed: what its endpoints see of it."""

import os
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.dispatcher.control import Dispatcher
from shmbus.endpoint import ending
from shmbus.endpoint.ending import Ending
from shmbus.shared import names, processes
from shmbus.shared.names import Owner
from shmbus.testing import BusProcess, StartWorker, eventually, in_shm, run_python, start_python
from shmbus.views import leavings
from shmbus.views.leavings import remove_deserted
from tests.kept import Kept


def test_the_end_of_the_bus_is_told(bus_name: str) -> None:
    bus = shmbus.serve(bus_name)
    endpoint = shmbus.attach(bus_name)
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
    assert failed[0].bus == bus_name
    for call in (lambda: endpoint.publish("x"), lambda: endpoint.request("x"), endpoint.run):
        with pytest.raises((errors.BusDown, errors.ReceiveConflict)):
            call()
    endpoint.close()


def test_a_handler_that_the_end_of_the_bus_cut_short_is_told_in_one_line(
    bus_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bus = shmbus.serve(bus_name)
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


def test_a_killed_dispatcher_is_told_to_callers(bus_name: str, bus_process: BusProcess) -> None:
    endpoint = shmbus.attach(bus_name)
    endpoint.handle("x", Kept())
    endpoint.start()
    failed: list[errors.BusDown] = []

    def ask() -> None:
        try:
            endpoint.request("x", timeout=60)
        except errors.BusDown as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    with shmbus.observe(bus_name) as view:
        eventually(lambda: view.endpoints()[0].in_hand == 1)
    killed = bus_process.pid
    bus_process.kill()
    thread.join()
    assert (failed[0].bus, failed[0].pid) == (bus_name, killed)
    endpoint.publish("x", "still accepted")
    with pytest.raises(errors.BusDown):
        endpoint.request("x")
    with pytest.raises(errors.BusDown):
        endpoint.wait_for("nobody", timeout=60)
    endpoint.close()


def test_a_request_that_no_dispatcher_took_says_so(bus_name: str, bus_process: BusProcess) -> None:
    endpoint = shmbus.attach(bus_name, reconnect=True)
    bus_process.kill()
    with pytest.raises(errors.RequestTimeout, match="the bus has no dispatcher"):
        endpoint.request("x", timeout=0.5)
    endpoint.close()


@pytest.mark.smoke
def test_a_killed_dispatchers_successor_takes_over(bus_name: str, bus_process: BusProcess) -> None:
    server = shmbus.attach(bus_name, name="server")
    client = shmbus.attach(bus_name, name="client", reconnect=True)
    got: list[object] = []
    server.handle("x", lambda message: got.append(message.payload))
    server.start()
    client.request("x", 0, timeout=30)
    bus_process.kill()
    client.send("x", 1)
    answers: list[Message] = []
    thread = threading.Thread(target=lambda: answers.append(client.request("x", 2, timeout=60)))
    thread.start()
    with shmbus.serve(bus_name):
        thread.join()
        client.send("x", 3)
        client.request("x", 4, timeout=30)
        assert got == [0, 1, 2, 3, 4]
        server.close()
        client.close()


def test_who_was_told_that_its_dispatcher_died_goes_on_with_the_next(
    bus_name: str, bus_process: BusProcess
) -> None:
    with shmbus.attach(bus_name, name="server") as server, shmbus.attach(bus_name) as client:
        server.handle("x", lambda message: message.payload)
        server.start()
        bus_process.kill()
        with pytest.raises(errors.BusDown):
            client.request("x", timeout=60)

        def answers() -> bool:
            try:
                return bool(client.request("x", 1, timeout=60).payload == 1)
            except errors.BusDown:
                return False

        with shmbus.serve(bus_name):
            eventually(answers)


@pytest.mark.smoke
def test_a_bus_that_is_handed_over_goes_on(bus_name: str) -> None:
    bus = shmbus.serve(bus_name)
    server = shmbus.attach(bus_name, name="server")
    client = shmbus.attach(bus_name, name="client")
    server.handle("x", lambda message: message.payload)
    server.start()
    client.request("x", timeout=30)
    bus.close(handover=True)
    client.send("x", "accepted meanwhile")
    with pytest.raises(errors.BusDown):
        client.request("x")
    with shmbus.serve(bus_name):
        assert client.request("x", "again", timeout=30).payload == "again"
        client.close()
        server.close()


def test_the_remedy_is_one_that_helps(bus_name: str) -> None:
    bus = shmbus.serve(bus_name)
    with bus.attach("one") as one, bus.attach("two", reconnect=True) as two:
        bus.close()
        for endpoint in (one, two):
            with pytest.raises(errors.BusDown) as caught:
                endpoint.publish("x")
            assert "it has been ended. Start it again" in str(caught.value)
            assert 'with reconnect="always" calls wait' in str(caught.value)
            assert "reconnect=True" not in str(caught.value)
    bus = shmbus.serve(bus_name)
    with bus.attach("one") as one:
        bus.close(handover=True)
        with pytest.raises(errors.BusDown, match="with reconnect=True calls wait for that"):
            one.request("x")


def answer(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("x", lambda message: message.payload)
    endpoint.run()


@pytest.mark.smoke
def test_an_orderly_restart_is_ridden_out_by_those_who_want_to(
    bus_name: str, bus_process: BusProcess, worker: StartWorker
) -> None:
    worker(answer, name="server", reconnect="always")
    goes = shmbus.attach(bus_name, name="goes", reconnect=True)
    goes.subscribe("x.>")
    with (
        shmbus.attach(bus_name, name="client", reconnect="always") as client,
        shmbus.observe(bus_name) as view,
    ):
        assert client.request("x", 1, timeout=60).payload == 1
        failed: list[errors.BusDown] = []

        def receive() -> None:
            try:
                goes.receive(60)
            except errors.BusDown as error:
                failed.append(error)

        thread = threading.Thread(target=receive)
        thread.start()
        eventually(lambda: next(e for e in view.endpoints() if e.name == "goes").receivers == 1)
        bus_process.stop()
        thread.join()
        assert "it has been ended" in str(failed[0])
        answers: list[object] = []
        asking = threading.Thread(
            target=lambda: answers.append(client.request("x", 2, timeout=60).payload)
        )
        asking.start()
        bus_process.start()
        asking.join()
        assert answers == [2]
        assert {e.name for e in view.endpoints()} == {"client", "server"}
        with pytest.raises(errors.BusDown, match="it has been ended"):  # and stays so
            goes.publish("x")
        goes.close()
        assert client.request("x", 3, timeout=60).payload == 3


@pytest.mark.parametrize("how", ["close", "exit"])
def test_the_last_who_stays_leaves_nothing(bus_name: str, how: str) -> None:
    code = """
        import sys, shmbus
        bus = shmbus.serve(sys.argv[1])
        endpoint = shmbus.attach(sys.argv[1], reconnect="always")
        other = shmbus.attach(sys.argv[1], reconnect="always")
        bus.close()
        other.close()
        assert shmbus.observe(sys.argv[1]).info().state == "handover"
        if sys.argv[2] == "close":
            endpoint.close()
    """
    assert run_python(code, bus_name, how) == ""
    assert in_shm(bus_name) == []


def test_the_last_who_stays_and_goes_as_the_bus_is_left_to_it_leaves_nothing(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = shmbus.serve(bus_name)
    endpoint = shmbus.attach(bus_name, reconnect="always")
    closing = threading.Thread(target=endpoint.close)
    waits = threading.Event()
    drop = Dispatcher._drop

    def pause(seconds: float) -> None:
        waits.set()
        time.sleep(seconds)

    def late(dispatcher: Dispatcher, *, unlink: bool) -> None:
        closing.start()
        eventually(lambda: waits.is_set() or not closing.is_alive())
        drop(dispatcher, unlink=unlink)

    monkeypatch.setattr(leavings, "time", SimpleNamespace(sleep=pause))
    monkeypatch.setattr(Dispatcher, "_drop", late)
    bus.close()
    closing.join()
    assert in_shm(bus_name) == []


def test_a_bus_is_not_left_to_the_last_who_stays_where_that_closes_first(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = shmbus.serve(bus_name)
    endpoint = shmbus.attach(bus_name, reconnect="always")
    closing = threading.Thread(target=endpoint.close)
    closes, ended = threading.Event(), threading.Event()
    dismiss, clear_up = Dispatcher._dismiss, Ending._clear_up

    def slow(ending: Ending, *, reclaimed: bool) -> None:
        closes.set()
        ended.wait(30)
        clear_up(ending, reclaimed=reclaimed)

    def late(dispatcher: Dispatcher) -> None:
        closing.start()
        closes.wait(30)
        dismiss(dispatcher)

    monkeypatch.setattr(Ending, "_clear_up", slow)
    monkeypatch.setattr(Dispatcher, "_dismiss", late)
    bus.close()
    ended.set()
    closing.join()
    assert in_shm(bus_name) == []


def test_the_last_to_go_after_a_dispatcher_was_killed_leaves_nothing(
    bus_name: str, bus_process: BusProcess
) -> None:
    one, two = shmbus.attach(bus_name, name="one"), shmbus.attach(bus_name, name="two")
    bus_process.kill()
    one.close()
    assert in_shm(bus_name) != []  # what "one" had sent is "two"'s
    two.close()
    assert in_shm(bus_name) == []


def test_who_leaves_as_the_bus_ends_and_another_knocks_leaves_nothing(
    bus_name: str, bus_process: BusProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(bus: str, last: Owner) -> None:
        bus_process.resume()
        bus_process.stop()
        remove_deserted(bus, last)

    slow = shmbus.attach(bus_name, name="slow")
    knocks = names.new_owner(os.getpid(), processes.start_time(os.getpid()))
    up = names.SHM / names.names_of(bus_name).up(knocks)
    up.touch(0o600)
    bus_process.pause()
    with monkeypatch.context() as patch:
        patch.setattr(ending, "CLOSING", 0.0)  # the dispatcher is too busy for it
        patch.setattr(ending, "remove_deserted", late)
        slow.close()
    up.unlink()  # it was not admitted
    assert in_shm(bus_name) == []


LOOKS = """
    import sys, time
    from shmbus.shared import fence
    assert fence.acquire(sys.argv[1]) is None
    print("looks")
    time.sleep(60)
"""


def test_the_last_to_go_waits_for_another_that_is_slow_to_look_for_what_is_left(
    bus_name: str, bus_process: BusProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = shmbus.attach(bus_name, name="last")
    bus_process.kill()
    with start_python(LOOKS, bus_name) as slow:
        assert slow.line() == "looks"
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if sum(pauses) > 1.0:
                slow.kill()

        monkeypatch.setattr(leavings, "time", SimpleNamespace(sleep=pause))
        last.close()
    assert in_shm(bus_name) == []


def test_a_process_waits_once_for_another_that_hangs_as_it_looks_for_what_is_left(
    bus_name: str, bus_process: BusProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, last = [shmbus.attach(bus_name) for _ in range(3)]
    bus_process.kill()
    pauses: list[float] = []
    with start_python(LOOKS, bus_name) as hangs:
        assert hangs.line() == "looks"
        monkeypatch.setattr(leavings, "time", SimpleNamespace(sleep=pauses.append))
        first.close()
        waited = len(pauses)
        second.close()
        assert len(pauses) == waited > 0
        hangs.kill()
    last.close()
    assert in_shm(bus_name) == []


@pytest.mark.usefixtures("bus")
def test_a_reconnect_that_is_none_is_refused(attach: Callable[..., shmbus.Endpoint]) -> None:
    with pytest.raises(errors.InvalidSetting, match="always"):
        attach("e", reconnect="sometimes")


def test_what_a_living_process_handed_over_is_served_by_another(bus_name: str) -> None:
    bus = shmbus.serve(bus_name)
    with shmbus.attach(bus_name, name="client", reconnect=True) as client:
        bus.close(handover=True)
        code = """
            import sys, shmbus
            with shmbus.serve(sys.argv[1]) as bus:
                print(bus.endpoints()[0].name)
        """
        assert run_python(code, bus_name) == "client\n"
        with pytest.raises(errors.BusDown):
            client.publish("x")
    assert in_shm(bus_name) == []
