"""What is kept is kept once, and who comes late hears it and all after it; the model notices."""

from __future__ import annotations

from typing import Any

import pytest

from .explore import explore
from .retaining import retaining

BACKLOG: dict[str, Any] = {"sent": "kks", "room": 1}

RIGHT: dict[str, dict[str, Any]] = {
    "all at once": {"sent": "kk"},
    "two dispatchers killed": {"sent": "ks", "kills": 2},
    "through a backlog": {"sent": "ks", "room": 1},
    "values go that were replaced": {"sent": "kk", "history": 1, "cells": 2, "room": 1},
    "values are evicted": {"sent": "kkk", "history": 3, "cells": 2, "room": 3},
    "values are cleared": {"sent": "kck"},
    "into a mailbox": {"sent": "kks", "mailbox": True, "kills": 2},
    "into a mailbox for the newest": {"sent": "kks", "mailbox": True, "history": 1, "cells": 2},
    "observed": {"sent": "kkk", "history": 1, "cells": 1, "observer": True},
}

WRONG: dict[str, dict[str, Any]] = {
    "delivered before it is kept": {"sent": "kk", "kept_before_delivered": False},
    "the number is stored before the value": {"sent": "kk", "number_is_stored_last": False},
    "the number stays while its cells are used again": {
        "sent": "kkk",
        "history": 1,
        "cells": 1,
        "observer": True,
        "number_is_cleared_first": False,
    },
    "a number is given twice": {"sent": "kckk", "last_is_stored_first": False},
    "the newest value is not looked at": {"sent": "kk", "newest_is_looked_at": False},
    "it counts as kept before it is": {"sent": "kk", "told_once_it_is_kept": False},
    "what is kept and comes later is not known": {"sent": "kk", "known_by_number": False},
    "read before it waits": {"sent": "kk", "waiting_before_read": False},
    "what waits counts as read": {"sent": "k", "kills": 2, "read_is_said_again": False},
    "it waits no longer, and nothing is published": {"sent": "kk", "waits_until_published": False},
    "what was published at once is not in the journal": {
        "sent": "kk",
        "live_is_in_journal": False,
    },
    "what comes does not queue behind the past": {
        "sent": "kkss",
        "room": 1,
        "kills": 0,
        "behind_the_past": False,
    },
    "the backlog goes while it is owed something": {
        **BACKLOG,
        "kills": 0,
        "owed_is_awaited": False,
    },
    "the past is read while it is replaced": {
        "sent": "kkk",
        "room": 1,
        "history": 2,
        "kills": 0,
        "past_is_copied": False,
    },
    "a mailbox is listed before what was kept is in it": {
        "sent": "k",
        "mailbox": True,
        "filled_before_listed": False,
    },
    "a mailbox gets what it was made with": {
        "sent": "kk",
        "mailbox": True,
        "kills": 0,
        "filled_are_spared": False,
    },
}
SLOW = {"a number is given twice"}


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] * (how != "observed")) for how in RIGHT]
)
def test_who_comes_late_hears_what_was_kept_and_all_that_follows(how: str) -> None:
    found = explore(retaining(**RIGHT[how]))
    print(found)
    assert found.wrong is None, str(found)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[pytest.mark.slow] * (how in SLOW)) for how in WRONG]
)
def test_a_wrong_way_to_keep_is_found_out(how: str) -> None:
    found = explore(retaining(**WRONG[how]))
    print(found)
    assert found.wrong is not None, str(found)
