"""A queue in C, without Python, under the sanitizers."""

from collections.abc import Callable

import pytest

Build = Callable[[str, str], Callable[..., None]]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address", "undefined", "plain"])
def test_messages_come_once_and_in_order_and_nobody_waits_for_the_stopped(
    build: Build, sanitizer: str
) -> None:
    run = build("queue_stress.c", sanitizer)
    for maxsize in (0, 5):
        run(20_000 if sanitizer == "plain" else 5_000, maxsize)
