"""A mailbox in C, without Python, under the sanitizers."""

from collections.abc import Callable

import pytest

Build = Callable[[str, str], Callable[..., None]]


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address", "undefined", "plain"])
def test_what_is_taken_while_it_is_written_over_is_whole_and_the_newest(
    build: Build, sanitizer: str
) -> None:
    run = build("mailbox_stress.c", sanitizer)
    messages = 60_000 if sanitizer == "plain" else 20_000  # sanitizers are slow
    for seed in (1, 2):
        run(messages, seed)
