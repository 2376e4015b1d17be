"""Whose handler takes too long is told, whatever the order of steps, and nobody else is."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .limits import limits

WRONG: dict[str, dict[str, Any]] = {
    "the limit is there before the message": {"named_before_the_limit": False},
    "the limit of the one before stands while the next is named": {"cleared_between": False},
    "the limit is not read again": {"read_again": False},
    "replies are not read first": {"replies_first": False, "replies_itself": True},
    "told of before it is failed": {"told_last": False},
}


@pytest.mark.parametrize("replies_itself", [False, True])
def test_the_overdue_are_told_and_nobody_else(replies_itself: bool) -> None:
    found = explore(limits(replies_itself=replies_itself))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_limit_is_found_out(how: str) -> None:
    found = explore(limits(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
