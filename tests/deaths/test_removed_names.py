"""Others remove names of a bus from /dev/shm: those attached go on, an attach gets an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import shmbus
from shmbus import errors
from shmbus.shared import names
from shmbus.testing import (
    Attach,
    BusProcess,
    eventually,
    in_shm,
)
from shmbus.views import doctor, leavings
from tests.kept import Kept

SHM = Path("/dev/shm")


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
    assert waiting.receive(0.1) is None  # the next dispatcher might find it
    bus_process.start()
    with pytest.raises(errors.BusDown) as caught:
        waiting.receive(60)
    assert "removed its names" in caught.value.reason
    with pytest.raises(errors.BusDown):
        waiting.publish("x")
    attach("waiting").publish("x")


@pytest.mark.parametrize("timeout", [0.0, 0.1])  # with and without time for an answer at the door
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
    name = getattr(victim._seat.names, removed)(victim._seat.owner)
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


def test_what_was_published_waits_for_interests_that_cannot_be_read_yet(
    bus_process: BusProcess, attach: Attach
) -> None:
    reader, sender = attach("reader", reconnect=True), attach("sender", reconnect=True)
    reader.subscribe("x")
    bus_process.kill()
    sender.publish("x", "meanwhile")
    log = SHM / reader._seat.names.interests(reader._seat.owner, 1)
    away = log.rename(log.with_suffix(".away"))
    with shmbus.serve(bus_process.name), reader, sender:
        away.rename(log)
        message = reader.receive(10)
        assert message is not None
        assert message.payload == "meanwhile"


@pytest.mark.slow
def test_interests_that_can_never_be_read_keep_nobody_waiting_for_ever(
    bus_process: BusProcess, attach: Attach
) -> None:
    gone = attach("gone", reconnect=True)
    reader, sender = attach("reader", reconnect=True), attach("sender", reconnect=True)
    gone.subscribe("y")
    reader.subscribe("x")
    bus_process.kill()
    (SHM / gone._seat.names.interests(gone._seat.owner, 1)).unlink()
    with shmbus.serve(bus_process.name), gone, reader, sender:
        sender.publish("x")
        assert reader.receive(60) is not None


def test_a_request_at_one_whose_name_was_removed_ends_with_the_next_dispatcher(
    bus_process: BusProcess, attach: Attach
) -> None:
    victim, caller = attach("victim", reconnect=True), attach("caller", reconnect=True)
    victim.handle("hang", Kept())
    victim.start()
    caller.wait_for("hang")
    reply = caller.request_async("hang", timeout=600)
    eventually(lambda: caller.bus.find("hang")[0].in_hand == 1)
    bus_process.kill()
    (SHM / victim._seat.names.up(victim._seat.owner)).unlink()
    bus_process.start()
    with pytest.raises(errors.EndpointDied):
        reply.result(60)
