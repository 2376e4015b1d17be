"""Each test has a bus of its own, and leaves nothing of it in /dev/shm."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

import shmbus
from shmbus.testing import TIMEOUT
from shmbus.testing import eventually as eventually


class Attach(Protocol):
    def __call__(self, name: str, **more: Any) -> shmbus.Endpoint: ...


class Spawn(Protocol):
    def __call__(self, code: str, **more: Any) -> "subprocess.Popen[str]": ...


@pytest.fixture
def name(bus_name: str) -> str:
    return bus_name


@pytest.fixture
def attach(bus: shmbus.Bus) -> Iterator[Attach]:
    with ExitStack() as stack:

        def attach(name: str, **more: Any) -> shmbus.Endpoint:
            more.setdefault("timeout", TIMEOUT)
            return stack.enter_context(shmbus.attach(bus.name, name=name, **more))

        yield attach


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
