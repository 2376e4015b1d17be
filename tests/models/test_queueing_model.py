"""Queues wake who sleeps, and lose and double nothing, whoever is killed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .explore import Model, explore
from .queueing import putting, sleeping, taking

RIGHT: dict[str, tuple[Callable[..., Model], dict[str, Any]]] = {
    "sleeping": (sleeping, {}),
    "putting": (putting, {}),
    "taking": (taking, {}),
}

WRONG: dict[str, tuple[Callable[..., Model], dict[str, Any]]] = {
    "no fence after a message is put": (sleeping, {"fenced": False}),
    "number is read after the nap is counted": (sleeping, {"number_before_nap": False}),
    "number is not raised": (sleeping, {"number_is_raised": False}),
    "no look after the nap is counted": (sleeping, {"looks_after_nap": False}),
    "the count is stored before the head": (putting, {"count_is_stored_before_the_head": True}),
    "what comes next is stored last": (putting, {"next_is_stored_before_the_head": False}),
    "a ring is linked before it is complete": (putting, {"linked_once_complete": False}),
    "a ring that was left is not looked at again": (
        putting,
        {"left_rings_are_looked_at_again": False},
    ),
    "a role is not healed": (putting, {"healed": False}),
    "the tail moves before the row names the message": (taking, {"named_before_the_tail": False}),
    "a hand is not corrected": (taking, {"corrected": False}),
    "the book does not say who takes over": (taking, {"step_is_written_first": False}),
    "the orphan is freed before the taker has it": (taking, {"taker_before_the_orphan": False}),
    "an orphan is freed whether the taker has it or not": (taking, {"taker_is_looked_at": False}),
}


@pytest.mark.parametrize("what", RIGHT)
def test_a_queue_does_what_it_should(what: str) -> None:
    model, how = RIGHT[what]
    found = explore(model(**how))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_queue_is_found_out(what: str) -> None:
    model, how = WRONG[what]
    found = explore(model(**how))
    print(found)
    assert found.wrong is not None, str(found)
