"""An evicted endpoint is dead for others, and its own calls raise Evicted."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import (
    Attach,
    MakeRecorder,
    eventually,
    kill,
    start_python,
)
from tests.kept import Kept


def test_an_evicted_endpoint_is_dead_to_others_and_told_so_itself(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    downs = recorder("$bus.endpoint.down")
    victim, caller = attach("victim"), attach("caller")
    victim.handle("ask", Kept())
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


@pytest.mark.smoke
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


HOST = """
    import shmbus, signal, sys

    settings = shmbus.Settings(block_timeout=600)
    with shmbus.serve(sys.argv[1], settings=settings) as bus:
        signal.signal(signal.SIGUSR1, lambda *_: bus.evict("victim"))
        print("serves")
        while True:
            signal.pause()
    """


def is_evicted(endpoint: shmbus.Endpoint) -> bool:
    try:
        endpoint.publish("nothing")
    except errors.Evicted:
        return True
    return False


def test_what_it_had_goes_on_though_it_closes_and_its_dispatcher_is_killed_meanwhile(
    bus_name: str,
) -> None:
    small = shmbus.Settings(in_bytes=4096)
    with start_python(HOST, bus_name) as host:
        host.line()
        victim = shmbus.attach(bus_name, name="victim", reconnect=True)
        other = shmbus.attach(bus_name, name="other", reconnect=True, settings=small)
        sender = shmbus.attach(bus_name, name="sender", reconnect=True)
        done = list[str]()
        victim.handle("job", print)  # no thread of it does
        sender.send("job", "work")
        eventually(lambda: victim.bus.find("job")[0].untouched == 1)
        other.subscribe("x", lambda message: None)
        other.handle("job", lambda message: done.append(message.payload))
        for _ in range(8):  # more than the other's ring takes
            sender.publish("x", bytes(950))
        eventually(lambda: victim.bus.find("x")[0].incoming.fill > 0.95)
        os.kill(host.pid, signal.SIGUSR1)
        eventually(lambda: is_evicted(victim))
        victim.close()  # while its message waits for space
        kill(host.pid)
    with shmbus.serve(bus_name), other, sender:
        other.start()
        eventually(lambda: done == ["work"])
