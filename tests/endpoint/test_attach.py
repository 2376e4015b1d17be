"""Attaching: it waits for the bus, takes a name that is free, and leaves nothing when it fails."""

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import shmbus
from ringbuf import Segment
from shmbus import Message, errors
from shmbus.dispatcher import admission, succession
from shmbus.dispatcher import door as dispatcher_door
from shmbus.endpoint import attach as attaching
from shmbus.endpoint import door
from shmbus.endpoint.seat import DoorConnection
from shmbus.shared.layout import LAYOUT
from shmbus.shared.names import SHM, names_of, new_owner
from shmbus.shared.processes import start_time
from shmbus.testing import Attach, BusProcess, eventually, in_shm, run_python


@pytest.mark.smoke
def test_attaching_waits_for_the_bus_to_appear(bus_name: str) -> None:
    got: list[shmbus.Endpoint] = []
    thread = threading.Thread(target=lambda: got.append(shmbus.attach(bus_name, timeout=30)))
    thread.start()
    with shmbus.serve(bus_name):
        thread.join()
        got[0].close()


def test_the_environment_names_the_bus_where_the_call_does_not(
    bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shmbus.serve(f"{bus.name}-2") as other:
        monkeypatch.setenv("SHMBUS_BUS", "")
        for meant in (shmbus.attach, shmbus.observe):
            with pytest.raises(errors.NoSuchBus, match="SHMBUS_BUS") as several:
                meant()
            assert {bus.name, other.name} <= set(several.value.running)
        monkeypatch.setenv("SHMBUS_BUS", other.name)
        with (
            shmbus.attach() as endpoint,
            shmbus.attach(bus.name) as named,
            shmbus.observe() as seen,
        ):
            assert (endpoint.bus.name, named.bus.name) == (other.name, bus.name)
            assert seen.name == other.name
        monkeypatch.setenv("SHMBUS_BUS", "no bus")
        with pytest.raises(errors.InvalidName, match="SHMBUS_BUS in the environment names it"):
            shmbus.attach()
        monkeypatch.setenv("SHMBUS_BUS", f"{bus.name}-3")
        for unserved in (lambda: shmbus.attach(timeout=0.05), shmbus.observe):
            with pytest.raises(errors.BusError) as caught:
                unserved()
            assert isinstance(caught.value, errors.NoSuchBus | errors.AttachTimeout)
            assert caught.value.variable == "SHMBUS_BUS"
            assert "SHMBUS_BUS in the environment names it" in str(caught.value)
        with pytest.raises(errors.AttachTimeout) as caught:
            shmbus.attach(f"{bus.name}-3", timeout=0.05)
        assert "SHMBUS_BUS" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"types": [int]}, "Give a dict from patterns to types"),
        ({"types": "buffer.>"}, "Give a dict from patterns to types"),
        ({"settings": {"in_bytes": 4096}}, "Give shmbus.Settings("),
        ({"settings": 4096}, "Give shmbus.Settings("),
    ],
)
def test_an_argument_of_a_wrong_kind_is_named_with_what_to_give(
    bus: shmbus.Bus, wrong: dict[str, Any], remedy: str
) -> None:
    (name,) = wrong
    with pytest.raises(errors.InvalidSetting, match=f"^{name}=.* it is of type ") as caught:
        shmbus.attach(bus.name, **wrong)
    assert remedy in str(caught.value)
    if name == "settings":
        with pytest.raises(errors.InvalidSetting, match=r"Give shmbus\.Settings\("):
            shmbus.serve(f"{bus.name}-2", **wrong)
    assert bus.endpoints() == []


def test_arguments_of_a_wrong_kind_to_calls_are_named_with_what_to_give(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint: Any = attach("e")
    endpoint.handle("x", lambda message: None)
    view: Any = bus
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: shmbus.Settings(batch=256), "Give shmbus.BatchLimits("),  # type: ignore[arg-type]
        (lambda: endpoint.handle("y", print, limit="5"), "Give the seconds"),
        (lambda: endpoint.handle(lambda message: None), "Use a message type"),
        (lambda: endpoint.subscribe("y", print, limit="5"), "Give the seconds"),
        (lambda: endpoint.publish_many(["y"]), "Give pairs of type and payload"),
        (lambda: endpoint.publish_many([("y", 1, 2)]), "Give pairs of type and payload"),
        (lambda: list(endpoint.request_many(["y"])), "Give pairs of type and payload"),
        (lambda: endpoint.request_many([], window="1"), "Give at least 1"),
        (lambda: endpoint.run(threads="2"), "Give at least 1"),
        (lambda: view.route(5), "Use tokens"),
    ]
    for call, remedy in wrong:
        with pytest.raises(errors.UsageError) as caught:
            call()
        assert remedy in str(caught.value)


