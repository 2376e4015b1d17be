"""Messages of one key are worked on in order, by one member at a time, whoever comes, goes or is
killed."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .keyed import Message, keyed


def messages(text: str) -> tuple[Message, ...]:
    return tuple((each[0], int(each[1:])) for each in text.split())


JOIN: dict[str, Any] = {"wants_most": {"k": "CAB", "j": "AB"}, "at_first": "A", "joins": "C"}
DEATH: dict[str, Any] = {"wants_most": {"k": "ABC"}, "at_first": "ABC", "kills": 2}
BACK: dict[str, Any] = {"wants_most": {"k": "CA"}, "at_first": "A", "joins": "C"}
LEAVE: dict[str, Any] = {"wants_most": {"k": "BCA"}, "joins": "C", "leaves": "B"}
TWO_KEYS: dict[str, Any] = {"wants_most": {"k": "CAB", "j": "CBA"}, "joins": "C"}

RIGHT: dict[str, dict[str, Any]] = {
    "one joins": JOIN | {"sent": "k0 j0 k1 k2"},
    "one dies, and the dispatcher": DEATH | {"mortal": ("d", "A")},
    "two die that had the key one after the other": DEATH | {"mortal": ("A", "B")},
    "one joins and dies": BACK | {"sent": "k0 k1", "mortal": ("C", "A"), "kills": 2},
    "one joins and dies, and the dispatcher": BACK | {"mortal": ("C", "d"), "kills": 2},
    "one leaves and one joins": LEAVE,
    "one leaves and comes back": LEAVE | {"returns": True},
    "keys of two members go to one that joins": TWO_KEYS
    | {"sent": "k0 j0 k1 j1", "mortal": ("A",)},
    "messages are let go": JOIN | {"sent": "k0 j0 k1 k2", "let_go": "A"},
    "no backlog can be made": JOIN
    | {"sent": "k0 j0 k1 k2", "backlogs": False, "mortal": ("d", "A")},
    "a fan-out waits for space": BACK | {"fan_out": True, "mortal": ("d", "A")},
}

WRONG: dict[str, dict[str, Any]] = {
    "nobody waits": JOIN | {"keys_wait": False},
    "begun counts as done": JOIN | {"done_and_not_begun": False},
    "let go counts as done": JOIN | {"let_go": "A", "let_go_is_in_hand": False},
    "let go before it is shown": JOIN | {"let_go": "A", "let_go_is_shown_first": False},
    "new ones pass what waits": TWO_KEYS
    | {"sent": "k0 k1 k2", "kills": 0, "others_wait_behind_what_waits": False},
    "the epoch before its members": JOIN | {"epoch_is_stored_last": False},
    "half a change is kept": LEAVE
    | {"sent": "k0 k1", "at_first": "ABC", "joins": "", "returns": True}
    | {"mortal": ("d", "A"), "kills": 2, "unfinished_changes_are_forgotten": False},
    "new ones pass what a dead one left": DEATH
    | {"mortal": ("A",), "kills": 1, "new_ones_wait_for_handing_on": False},
    "what the first left passes what the second left": DEATH
    | {"mortal": ("A", "B"), "handing_on_waits_for_later_owners": False},
    "what the second left waits for the first": DEATH
    | {"mortal": ("A", "B"), "handing_on_waits_for_earlier_owners": True},
    "settled while something waits": TWO_KEYS
    | {"sent": "k0 k1 k2", "kills": 0, "settled_when_nothing_waits": False},
    "a backlog for whoever is not done": DEATH
    | {"mortal": ("A", "B"), "first_owner_names_the_backlog": False},
    "no more waiting, and it is given to the new owner": JOIN
    | {"backlogs": False, "lost_when_waiting_is_over": False},
    "a fan-out goes to whom it was for": BACK
    | {"fan_out": True, "kills": 0, "fan_out_is_chosen_again": False},
}


SLOW = {
    "no backlog can be made",
    "two die that had the key one after the other",
    "keys of two members go to one that joins",
    "one leaves and comes back",
    "one joins and dies",
    "half a change is kept",
}


def marked(ways: dict[str, dict[str, Any]]) -> list[Any]:
    return [pytest.param(how, marks=[pytest.mark.slow] * (how in SLOW)) for how in ways]


def arguments(how: dict[str, Any]) -> dict[str, Any]:
    return {"sent": messages("k0 k1 k2")} | {
        name: messages(value) if name == "sent" else value for name, value in how.items()
    }


@pytest.mark.parametrize("how", marked(RIGHT))
def test_a_key_is_in_order_and_on_one_hand(how: str) -> None:
    found = explore(keyed(**arguments(RIGHT[how])))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", marked(WRONG))
def test_a_wrong_way_to_move_a_key_is_found_out(how: str) -> None:
    found = explore(keyed(**arguments(WRONG[how])))
    print(found)
    assert found.wrong is not None, str(found)
