"""No loop sleeps beside what it waits for, whoever dies; and the model would notice if one did."""

from __future__ import annotations

from typing import Any

import pytest

from .event import event, watched
from .explore import explore

WRONG: dict[str, dict[str, Any]] = {
    "the odd store is not seq_cst": {"odd_store_is_seq_cst": False},
    "the dispatcher's store is not seq_cst": {"head_store_is_seq_cst": False},
    "the epoch is loaded above the dispatcher's store": {
        "epoch_is_loaded_after_the_head_store": False
    },
    "what was written is read after the odd store": {"read": "after the odd store"},
    "what was written is read after the look": {"read": "after the look"},
    "no look": {"looks_again": False},
    "what is wanted is stored after the epoch": {"wants_before_the_epoch": False},
    "armed again with the same epoch": {"new_epoch_each_time": False},
    "a successor does not write once": {"successor_rings": False},
    "a successor writes before what it published can be seen": {"successor_fences": False},
}
WRONGLY_WATCHED: dict[str, dict[str, Any]] = {
    "armed again with the same epoch": {"new_epoch": False},
    "no look once it is armed": {"looks": False},
    "what comes while it is armed is not written": {"writes": False},
    "another thread reads it": {"threads_read_and_do_not_arm": True},
    "a successor does not write once": {"successor_rings": False},
}


@pytest.mark.parametrize("kills", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_loop_is_always_woken(kills: int) -> None:
    found = explore(event(kills=kills))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_event_is_found_out(how: str) -> None:
    found = explore(event(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)


@pytest.mark.parametrize("kills", [0, 1])
def test_a_watched_descriptor_is_readable_while_something_waits(kills: int) -> None:
    found = explore(watched(kills=kills))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONGLY_WATCHED)
def test_a_wrongly_watched_descriptor_is_found_out(how: str) -> None:
    found = explore(watched(**WRONGLY_WATCHED[how]))
    print(found)
    assert found.wrong is not None, str(found)
