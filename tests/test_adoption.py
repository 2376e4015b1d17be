"""A dispatcher that adopts a bus sees of its guests what the one before it saw."""

import signal
import subprocess
import sys

import pytest

import shmbus
from shmbus.testing import eventually

SERVE = """
import signal, shmbus
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}})
with shmbus.serve({name!r}):
    print("serving", flush=True)
    signal.sigwait({{signal.SIGTERM}})
"""

GUEST = """
import os, sys, shmbus
endpoint = shmbus.attach({name!r}, name="guest", reconnect=True, timeout=60)
endpoint.subscribe("go.on")
print("attached", flush=True)
while endpoint.receive(timeout=60) is None:
    pass
print("goes", flush=True)
os.execv("/bin/sleep", ["sleep", "60"])
"""


GONE = """
import os, shmbus
endpoint = shmbus.attach({name!r}, name="guest", timeout=60)
endpoint.subscribe("go.on")
print("attached", flush=True)
try:
    endpoint.receive(timeout=60)
except shmbus.BusDown:
    os.execv("/bin/sh", ["sh", "-c", "echo gone; exec sleep 60"])
"""


def start(script: str, name: str, says: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script.format(name=name)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{says}\n"
    return process


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
def test_an_endpoint_that_calls_exec_while_nobody_serves_is_seen_to_be_gone(bus_name: str) -> None:
    first = start(SERVE, bus_name, "serving")
    guest = start(GONE, bus_name, "attached")
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert guest.stdout is not None
        assert guest.stdout.readline() == "gone\n"
        with shmbus.serve(bus_name) as bus:
            eventually(lambda: not bus.endpoints())
            assert guest.poll() is None
    finally:
        end(first, guest)


@pytest.mark.slow
def test_an_adopted_endpoint_that_calls_exec_is_seen_to_be_gone(bus_name: str) -> None:
    name = bus_name
    first = start(SERVE, name, "serving")
    guest = start(GUEST, name, "attached")
    try:
        first.send_signal(signal.SIGKILL)
        first.wait()
        with shmbus.serve(name) as bus, bus.attach("watcher", timeout=60) as watcher:
            watcher.subscribe("$bus.endpoint.down")
            watcher.wait_for("go.on", timeout=60)
            watcher.publish("go.on")
            down = watcher.receive(timeout=60)
            assert down is not None
            assert (down.payload["name"], down.payload["reason"]) == ("guest", "exec")
            assert guest.poll() is None
    finally:
        end(first, guest)
