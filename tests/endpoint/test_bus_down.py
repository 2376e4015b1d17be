"""The bus ends, is handed over, or its dispatcher is killed: what its endpoints see of it."""

import os
import subprocess
import sys
import threading

import pytest

import shmbus
from shmbus import Message, errors

from .conftest import Spawn, eventually


def files(bus: str) -> list[str]:
    return [file for file in os.listdir("/dev/shm") if f":{bus}:" in file]


SERVE = "bus = shmbus.serve(NAME)\nprint('ready', flush=True)\nsys.stdin.read()\nbus.close()"


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


@pytest.mark.smoke
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


@pytest.mark.smoke
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


def run(code: str, name: str) -> "subprocess.CompletedProcess[str]":
    head = f"import os, signal, sys, threading, time\nimport shmbus\nNAME = {name!r}\n"
    return subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, timeout=60, check=False
    )
