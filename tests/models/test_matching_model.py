"""Whoever asked whether anybody is there is told, at changes alone, whatever dies."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .matching import matching

WRONG: dict[str, dict[str, Any]] = {
    "who adopts takes it that nobody was told of": {"told_by_adopters": False},
    "told counts where there was no space": {"told_only_with_space": False},
    "told of while a log is read anew": {"told_at_the_end": False},
    "versions begin anew with each dispatcher": {"lasting_versions": False},
    "what is taken last counts": {"latest_counts": False},
    "two threads call at a time": {"one_calls": False},
    "who has called does not look again": {"looks_again": False},
}


@pytest.mark.parametrize("changes", [2, 3])
def test_it_is_told_of_what_lasts_and_knows_what_is_so(changes: int) -> None:
    found = explore(matching(changes=changes, kills=2))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_to_tell_is_found_out(how: str) -> None:
    found = explore(matching(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
