"""Who works on a withdrawn request is told, whatever the order of steps, and nobody else is."""

from __future__ import annotations

from typing import Any

import pytest

from .cancelling import cancelling
from .explore import explore

WRONG: dict[str, dict[str, Any]] = {
    "it overtakes its request, which nobody looks up": {
        "behind_the_request": False,
        "requests_are_judged_by_their_entry": False,
    },
    "it names the entry": {"named_by_id": False},
    "the entry is freed after it": {"entry_is_freed_first": False, "backlog": True},
    "the backlog does not look at the entry": {
        "backlog_looks_at_the_entry": False,
        "backlog": True,
    },
    "it takes the space for errors": {"reserve": 0},
    "the server loads its head before it": {"head_is_loaded_after_the_cancel": False},
    "the tail moves before it is told": {"told_before_the_tail_moves": False},
    "it is marked before it is told": {"told_before_it_is_marked": False},
}


@pytest.mark.parametrize("backlog", [False, True])
def test_who_works_in_vain_is_told_and_nobody_else(backlog: bool) -> None:
    found = explore(cancelling(backlog=backlog))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_cancel_is_found_out(how: str) -> None:
    found = explore(cancelling(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
