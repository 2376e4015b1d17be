"""Deaths while all are asked: of one of them, and of the dispatcher."""

from __future__ import annotations

import threading
from typing import Literal

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.testing import Attach, BusProcess, MakeRecorder, StartWorker, eventually
from tests.kept import Kept

from .roles import take_and_hang

Results = dict[str, Message | errors.BusError]


def ask(asker: shmbus.Endpoint, found: list[Results | errors.BusError]) -> threading.Thread:
    """Another thread that asks all."""

    def gather() -> None:
        try:
            found.append(asker.gather("ask", timeout=60))
        except errors.BusError as why:
            found.append(why)

    thread = threading.Thread(target=gather)
    thread.start()
    return thread


def outcome(found: Results | errors.BusError) -> dict[str, object]:
    assert isinstance(found, dict), found
    return {
        name: type(one) if isinstance(one, errors.BusError) else one.payload
        for name, one in found.items()
    }


@pytest.mark.smoke
def test_one_that_dies_of_it_is_told_apart_at_once_and_the_others_reply(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, living = recorder("begun"), attach("living")
    victim = worker(take_and_hang, "ask", None, name="victim")
    living.handle("ask", lambda message: "here")
    living.start()
    asker = attach("asker")
    asker.wait_for("ask", receivers=2)
    found: list[Results | errors.BusError] = []
    asking = ask(asker, found)
    begun.wait()
    victim.kill()
    asking.join(60)
    assert outcome(found[0]) == {"living": "here", "victim": errors.EndpointDied}
    assert isinstance(found[0], dict)
    died = found[0]["victim"]
    assert isinstance(died, errors.EndpointDied)
    assert (died.endpoint, died.begun) == ("victim", True)


@pytest.mark.parametrize("reconnect", [False, "always"])
def test_the_dispatcher_dies_before_it_has_said_whom_to_ask(
    bus_process: BusProcess, attach: Attach, reconnect: Literal[False, "always"]
) -> None:
    server, asker = attach("server", reconnect=True), attach("asker", reconnect=reconnect)
    server.handle("ask", lambda message: "here")
    server.start()
    bus_process.pause()
    found: list[Results | errors.BusError] = []
    asking = ask(asker, found)
    eventually(lambda: asker.bus.requests("asker"))
    bus_process.kill()
    if reconnect:
        bus_process.start()
    asking.join(60)
    if reconnect:
        assert outcome(found[0]) == {"server": "here"}
    else:
        assert isinstance(found[0], errors.BusDown)


def test_the_dispatcher_dies_while_they_are_at_work_and_the_next_one_brings_their_replies(
    bus_process: BusProcess, attach: Attach
) -> None:
    kept, asker = Kept(), attach("asker", reconnect="always")
    for name in ("a", "b"):
        server = attach(name, reconnect=True)
        server.handle("ask", kept)
        server.start()
    found: list[Results | errors.BusError] = []
    asking = ask(asker, found)
    eventually(lambda: len(kept) == 2)
    bus_process.kill()
    kept[0].reply("before")
    bus_process.start()
    kept[1].reply("after")
    asking.join(60)
    assert sorted(map(str, outcome(found[0]).values())) == ["after", "before"]
