import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ringbuf import Consumer, Producer

from .rings import CAPACITY

Run = Callable[..., str]


def ours(name: str) -> list[str]:
    return [entry for entry in os.listdir("/dev/shm") if name in entry]


@pytest.fixture
def name() -> Iterator[str]:
    """A name that nobody else has, of which nothing is left afterwards."""
    unique = f"ringbuf-{os.getpid()}-{secrets.token_hex(4)}"
    yield unique
    left = ours(unique)
    for entry in left:
        os.unlink(f"/dev/shm/{entry}")
    assert left == []


@pytest.fixture
def python() -> Run:
    """Run Python code in a process of its own and give what it printed.

    It must succeed and, if it is to be `quiet`, say nothing on standard error.
    """

    def run(code: str, *arguments: object, before: tuple[str, ...] = (), quiet: bool = True) -> str:
        command = [*before, sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert not quiet or done.stderr == ""
        return done.stdout

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python code in a process of its own; killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def producer(name: str) -> Iterator[Producer]:
    with Producer.create(name, CAPACITY) as producer:
        yield producer


@pytest.fixture
def consumer(name: str, producer: Producer) -> Iterator[Consumer]:
    with Consumer.attach(name) as consumer:
        yield consumer
