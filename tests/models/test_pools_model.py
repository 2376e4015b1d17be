"""Who looks at a block sees what was sent in it, and its sender gets it back, whoever is killed."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .pools import pools

DISPATCHER = ("dispatcher",)

RIGHT: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "one after the other": (("A", "A"), {"kills": 2}),
    "to two at once": (("AB", "A"), {"mortal": ("S", "A")}),
    "given back": (("A", "A"), {"gives_back": True}),
    "left by one that dies": (("A", "A"), {"hands_on": True}),
    "one while the next waits": (("A", "A", ""), {"blocks": 2, "mortal": ()}),
    "kept": (("k", "kA", ""), {"blocks": 2, "observer": True, "mortal": DISPATCHER}),
    "in a mailbox": (("C", "C", ""), {"blocks": 2, "mortal": DISPATCHER}),
    "yielding": (("k", "kA", ""), {"yields": True, "observer": True, "mortal": DISPATCHER}),
    "closed": (("C", ""), {"closes": True, "mortal": DISPATCHER}),
    "closed in store buffers": (
        ("C", ""),
        {"closes": True, "buffered": True, "mortal": ()},
    ),
    "revoked": (("A", "A"), {"idles": True, "mortal": DISPATCHER}),
    "revoked in store buffers": (("A", ""), {"idles": True, "buffered": True, "mortal": ()}),
    "in store buffers": (
        ("C", "C", ""),
        {"blocks": 2, "buffered": True, "mortal": ()},
    ),
}

WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "taken moves before the share is entered": (
        "one after the other",
        {"entered_before_taken": False},
    ),
    "counted once the source is released": (
        "one after the other",
        {"counted_before_released": False},
    ),
    "returned before it is consumed": ("to two at once", {"returned_once_consumed": False}),
    "returned while somebody looks": ("one after the other", {"returned_once_let_go": False}),
    "the use is stored once it is published": (
        "one after the other",
        {"use_before_published": False},
    ),
    "the table is looked at before taken": (
        "one while the next waits",
        {"taken_is_looked_at_first": False},
    ),
    "the share is cleared before it is given back": (
        "given back",
        {"cleared_after_given_back": False},
    ),
    "a share is dropped before what is given back is forwarded": (
        "given back",
        {"given_is_awaited": False},
    ),
    "what is given back is looked at before the table": (
        "given back",
        {"given_is_looked_at_last": False},
    ),
    "a successor does not count what is given back": ("given back", {"adopts_given_back": False}),
    "a successor looks for what is given back first": ("given back", {"adopts_in_order": False}),
    "a successor does not read tables": ("one after the other", {"adopts_tables": False}),
    "a successor does not read rings": ("one after the other", {"adopts_rings": False}),
    "a successor does not count what is kept": ("kept", {"adopts_kept": False}),
    "a successor does not read mailboxes": ("in a mailbox", {"adopts_mail": False}),
    "returned while it is kept": ("kept", {"kept_is_counted": False}),
    "the number in a mailbox is not looked at again": (
        "in store buffers",
        {"looks_again": False},
    ),
    "no fence at the receiver": ("in store buffers", {"receiver_fences": False}),
    "no fence in the dispatcher": (
        "in store buffers",
        {"dispatcher_fences": False},
    ),
    "mail is taken before it is entered": ("in a mailbox", {"entry_before_mail_is_taken": False}),
    "what is revoked is not looked at again": ("revoked", {"looks_at_void": False}),
    "the table is looked at before it is revoked": ("revoked", {"void_before_table": False}),
    "it is revoked before it is counted": ("revoked", {"lost_is_counted_first": False}),
    "a successor counts what was revoked": ("revoked", {"adopts_no_void": False}),
    "no fence at who looks whether it was revoked": (
        "revoked in store buffers",
        {"receiver_fences": False},
    ),
    "no fence where it is revoked": ("revoked in store buffers", {"dispatcher_fences": False}),
    "what is kept does not yield": ("yielding", {"kept_goes": False}),
    "what yields comes back while it is kept": (
        "yielding",
        {"kept_goes_before_it_is_over": False},
    ),
    "what a closed mailbox has can be taken still": ("closed", {"void_once_closed": False}),
    "a mailbox is closed before it is void": ("closed", {"void_before_unlisted": False}),
    "what was taken of a mailbox goes with it": ("closed", {"table_outlives_mailbox": False}),
    "no fence at the reader of what is closed": (
        "closed in store buffers",
        {"receiver_fences": False},
    ),
    "no fence where a mailbox is closed": ("closed in store buffers", {"dispatcher_fences": False}),
    "the pool goes with its sender": ("one after the other", {"pool_outlives": False}),
}


SLOW = ("in a mailbox", "given back", "in store buffers", "kept")


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] if how in SLOW else []) for how in RIGHT]
)
def test_who_looks_sees_what_was_sent_and_all_comes_back(how: str) -> None:
    routes, parameters = RIGHT[how]
    found = explore(pools(routes, **parameters))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_way_to_share_is_found_out(how: str) -> None:
    routes, parameters = RIGHT[WRONG[how][0]]
    found = explore(pools(routes, **{**parameters, **WRONG[how][1]}))
    print(found)
    assert found.wrong is not None, str(found)
