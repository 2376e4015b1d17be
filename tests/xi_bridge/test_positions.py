"""A place in a text is found again after others have changed the text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from xi_bridge.positions import Position, Splice

TEXT = st.text("aé\n", max_size=12)


def place(text: str, offset: int) -> Position:
    before = text[:offset]
    return Position(before.count("\n"), len(before.rpartition("\n")[2].encode()))


@given(TEXT, TEXT, TEXT, TEXT)
def test_a_place_beside_a_change_stays_at_the_same_character(
    head: str, gone: str, come: str, tail: str
) -> None:
    old, new = head + gone + tail, head + come + tail
    splice = Splice.between(0, old.splitlines(keepends=True), new.splitlines(keepends=True))
    if splice is None:
        assert old == new
        return
    for offset in range(len(head) + 1):
        if place(old, offset) <= splice.start:
            assert splice.moved(place(old, offset)) == place(new, offset)
    for offset in range(len(tail)):
        there = place(old, len(old) - offset)
        if there >= splice.old_end and there > splice.start:
            assert splice.moved(there) == place(new, len(new) - offset)


def test_a_caret_in_what_has_gone_is_at_the_end_of_what_came() -> None:
    splice = Splice.between(3, ["one two\n", "three\n"], ["one\n"])
    assert splice == (Position(3, 3), Position(4, 5), Position(3, 3))
    assert splice.moved(Position(4, 2)) == Position(3, 3)
    assert splice.moved(Position(5, 1)) == Position(4, 1)
