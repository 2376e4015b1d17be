"""A dispatcher embedded in a host whose Python never pauses: it needs none to forward, and none to
tell of a death."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import TIMEOUT, StartWorker

pytestmark = pytest.mark.slow

Flags = mmap.mmap

GO, DONE = 0, 1  # bytes of a page that host and workers share; reading it needs no lock of the host


def page(path: str) -> Flags:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), mmap.PAGESIZE)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    path = tmp_path / "flags"
    path.write_bytes(bytes(mmap.PAGESIZE))
    return path


def compute_until_done(flags: Flags) -> bool:
    """Pure Python that no other thread of the host interrupts; whether the workers were done."""
    interval = sys.getswitchinterval()
    end = time.monotonic() + TIMEOUT
    sys.setswitchinterval(10 * TIMEOUT)
    try:
        flags[GO] = 1
        while not flags[DONE] and time.monotonic() < end:
            pass
        return bool(flags[DONE])
    finally:
        sys.setswitchinterval(interval)


def await_go(flags: Flags) -> None:
    while not flags[GO]:
        time.sleep(0.001)


def echo(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("echo.*", lambda message: message.payload)
    endpoint.run()


def ask_for_ever_new_types(endpoint: shmbus.Endpoint, path: str) -> int:
    flags = page(path)
    endpoint.wait_for("echo.*", timeout=TIMEOUT)
    await_go(flags)
    right = 0
    for n in range(300):
        right += endpoint.request(f"echo.{n}", n, timeout=TIMEOUT).payload == n
    flags[DONE] = 1
    return right


def test_types_never_seen_before_are_routed_beside_a_busy_host(
    bus: shmbus.Bus, worker: StartWorker, shared: Path
) -> None:
    worker(echo, name="server")
    asker = worker(ask_for_ever_new_types, str(shared), name="asker")
    assert compute_until_done(page(str(shared)))
    assert asker.result() == 300


def die_over_it(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("die", lambda message: os.kill(os.getpid(), signal.SIGKILL))
    endpoint.run()


def ask_who_dies(endpoint: shmbus.Endpoint, path: str) -> list[str]:
    flags = page(path)
    endpoint.subscribe("$bus.endpoint.down")
    endpoint.wait_for("die", timeout=TIMEOUT)
    await_go(flags)
    try:
        endpoint.request("die", timeout=TIMEOUT)
        ended = "with a reply"
    except errors.EndpointDied as error:
        ended = error.endpoint
    down = endpoint.receive(TIMEOUT)
    flags[DONE] = 1
    return [ended, down.payload["name"] if down is not None else "nobody"]


def test_a_death_is_told_beside_a_busy_host(
    bus: shmbus.Bus, worker: StartWorker, shared: Path
) -> None:
    worker(die_over_it, name="victim")
    asker = worker(ask_who_dies, str(shared), name="asker")
    assert compute_until_done(page(str(shared)))
    assert asker.result() == ["victim", "victim"]
