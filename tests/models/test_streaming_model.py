"""A reply in parts comes whole and in order, or ends, whatever the order of steps."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .streaming import streaming

RIGHT: dict[str, dict[str, Any]] = {
    "to its end": {"parts": 3, "window": 2},
    "with grants that find no space": {"crowded": True},
    "broken off": {"breaks_off": True, "crowded": True},
    "broken off, with two parts under way": {"breaks_off": True, "parts": 3, "window": 2},
    "the server dies": {"parts": 3, "window": 2, "dies": "server"},
    "the server dies as it is broken off": {"dies": "server", "breaks_off": True},
}

WRONG: dict[str, dict[str, Any]] = {
    "a grant says how many more, and is repeated": {"grants_are_absolute": False, "parts": 3},
    "a grant that was lost is not said again": {"grants_are_repeated": False, "crowded": True},
    "put aside behind a grant": {"aside_under_the_lock": False},
    "parts before an end that was noted are dropped": {
        "parts_before_the_end_are_accepted": False,
        "parts": 3,
        "window": 2,
    },
    "no journal": {"journal_first": False},
    "a cancel that found no space is not told": {
        "cancel_is_told_later": False,
        "breaks_off": True,
        "crowded": True,
    },
    "a successor does not tell of cancels": {
        "heir_tells_of_cancels": False,
        "breaks_off": True,
        "crowded": True,
    },
    "a cancel does not recall who waits for credit": {
        "cancel_makes_it_due": False,
        "breaks_off": True,
    },
    "an error passes parts": {"error_behind_the_parts": False, "dies": "server", "window": 2},
}


@pytest.mark.parametrize("what", RIGHT)
def test_a_reply_in_parts_comes_whole_and_in_order_or_ends(what: str) -> None:
    found = explore(streaming(**RIGHT[what]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_is_found_out(how: str) -> None:
    found = explore(streaming(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
