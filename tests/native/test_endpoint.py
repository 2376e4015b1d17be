"""An endpoint's waiting, sending and taking in C alone, many threads on tiny rings, under the
sanitizers."""

from collections.abc import Callable

import pytest

Build = Callable[[str, str], Callable[..., None]]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address", "undefined", "plain"])
def test_each_thread_gets_its_own_and_no_wake_up_is_lost(build: Build, sanitizer: str) -> None:
    run = build("endpoint_stress.c", sanitizer)
    for seed in (1, 2, 3, 4):
        run(1000, seed)
