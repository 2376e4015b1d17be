"""What a receiver gives back while it dies or is evicted goes on exactly once."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .returning import returning

RIGHT: dict[str, dict[str, Any]] = {
    "killed": {},
    "killed while it waits for its time": {"later": True},
    "killed when it has done it for one group": {"later": True, "one_is_done": True},
    "evicted": {"evicted": True},
    "evicted when it has done it for one group": {
        "evicted": True,
        "adopted": True,
        "later": True,
        "one_is_done": True,
    },
    "evicted while it waits for its time": {"evicted": True, "later": True},
    "evicted, and the dispatcher killed": {"evicted": True, "adopted": True},
    "the same while it waits for its time": {"evicted": True, "adopted": True, "later": True},
}

WRONG: dict[str, dict[str, Any]] = {
    "published before it is marked": {"marked_before_published": False},
    "published one by one": {"published_at_once": False},
    "done before it is published": {"published_before_done": False},
    "what waits for its time counts as given back": {"later": True, "mark_is_compared": False},
    "what is not published counts as given back": {"mark_is_compared": False},
    "what is done for one group is handed on": {
        "later": True,
        "one_is_done": True,
        "settled_is_heeded": False,
    },
    "done though evicted": {"evicted": True, "eviction_is_looked_for": False},
    "no fence at the endpoint": {"evicted": True, "endpoint_fences": False},
    "no fence in the dispatcher": {"evicted": True, "dispatcher_fences": False},
    "a successor looks anew": {"evicted": True, "adopted": True, "last_is_kept": False},
    "a successor cannot know": {"evicted": True, "adopted": True, "last_before_handing_on": False},
}


@pytest.mark.parametrize("how", RIGHT)
def test_it_is_given_on_exactly_once(how: str) -> None:
    found = explore(returning(**RIGHT[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_to_give_back_is_found_out(how: str) -> None:
    found = explore(returning(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