@pytest.mark.slow
def test_attaching_outlasts_buses_that_end_and_begin(bus_name: str) -> None:
    ended = threading.Event()
    failed: list[Exception] = []

    def attach() -> None:
        try:
            while not ended.is_set():
                shmbus.attach(bus_name, timeout=60).close()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=attach) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(200):
        with shmbus.serve(bus_name):
            ended.wait(0.001 * (i % 4))
    with shmbus.serve(bus_name):
        ended.set()
        for thread in threads:
            thread.join()
    assert failed == []


def test_attaching_outlasts_a_bus_that_ends_while_the_next_is_being_made(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    knock, await_bus = door.knock, attaching._await_bus
    buses = [shmbus.serve(bus_name)]

    def knock_in_vain(*given: Any, **more: Any) -> door.Admission:
        monkeypatch.setattr(door, "knock", knock)
        monkeypatch.setattr(attaching, "_await_bus", await_next)
        admission = knock(*given, **more)
        buses[0].close()
        unfinished = SHM / names_of(bus_name).bus_segment
        unfinished.touch(0o600)
        os.truncate(unfinished, 4096)
        return admission

    def await_next(*given: Any) -> Segment:
        buses.append(shmbus.serve(bus_name))
        return await_bus(*given)

    monkeypatch.setattr(door, "knock", knock_in_vain)
    shmbus.attach(bus_name, timeout=60).close()
    buses[1].close()


def test_no_bus_in_time(bus_name: str) -> None:
    with pytest.raises(errors.AttachTimeout) as caught:
        shmbus.attach(bus_name, timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.bus, caught.value.seconds, caught.value.pid) == (bus_name, 0.05, None)


def test_a_dispatcher_that_does_not_answer_is_named(bus_process: BusProcess) -> None:
    bus_process.pause()
    with pytest.raises(errors.AttachTimeout) as caught:
        shmbus.attach(bus_process.name, timeout=0.2)
    assert caught.value.pid == bus_process.pid
    bus_process.resume()
    shmbus.attach(bus_process.name, timeout=30).close()


@pytest.mark.smoke
def test_no_two_endpoints_of_a_bus_have_the_same_generation(
    bus: shmbus.Bus, attach: Attach
) -> None:
    """By slot and generation a process is known to the others, also when it has gone."""
    given: list[int] = []
    for name in ("a", "b", "c"):
        endpoint = attach(name)
        given.append(bus.endpoints()[0].generation)
        endpoint.close()
    attach("d")
    attach("e")
    given += [endpoint.generation for endpoint in bus.endpoints()]
    assert given == sorted(set(given))
    assert len(given) == 5


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
    monkeypatch.setattr(admission, "_PATIENCE", 0.0)  # it is over at the first try
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


def test_the_name_of_one_that_drains_is_not_given_away(bus: shmbus.Bus, attach: Attach) -> None:
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
    with pytest.raises((errors.NameTaken, errors.AttachTimeout)):
        shmbus.attach(bus.name, name="worker", timeout=0.2)
    go.set()
    drain.join()
    attach("worker")


def test_who_gives_another_start_time_than_its_own_is_not_admitted(
    bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its segment bears a name that no living process can have, and would be cleared away meanwhile.
    monkeypatch.setattr(succession, "clear_dead", lambda bus, admitted: None)
    pid, of = os.getpid(), names_of(bus.name)
    forged = new_owner(pid, start_time(pid) + 1)  # as one that has a dead process's pid would have
    settings = shmbus.Settings()
    now = time.monotonic_ns()
    knock = functools.partial(
        door.knock,
        bus.name,
        DoorConnection(),
        began_ns=now,
        deadline_ns=now + 60 * 10**9,
        start_time=forged.start,
    )
    with attaching._make_up_segment(
        of, forged, "forged", settings, attaching._Limits(1, 0, 0), stays=False
    ):
        with pytest.raises(errors.Refused, match="another process"):
            knock(nonce=int(forged.nonce, 16))
    assert bus.endpoints() == []


def test_another_user_is_not_admitted() -> None:
    me = new_owner(os.getpid(), start_time(os.getpid()))
    caller = dispatcher_door.Caller(me, LAYOUT, os.geteuid() + 1, None)
    with pytest.raises(admission.Denied, match=f"uid {os.geteuid() + 1} is not this bus's user"):
        admission.check_caller(caller)
    admission.check_caller(caller._replace(uid=os.geteuid()))


@pytest.mark.parametrize(
    "setting",
    [
        {"max_endpoints": 3},
        {"block_timeout": 3.0},
        {"stall_after": 3.0},
        {"backlog_bytes": 4096},
        {"max_deliveries": 3},
        {"batch_per_pass": 3},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_setting_of_the_bus_alone_is_refused_of_an_endpoint_unless_it_is_the_bus_s(
    bus_name: str, setting: dict[str, Any]
) -> None:
    settings = shmbus.Settings(**setting)
    with shmbus.serve(bus_name) as bus, pytest.raises(errors.InvalidSetting) as caught:
        bus.attach("e", settings=settings)
    assert "Give it to serve(settings=)" in str(caught.value)
    assert caught.value.setting == next(iter(setting))
    with shmbus.serve(bus_name, settings=settings) as bus:
        bus.attach("e", settings=settings).close()


def test_a_full_bus_says_so(bus_name: str) -> None:
    with (
        shmbus.serve(bus_name, settings=shmbus.Settings(max_endpoints=1)),
        shmbus.attach(bus_name),
        pytest.raises(errors.BusFull) as caught,
    ):
        shmbus.attach(bus_name)
    assert caught.value.limit == 1


def test_a_fault_of_the_dispatcher_s_own_refuses_who_attaches_instead_of_letting_him_wait(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> int:
        raise ValueError("a fault that nobody foresaw")

    with monkeypatch.context() as patched:
        patched.setattr(admission, "choose_slot", fail)
        with pytest.raises(errors.Refused, match="a fault that nobody foresaw"):
            shmbus.attach(bus.name, name="worker", timeout=60.0)
    assert attach("worker").name == "worker"


def test_names_are_made_up_where_none_is_given(bus: shmbus.Bus) -> None:
    with shmbus.attach(bus.name) as one, bus.attach() as two:
        assert one.name != two.name
        assert {info.name for info in bus.endpoints()} == {one.name, two.name}


@pytest.mark.parametrize("wrong", ["", "a b", "a:b", "x" * 49])
def test_wrong_names_are_refused(bus: shmbus.Bus, wrong: str) -> None:
    with pytest.raises(errors.InvalidName):
        bus.attach(wrong)


def test_nothing_is_left_of_an_attach_that_fails(bus_name: str) -> None:
    with shmbus.serve(bus_name, settings=shmbus.Settings(max_endpoints=1)):
        with shmbus.attach(bus_name):
            before = in_shm(bus_name)
            with pytest.raises(errors.BusFull):
                shmbus.attach(bus_name)
            assert in_shm(bus_name) == before


def test_a_program_that_ends_while_a_thread_of_it_knocks_leaves_nothing(bus_name: str) -> None:
    code = """
        import sys, threading
        import shmbus
        from shmbus.endpoint import door

        bus, knock, knocks = shmbus.serve(sys.argv[1]), door.knock, threading.Event()

        def late(*arguments, **named):
            bus.close()
            knocks.set()
            return knock(*arguments, **named)

        door.knock = late
        threading.Thread(target=shmbus.attach, args=(bus.name,), daemon=True).start()
        knocks.wait()
    """
    assert run_python(code, bus_name) == ""
    assert in_shm(bus_name) == []


def test_a_program_that_ends_while_a_thread_of_it_makes_names_leaves_nothing(bus_name: str) -> None:
    code = """
        import atexit, sys, threading
        begins, exited, over = threading.Event(), threading.Event(), threading.Event()

        def after_all():
            exited.set()
            over.wait()

        atexit.register(after_all)  # before shmbus registers its own, and so called after that
        import shmbus
        from shmbus.endpoint import door
        from shmbus.shared.names import BusNames

        bus, endpoint_bell = shmbus.serve(sys.argv[1]), BusNames.endpoint_bell

        def slow(self, owner):
            begins.set()
            exited.wait()
            return endpoint_bell(self, owner)

        def knock(*arguments, **named):
            over.set()
            threading.Event().wait()

        def attach():
            try:
                shmbus.attach(bus.name)
            finally:
                over.set()

        BusNames.endpoint_bell, door.knock = slow, knock
        threading.Thread(target=attach, daemon=True).start()
        begins.wait()
        bus.close()
    """
    assert run_python(code, bus_name) == ""
    assert in_shm(bus_name) == []


def test_a_program_that_ends_while_a_thread_of_it_gives_up_attaching_leaves_nothing(
    bus_name: str,
) -> None:
    code = """
        import sys, threading
        import shmbus
        from shmbus.endpoint import attach, door

        bus, unlink, undoes = shmbus.serve(sys.argv[1]), attach.unlink, threading.Event()

        def slow(name):
            if threading.current_thread() is not threading.main_thread():
                undoes.set()
                threading.Event().wait()
            unlink(name)

        def knock(*arguments, **named):
            raise shmbus.errors.BusFull(bus=bus.name, limit=0)

        attach.unlink, door.knock = slow, knock
        threading.Thread(target=shmbus.attach, args=(bus.name,), daemon=True).start()
        undoes.wait()
        bus.close()
    """
    assert run_python(code, bus_name) == ""
    assert in_shm(bus_name) == []
