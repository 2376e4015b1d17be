"""Whoever becomes free gets what waits, and nobody more than may be; and the model would notice."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .work import work

TWO: dict[str, Any] = {"endpoints": "ab", "waiting": 3}
THREADS: dict[str, Any] = {"threads": 2, "waiting": 3}
KILLED: dict[str, Any] = {"waiting": 2, "kills": 1}
TWO_AT_ONE: dict[str, Any] = {"prefetch": 2, "waiting": 3}
QUICK: dict[str, Any] = {"prefetch": 2, "waiting": 3, "clock": 1}
FOUND_BUSY: dict[str, Any] = {"prefetch": 3, "threads": 2, "waiting": 3}
HUNG: dict[str, Any] = {**FOUND_BUSY, "hangs": True}

EVERYTHING_GOES_WELL: dict[str, dict[str, Any]] = {
    "one endpoint": {"waiting": 3},
    "one endpoint that may have two": TWO_AT_ONE,
    "one endpoint, some come later": {"waiting": 1, "later": 2},
    "two endpoints": TWO,
    "two endpoints, one comes later": {**TWO, "waiting": 2, "later": 1},
    "two threads": THREADS,
    "a killed dispatcher": KILLED,
    "a killed dispatcher, two at an endpoint": {**TWO_AT_ONE, "kills": 1},
    "a killed dispatcher, two endpoints": {**TWO, "waiting": 2, "kills": 1},
    "one that has finished some lately": QUICK,
    "messages that never end, two endpoints": {**TWO, "waiting": 2, "hangs": True},
    "messages that never end, two threads": HUNG,
}

WRONG: dict[str, dict[str, Any]] = {
    "what is untouched is not bound": {**FOUND_BUSY, "untouched_are_bound": False},
    "in hand after taken": {"in_hand_before_taken": False},
    "work counts as done when it is taken": {
        "prefetch": 3,
        "waiting": 3,
        "done_when_it_is_done": False,
    },
    "in hand is read before taken": {"taken_read_before_in_hand": False},
    "no fence with the last taken": {**HUNG, "fence_with_the_last_taken": False},
    "no look with the last taken": {**HUNG, "looks_when_taken": False},
    "no fence when one is done": {"fence_when_done": False},
    "no look when one is done": {"looks_when_done": False},
    "no fence at the dispatcher": {"dispatcher_fence": False},
    "no second look": {"second_look": False},
    "only the first is asked": {**TWO, "hangs": True, "all_are_asked": False},
    "every question is the same": {"waiting": 3, "each_question_is_new": False},
    "rung once for ever": {"waiting": 3, "rung_once_for": "ever"},
    "rung once for what was delivered": {**FOUND_BUSY, "rung_once_for": "what was delivered"},
    "not asked again when it is not free": {**FOUND_BUSY, "asked_again_when_not_free": False},
    "the question ends after the drain": {"waiting": 3, "question_ends": "after the drain"},
    "what was delivered is not counted anew": {
        **KILLED,
        "delivered_is_counted_by_the_next": False,
    },
    "the next dispatcher does not drain": {**KILLED, "the_next_drains": False},
}
SLOW = {
    "no fence with the last taken",
    "no look with the last taken",
    "rung once for what was delivered",
    "not asked again when it is not free",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", EVERYTHING_GOES_WELL)
def test_what_waits_is_given_to_whoever_is_free(how: str) -> None:
    found = explore(work(**EVERYTHING_GOES_WELL[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] * (how in SLOW)) for how in WRONG]
)
def test_a_wrong_way_to_ask_is_found_out(how: str) -> None:
    found = explore(work(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
