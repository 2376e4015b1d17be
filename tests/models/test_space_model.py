"""No waiter waits for ever for space, whatever the order of steps; and the model would notice."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .space import space, threads

SENT: dict[str, Any] = {"answers": 0, "begins": "sent"}

EVERYTHING_GOES_WELL: dict[str, dict[str, Any]] = {
    "there and back": {},
    "with store buffers": {"answers": 0, "buffered": True},
    "two senders for one target": {**SENT, "senders": "su", "messages": 3},
    "a ring of four, half full": {
        **SENT,
        "messages": 8,
        "capacity": 4,
        "release_asks_from_depth": 2,
    },
    "all rings full at once": {"messages": 1, "answers": 1, "begins": "full", "coarse": True},
    "target or dispatcher killed": {**SENT, "senders": "su", "kills": 1},
    "a waiting sender killed": {"answers": 0, "kills": 1, "mortal": ("s",)},
    "the dispatcher killed": {"answers": 0, "kills": 1, "mortal": ("d",), "coarse": True},
}

ONE_WAY: dict[str, Any] = {"answers": 0, "messages": 3}
WRONG: dict[str, dict[str, Any]] = {
    "a full sender does not store its need": {**ONE_WAY, "sender_stores_need": False},
    "a full sender does not look again": {**ONE_WAY, "sender_looks_again": False},
    "a full sender does not take its replies": {
        "messages": 6,
        "coarse": True,
        "sender_looks_at_replies": False,
    },
    "passing over a head of line whose need is not stored": {
        **ONE_WAY,
        "head_of_line_need_is_stored": False,
    },
    "no second look at the target's tail": {**ONE_WAY, "head_of_line_looks_again": False},
    "the need is not seq_cst": {"answers": 0, "buffered": True, "need_is_seq_cst": False},
    "the dispatcher does not look at the need": {**ONE_WAY, "dispatcher_tells_the_sender": False},
    "the target does not look at the need": {**ONE_WAY, "target_tells_the_dispatcher": False},
    "ready is not raised at a release": {**ONE_WAY, "ready_is_raised_at_release": False},
    "a need is cleared while ports wait": {
        **SENT,
        "senders": "su",
        "need_is_cleared_when_satisfied": True,
    },
    "the target asks only when it saw three quarters": {
        **SENT,
        "messages": 8,
        "capacity": 4,
        "release_asks_from_depth": 3,
    },
    "a successor waits to be told": {**ONE_WAY, "kills": 1, "successor_looks_at_all": False},
    "a successor rings nobody": {**ONE_WAY, "kills": 1, "successor_rings_all": False},
    "ports go on waiting for the dead": {
        **ONE_WAY,
        "kills": 1,
        "fronts_of_the_dead_are_let_go": False,
    },
}

WRONG_THREADS = {
    "the second thread does not lower the need": {"second_lowers_need": False},
    "the second thread does not look again": {"second_looks_again": False},
    "the leader looks for itself alone": {"leader_looks_for_all": False},
    "a need that is met is replaced": {"met_need_is_replaced": True},
}
SLOW = {"ports go on waiting for the dead", "a full sender does not take its replies"}


@pytest.mark.slow
@pytest.mark.parametrize("how", EVERYTHING_GOES_WELL)
def test_nobody_waits_for_ever_for_space(how: str) -> None:
    found = explore(space(**EVERYTHING_GOES_WELL[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] * (how in SLOW)) for how in WRONG]
)
def test_a_wrong_way_to_wait_for_space_is_found(how: str) -> None:
    found = explore(space(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)


def test_two_threads_that_wait_for_one_ring_both_go_on() -> None:
    found = explore(threads())
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG_THREADS)
def test_a_wrong_second_thread_is_found_out(how: str) -> None:
    found = explore(threads(**WRONG_THREADS[how]))
    print(found)
    assert found.wrong is not None, str(found)
