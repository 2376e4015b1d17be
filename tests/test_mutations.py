"""The table of careless changes (stress/mutate.py) is one of the code as it is."""

import pytest
from mutation import table

CHANGES = table.changes()


@pytest.mark.parametrize("change", CHANGES, ids=[change.name for change in CHANGES])
def test_a_careless_change_can_still_be_made_and_its_tests_are_there(change: table.Change) -> None:
    assert list(table.faults(change)) == []


def test_no_two_careless_changes_have_the_same_name() -> None:
    names = [change.name for change in CHANGES]
    assert sorted(names) == sorted(set(names))
