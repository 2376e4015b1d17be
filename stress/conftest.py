"""Options and fixtures of the stress suite: `pytest stress -n auto`, and `--long` for the soak.

Each test gets a seed and prints it; `--seed` gives the same one again.
"""

from __future__ import annotations

import faulthandler
import random
from collections.abc import Iterator
from pathlib import Path

import crew
import pytest

import shmbus
from shmbus.testing import TIMEOUT, BusProcess, eventually, in_shm


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the soak: half an hour")
    parser.addoption("--seed", type=int, help="of every test; by default a fresh one each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        for item in items:
            item.add_marker(pytest.mark.timeout(3 * 3600))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test of the soak takes longer than pytest's `faulthandler_timeout`, and hangs no sooner
    than its own time limit says."""
    if item.config.getoption("--long"):
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether this is the soak."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of everything random in this test; printed, so that a failure can be repeated."""
    given = request.config.getoption("--seed")
    seed = random.SystemRandom().randrange(1 << 31) if given is None else int(given)
    print(f"--seed {seed}")
    return seed


@pytest.fixture
def chance(seed: int) -> random.Random:
    return random.Random(seed)


@pytest.fixture
def company(bus_process: BusProcess, tmp_path: Path) -> Iterator[crew.Crew]:
    """The processes of a test, and their ledgers."""
    company = crew.Crew(bus_process.name, tmp_path)
    yield company
    company.dismiss()


@pytest.fixture
def all_reclaimed(bus_process: BusProcess) -> crew.Reclaimed:
    """`all_reclaimed(*names)`: waits until no other endpoint is on the bus, not even a dead one:
    then all that the others sent has been forwarded or counted."""

    def wait(*names: str) -> None:
        with shmbus.observe(bus_process.name) as view:
            eventually(
                lambda: {e.name for e in view.endpoints()} <= set(names),
                f"only {names} are on the bus",
                timeout=2 * TIMEOUT,
            )
        eventually(
            lambda: sum(":down:" in file for file in in_shm(bus_process.name)) == len(names),
            "what the others left is removed",
        )

    return wait
