"""What is taken from a mailbox is whole and the newest, whatever is written over it meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .mailbox import mailbox

WRONG: dict[str, dict[str, Any]] = {
    "an entry changes while its number stands": {"voids_before_the_entry_changes": False},
    "cells are written while an entry names them": {
        "voids_before_its_cells_are_written": False,
        "spare": False,
    },
    "the number is looked at once": {"looks_twice": False},
    "what is above the head is taken": {"looks_at_the_head": False},
    "the head is looked at after the number": {"head_before_the_number": False, "kills": 2},
    "the head moves before the journal": {"journal_before_the_head": False},
    "what was not published stays, and is by another's number": {"successor_voids": False},
    "the source lets go before the head moves": {"head_before_the_tail": False},
}


@pytest.mark.parametrize("spare", [True, False])
@pytest.mark.parametrize("latest", [True, False])
def test_what_is_taken_is_whole_and_the_newest(latest: bool, spare: bool) -> None:
    found = explore(mailbox(latest=latest, spare=spare))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.slow
def test_so_it_is_where_two_dispatchers_are_killed() -> None:
    found = explore(mailbox(kills=2))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_mailbox_is_found_out(how: str) -> None:
    found = explore(mailbox(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
