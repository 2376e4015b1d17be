"""All pools together have no more than they may, however questions and answers meet."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .growth import growth, idle, parts

WRONG: dict[str, dict[str, Any]] = {
    "less is asked for before it is given back": {"gives_back_first": False},
    "an answer to another question counts": {"answer_is_numbered": False},
    "what was granted before is had again": {"lesser_until_answered": False},
    "what is reserved counts, and not what was granted": {"granted_is_counted": False},
}


def test_all_pools_together_have_no_more_than_they_may() -> None:
    found = explore(growth())
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_to_grow_is_found_out(how: str) -> None:
    found = explore(growth(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)


def test_of_those_who_wait_for_what_others_have_each_has_it_in_the_end() -> None:
    found = explore(parts())
    print(found)
    assert found.wrong is None, str(found)


def test_parts_that_are_kept_are_found_out() -> None:
    found = explore(parts(parts_are_given_back=False))
    print(found)
    assert found.wrong is not None, str(found)


def test_who_waits_has_what_another_does_not_use() -> None:
    found = explore(idle())
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", ["says", "says_anew"])
def test_an_idle_one_that_is_told_nothing_is_found_out(how: str) -> None:
    found = explore(idle(**{how: False}))
    print(found)
    assert found.wrong is not None, str(found)
