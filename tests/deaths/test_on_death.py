"""`on_death`: called once for each death, of whatever kind and at whatever time."""

from __future__ import annotations

import os
import threading

import pytest

import shmbus
from shmbus import Death
from shmbus.endpoint import deaths as watching
from shmbus.testing import (
    Attach,
    BusProcess,
    StartWorker,
    eventually,
)

from .roles import echo


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
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    me = attach("me")
    deaths: list[Death] = []
    closed: list[Death] = []
    first = worker(echo, name="phoenix")
    me.on_death("phoenix", deaths.append)
    me.on_death("phoenix", closed.append).close()
    first.kill()
    for _ in range(3):
        worker(echo, name="phoenix").kill()
    last: list[Death] = []
    me.on_death("phoenix", last.append)
    eventually(lambda: last)
    assert [death.pid for death in deaths] == [first.pid]
    assert closed == []


def test_on_death_may_close_the_endpoint_that_waits(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    victim = worker(echo, name="victim")
    me, closed = attach("me"), threading.Event()

    def mourn(death: Death) -> None:
        me.close()
        closed.set()

    me.on_death("victim", mourn)
    victim.kill()
    assert closed.wait(60)
    attach("me")


def test_on_death_fires_once_though_nobody_served_when_it_died(
    bus_process: BusProcess, attach: Attach, worker: StartWorker
) -> None:
    victim = worker(echo, name="victim")
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


@pytest.mark.smoke
def test_on_death_is_told_of_each_end_once(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    watcher, closing = attach("watcher"), attach("closing")
    victim = worker(echo, name="victim")
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


@pytest.mark.bus(max_endpoints=2)
def test_on_death_is_told_though_another_has_the_slot_already(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "POLL", 0.5)
    me, victim = attach("me"), attach("victim")
    deaths: list[Death] = []
    me.on_death("victim", deaths.append)
    victim.close()
    attach("newcomer")
    eventually(lambda: deaths)
    assert deaths[0].name == "victim"
