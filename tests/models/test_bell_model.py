"""No wake-up is ever lost, whatever the order of steps; and the model would notice if one were."""

from __future__ import annotations

from typing import Any

import pytest

from .bell import bell, conversation
from .explore import explore

EVERYTHING_GOES_WELL: dict[str, dict[str, Any]] = {
    "two posters, one killed, one frozen": {"interrupts": 0},
    "two posters and an interrupted wait": {"kills": 0, "freezes": 0, "interrupts": 1},
    "three posters, one killed, one frozen": {"posters": 3, "runs": 1, "interrupts": 0},
}

WRONG: dict[str, dict[str, Any]] = {
    "the odd store is not seq_cst": {"odd_store_is_seq_cst": False},
    "the poster's store is not seq_cst": {"head_store_is_seq_cst": False},
    "the epoch is loaded above the poster's store": {"epoch_is_loaded_after_the_head_store": False},
    "no second look": {"second_look": False},
    "tokens are drained after the odd store": {"drain": "after the odd store"},
    "tokens are drained after the second look": {"drain": "after the second look"},
    "a drain stops before it is empty": {
        "drain_until_empty": False,
        "runs": 3,
        "kills": 0,
        "freezes": 0,
    },
    "an epoch of too few bits": {"epoch_modulus": 4, "kills": 0},
    "a parked flag that posters clear": {"parked_flag_that_posters_clear": True, "kills": 0},
    "nobody is rung at a death": {"rung_at_all": False},
    "rung before the death is certain": {"rung_after_the_death": False},
    "rung before the flag is set": {"dead_is_set_before_the_ring": False},
    "the second look passes over the flag": {"dead_is_looked_at_again": False},
}
SLOW = {"a drain stops before it is empty"}


@pytest.mark.slow
@pytest.mark.parametrize("how", EVERYTHING_GOES_WELL)
def test_a_parked_waiter_is_always_woken(how: str) -> None:
    found = explore(bell(**EVERYTHING_GOES_WELL[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] * (how in SLOW)) for how in WRONG]
)
def test_a_wrong_bell_is_found_out(how: str) -> None:
    found = explore(bell(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [{"endpoints": "ab"}, {"endpoints": "a", "rounds": 2, "kills": 1, "freezes": 0}],
    ids=["two at once", "one"],
)
def test_endpoints_and_dispatcher_wake_each_other(how: dict[str, Any]) -> None:
    found = explore(conversation(**how))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize(
    "how",
    [{"one_fence_a_pass": False}, {"endpoints": "a", "kills": 1, "endpoints_are_rung": False}],
    ids=["a pass without a fence", "the dispatcher's death rings nobody"],
)
def test_a_wrong_conversation_is_found_out(how: dict[str, Any]) -> None:
    found = explore(conversation(**how))
    print(found)
    assert found.wrong is not None, str(found)
