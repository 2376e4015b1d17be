"""An executor for all tests that do not need one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shmbus
from shmbus.testing import no_leavings
from shmbus.testing.leavings import fail_for, of_this_process

_shared: list[str] = []  # the name of its pool


@pytest.fixture(scope="session")
def executor() -> Iterator[shmbus.Executor]:
    """With two workers. Whoever uses it leaves it able to work."""
    with shmbus.Executor(2) as executor:
        _shared.append(executor.name)
        with no_leavings(f"pool-{executor.name}"):
            yield executor
            executor.shutdown()


@pytest.fixture(autouse=True)
def _shmbus_leak_check() -> Iterator[None]:
    """That of the others, but for the bus of that executor, whose workers come and go."""
    before = of_this_process()
    yield
    left = of_this_process() - before
    for name in _shared:
        left = {file for file in left if f":pool-{name}:" not in file}
    fail_for(left, "this test left in /dev/shm")
