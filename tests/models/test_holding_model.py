"""What a killed receiver had in hand is told apart, at whatever step it is killed."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .holding import holding

WRONG: dict[str, dict[str, Any]] = {
    "taken moves before the message is held": {"held_before_taken": False},
    "an entry used again still names the one before": {"entry_is_freed_when_done": False},
    "surfaced before it is taken": {"taken_before_surfaced": False},
    "marked done before the work is": {"done_is_marked_after_the_work": False},
    "the tail passes over what is held": {"tail_waits_for_the_held": False},
    "held is asked before untouched": {"untouched_is_asked_first": False},
}


def test_untouched_begun_and_done_are_told_apart() -> None:
    found = explore(holding())
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_to_hold_is_found_out(how: str) -> None:
    found = explore(holding(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
