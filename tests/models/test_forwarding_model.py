"""Every record arrives once, whoever is killed at whatever step; and the model would notice."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .forwarding import Record, forwarding

TWO_DISPATCHERS: dict[str, Any] = {"kills": 2, "mortal": ("d",)}
TARGET_AND_DISPATCHER: dict[str, Any] = {"kills": 2, "mortal": ("a", "d")}

FAN_OUT: dict[str, Any] = {
    "sent": {
        "p": (Record("e1", "ab"), Record("e2", "ab"), Record("e3"), Record("e4", "b")),
        "q": (Record("f1", "a"), Record("f2", "a")),
    },
    "targets": "ab",
    "lossy": "a",
    **TWO_DISPATCHERS,
}
GROUP: dict[str, Any] = {
    "sent": {"p": (Record("e1", "ab", "ab"), Record("e2", "b", "ab"), Record("e3", "", "ab"))},
    "targets": "ab",
    **TARGET_AND_DISPATCHER,
}
GROUP_OF_THREE: dict[str, Any] = {
    "sent": {"o": (Record("f1", "b"),), "p": (Record("e1", "ab", "abc"),)},
    "targets": "abc",
    **TARGET_AND_DISPATCHER,
}
REQUESTS: dict[str, Any] = {
    "sent": {
        "p": (
            Record("q1", group="ab", request=1),
            Record("q2", group="ab", request=2),
            Record("q3", group="a", request=3),
        )
    },
    "targets": "ab",
    "replies_twice": True,
    **TARGET_AND_DISPATCHER,
}
REQUEST_HANDED_ON: dict[str, Any] = {
    "sent": {"p": (Record("q1", group="abc", request=1),)},
    "targets": "cba",
    "kills": 3,
    "mortal": ("a", "b", "d"),
}
EVENTS_AND_REPLIES: dict[str, Any] = {
    "sent": {"a": (Record("e1", "b"),), "p": (Record("q1", group="a", request=1),)},
    "targets": "ab",
    **TWO_DISPATCHERS,
}
SLOT_GIVEN_AGAIN: dict[str, Any] = {
    "sent": {"p": (Record("e1", "a"),)},
    "sent_later": {"p": (Record("l1", "b"), Record("l2", "ab"))},
    "targets": "ab",
    **TWO_DISPATCHERS,
}
EVERYTHING: dict[str, Any] = {
    "sent": {
        "p": (*FAN_OUT["sent"]["p"][:2], Record("e3", "a", "ab"), Record("e4", "", "ab")),
        "q": (Record("f1", "b"), Record("f2", "c", "bc")),
    },
    "targets": "abc",
    "lossy": "b",
    "kills": 1,
    "mortal": ("a", "b", "d"),
}
BACKLOG: dict[str, Any] = {
    "sent": {
        "p": (
            Record("e1", "", "ab"),
            Record("e2", "", "ab"),
            Record("e3", "", "ab"),
            Record("e4", "a", "ab"),
        ),
    },
    "targets": "ab",
    "backlog": "z",
    **TWO_DISPATCHERS,
}
REQUESTS_THAT_WAIT: dict[str, Any] = {
    "sent": {
        "p": (
            Record("q1", group="ab", request=1),
            Record("q2", group="ab", request=2),
            Record("q3", group="ab", request=3),
        )
    },
    "targets": "ab",
    "backlog": "z",
    "run": 1,
    **TARGET_AND_DISPATCHER,
}

TWO_REQUESTS_THAT_WAIT: dict[str, Any] = {
    **REQUESTS_THAT_WAIT,
    "sent": {"p": (Record("q1", group="a", request=1), Record("q2", group="a", request=2))},
}

URGENT: dict[str, Any] = {
    "sent": {
        "p": (
            Record("e1", "ab"),
            Record("u2", "ab", urgent=True),
            Record("u3", "a", urgent=True),
            Record("u4", "a", "ab", urgent=True),
        ),
    },
    "targets": "ab",
    "capacity": 1,
    **TARGET_AND_DISPATCHER,
}

ANYONE: dict[str, Any] = {"kills": 2, "mortal": ("a", "b", "d")}

EVERYTHING_GOES_WELL: dict[str, dict[str, Any]] = {
    "fan-outs in runs, full rings, two dispatchers killed": FAN_OUT,
    "groups, two of members and dispatcher killed": {**GROUP, **ANYONE},
    "a group of three": {**GROUP_OF_THREE, **ANYONE},
    "requests, two of handlers and dispatcher killed": {**REQUESTS, **ANYONE},
    "a request handed on to one that dies as well": REQUEST_HANDED_ON,
    "events and replies of one endpoint": EVENTS_AND_REPLIES,
    "a slot given again": SLOT_GIVEN_AGAIN,
    "everything at once, anyone killed": EVERYTHING,
    "groups that wait in a backlog, one at a time": {**BACKLOG, "run": 1},
    "groups that wait in a backlog, two dispatchers killed": BACKLOG,
    "groups that wait in a backlog, anyone killed": {
        **BACKLOG,
        "kills": 1,
        "mortal": ("a", "b", "d"),
    },
    "requests that wait in a backlog": REQUESTS_THAT_WAIT,
    "urgent events, two of a receiver and dispatchers killed": URGENT,
    # `from` is compared with the tail, so what stands there from before means nothing:
    "todo.from is not cleared first": {**GROUP, "from_is_cleared_first": False},
    "todo is ended, after the tail has moved": {
        **GROUP,
        "todo_is_ended": "after the tail has moved",
    },
}

WRONG: dict[str, dict[str, Any]] = {
    "no journal": {**FAN_OUT, "with_journal": False},
    "no todo": {**FAN_OUT, "with_todo": False},
    "the journal does not name the target's ring": {**URGENT, "target_ring_is_in_journal": False},
    "urgent ones lost with their receiver are not in the journal": {
        **URGENT,
        "loss_of_the_urgent_is_in_journal": False,
    },
    "urgent ones are of one run with others": {
        **URGENT,
        "sent": {"p": (Record("u1", "a", urgent=True), Record("e2", "a"))},
        "capacity": 2,
        "urgent_run_alone": False,
    },
    "a run is published record by record": {**GROUP, "single_publication": False},
    "journal.kind is not stored 0 first": {**FAN_OUT, "kind_is_cleared_first": False},
    "journal.kind is not stored last": {**FAN_OUT, "kind_is_stored_last": False},
    "todo.from is not stored last": {**FAN_OUT, "from_is_stored_last": False},
    "todo stands for ever": {**FAN_OUT, "todo_is_compared": False},
    "todo is ended before the tail moves": {**GROUP, "todo_is_ended": "before the tail moves"},
    "todo is routed anew": {**GROUP, "todo_is_routed_anew": True},
    "counters go up instead of being stored": {**FAN_OUT, "absolute_values": False},
    "target words before the journal": {**REQUESTS, "target_words_within_journal": False},
    "target words of what was not published stay": {**REQUESTS, "target_words_are_reset": False},
    "target words of what was not handed on stay": {
        **REQUEST_HANDED_ON,
        "target_words_of_the_handed_on_are_reset": False,
    },
    "a repeated reply is taken for a second": {**REQUESTS, "reply_is_known_by_position": False},
    "the journal is not adopted": {**FAN_OUT, "journal_is_adopted": False},
    "the head is not compared with the journal": {**FAN_OUT, "heads_are_compared": False},
    "deaths are dealt with before the journal": {**GROUP, "journal_is_adopted_first": False},
    "the journal does not name the entry of the dead": {
        **GROUP_OF_THREE,
        "entry_is_in_journal": False,
    },
    "of a dead one's record only one bit is handed on": {**GROUP, "dealt_bits_are_kept": False},
    "a tail is moved back by what is done again": {**REQUESTS, "tails_move_forward_only": False},
    "errors for what is still to be handed on": {**REQUESTS, "errors_before_handing_on": True},
    "the journal does not name the ring": {**EVENTS_AND_REPLIES, "ring_is_in_journal": False},
    "new ones pass what waits in the backlog": {
        **BACKLOG,
        "run": 1,
        "new_ones_wait_behind_others": False,
    },
    "consumed in the backlog before it is published": {
        **BACKLOG,
        "consumed_after_published": False,
    },
    "what leaves the backlog is not in the journal": {**BACKLOG, "leaving_is_in_journal": False},
    "target words of what did not leave the backlog stay": {
        **TWO_REQUESTS_THAT_WAIT,
        "target_words_of_what_leaves_are_reset": False,
    },
    "the journal does not name the generation": {
        **SLOT_GIVEN_AGAIN,
        "journal_names_generation": False,
    },
}
SLOW = {
    "errors for what is still to be handed on",
    "a repeated reply is taken for a second",
    "target words of what was not published stay",
    "target words before the journal",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", EVERYTHING_GOES_WELL)
def test_every_record_arrives_once(how: str) -> None:
    found = explore(forwarding(**EVERYTHING_GOES_WELL[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] * (how in SLOW)) for how in WRONG]
)
def test_a_wrong_way_to_forward_is_found_out(how: str) -> None:
    found = explore(forwarding(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
