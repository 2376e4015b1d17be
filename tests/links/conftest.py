"""What tests of links share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.links.stage import Stage


@pytest.fixture
def stage(bus_name: str) -> Iterator[Stage]:
    """Sites of the test's own; all of them end with it."""
    with Stage(bus_name) as stage:
        yield stage
