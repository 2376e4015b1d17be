"""Confirmed delivery across buses loses nothing and doubles nothing, whichever link is killed."""

from __future__ import annotations

from typing import Any

import pytest

from .confirming import confirming
from .explore import explore

RIGHT: dict[str, dict[str, Any]] = {
    "a link is killed": {},
    "and another": {"kills": 2, "messages": 1},
    "it is cut as well": {"cuts": 1, "messages": 1},
    "several are under way": {"limit": 2, "room": 4},
}

WRONG: dict[str, dict[str, Any]] = {
    "the note is published first": {"note": "before it"},
    "the note is published afterwards": {"note": "after it"},
    "done before it is confirmed": {"done_once_confirmed": False},
    "confirmed before it is published": {"confirmed_once_published": False},
    "nobody compares ids": {"ids_are_compared": False},
    "the newest ids are kept": {"settled_ids_go_first": False, "messages": 3},
    "the next link begins at once": {"forwarded_before_the_next": False},
    "what was confirmed to the link before is settled": {
        "older_confirmations_are_passed_over": False
    },
    "what the link before has sent is taken late": {"older_frames_are_passed_over": False},
    "there is no keeper": {"keeper_is_there": False},
    "the keeper leaves without another": {"keeper_is_followed": False, "kills": 2},
}


@pytest.mark.parametrize("how", RIGHT)
def test_each_message_comes_once_whichever_link_is_killed(how: str) -> None:
    found = explore(confirming(**RIGHT[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_to_confirm_is_found_out(how: str) -> None:
    found = explore(confirming(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
