"""Queues of a test's own, and processes that use them."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import ForkServerProcess
from typing import Any, Protocol

import pytest

import shmbus
from shmbus.testing import TIMEOUT

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["shmbus", "tests.queues.users"])


class Start(Protocol):
    """The type of the fixture `start`."""

    def __call__(self, function: Callable[..., object], *arguments: Any) -> ForkServerProcess: ...


@pytest.fixture
def make(bus_name: str) -> Iterator[Callable[..., shmbus.JoinableQueue[Any]]]:
    """Makes queues, of which nothing may be left when the test has ended."""
    yield partial(shmbus.JoinableQueue, bus=bus_name)
    gc.collect()  # what tracebacks hold of them
    shmbus.Queue(bus=bus_name).close()  # which removes those whose last users were killed


@pytest.fixture
def start(make: object) -> Iterator[Start]:
    """Runs a function in a process of its own, which ends with the test at the latest."""
    started: list[ForkServerProcess] = []

    def start(function: Callable[..., object], *arguments: Any) -> ForkServerProcess:
        process = FORKSERVER.Process(target=function, args=arguments, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            process.kill()
    for process in started:
        process.join(TIMEOUT)
        process.close()
