"""What somebody looks at stays as it is when its endpoint closes, is evicted, or forks."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .parting import parting

RIGHT: dict[str, dict[str, Any]] = {
    "closed": {},
    "evicted": {"evicts": True, "kills": 0},
    "forked": {"forks": True, "kills": 0},
}

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "the table is cleared first": ("closed", {"private_before_cleared": False}),
    "it is closed first": ("closed", {"private_before_closed": False}),
    "who enters does not see whether it was evicted": ("evicted", {"looks_again": False}),
    "no fence at who enters": ("evicted", {"receiver_fences": False}),
    "no fence where one is evicted": ("evicted", {"dispatcher_fences": False}),
    "the evicted has no time to part": ("evicted", {"table_is_awaited": False}),
    "the parent lets go before its child has it": ("forked", {"parent_waits": False}),
}


@pytest.mark.parametrize("how", RIGHT)
def test_who_looks_sees_the_same_whatever_its_endpoint_does(how: str) -> None:
    found = explore(parting(**RIGHT[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_to_part_is_found_out(how: str) -> None:
    found = explore(parting(**{**RIGHT[WRONG[how][0]], **WRONG[how][1]}))
    print(found)
    assert found.wrong is not None, str(found)
