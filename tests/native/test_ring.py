"""Ring and bell in C, without Python, under the sanitizers."""

from collections.abc import Callable

import pytest

Build = Callable[[str, str], Callable[..., None]]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address", "undefined", "plain"])
def test_nothing_is_lost_torn_or_slept_through_between_two_threads(
    build: Build, sanitizer: str
) -> None:
    run = build("ring_stress.c", sanitizer)
    for seed in (1, 2):
        run(60_000, seed)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "undefined"])
def test_garbage_never_leads_outside_the_ring(build: Build, sanitizer: str) -> None:
    build("ring_fuzz.c", sanitizer)(100_000, 1)
