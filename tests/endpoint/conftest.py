"""Each test has a bus of its own, and leaves nothing of it in /dev/shm."""

import itertools
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

import shmbus

_count = itertools.count()


def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until `condition()` is true; what it gave."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"{condition} is still {result!r}"
        time.sleep(0.001)
    return result


class Attach(Protocol):
    def __call__(self, name: str, **more: Any) -> shmbus.Endpoint: ...


class Spawn(Protocol):
    def __call__(self, code: str, **more: Any) -> "subprocess.Popen[str]": ...


@pytest.fixture
def name() -> Iterator[str]:
    """A bus name that nobody else uses; nothing of it may be left."""
    bus = f"t{os.getpid()}-{next(_count)}"
    yield bus
    left = [file for file in os.listdir("/dev/shm") if f":{bus}:" in file]
    for file in left:
        os.unlink(f"/dev/shm/{file}")
    assert left == []


@pytest.fixture
def bus(name: str) -> Iterator[shmbus.Bus]:
    with shmbus.serve(name) as bus:
        yield bus


@pytest.fixture
def attach(bus: shmbus.Bus) -> Iterator[Attach]:
    with ExitStack() as stack:
        yield lambda name, **more: stack.enter_context(shmbus.attach(bus.name, name=name, **more))


@pytest.fixture
def spawn(name: str) -> Iterator[Spawn]:
    """A Python process that runs `code`, where `NAME` is the bus's name. Reads its first line of
    output as the sign that it is ready."""
    children: list[subprocess.Popen[str]] = []

    def start(code: str, **more: Any) -> "subprocess.Popen[str]":
        head = f"import os, signal, sys, threading, time\nimport shmbus\nNAME = {name!r}\n"
        child = subprocess.Popen(
            [sys.executable, "-c", head + textwrap.dedent(code)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **more,
        )
        children.append(child)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line == "ready\n", line
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()
