"""Which ids a link remembers of messages that it has published."""

from __future__ import annotations

from shmbus.links.ids import NOTED, Ids, identity


def ids_of(*numbers: int) -> list[bytes]:
    return [identity("here", n, "") for n in numbers]


def test_an_id_tells_messages_apart_by_sender_time_and_group() -> None:
    found = {identity(*one) for one in [("a", 1, ""), ("b", 1, ""), ("a", 2, ""), ("a", 1, "g")]}
    assert {len(id) for id in found} == {16}
    assert len(found) == 4


def test_a_note_has_what_a_successor_needs() -> None:
    ids = Ids()
    ids.add(ids_of(1, 2))
    successor = Ids(ids.note(ids_of(3)))
    assert all(id in successor for id in ids_of(1, 2, 3))
    assert ids_of(4)[0] not in successor


def test_one_that_may_come_again_is_remembered_however_many_others_go_by() -> None:
    ids = Ids()
    ids.add(ids_of(0))
    for n in range(1, 2 * NOTED):
        ids.add(ids_of(n))
        ids.settle(ids_of(n))
    assert ids_of(0)[0] in Ids(ids.note(()))


def test_what_damaged_notes_say_is_no_id() -> None:
    assert Ids(b"too short").note(()) == b""


def test_the_oldest_go_where_there_are_too_many() -> None:
    ids = Ids()
    ids.add(ids_of(*range(NOTED + 1)))
    assert ids_of(0)[0] not in ids
    assert len(ids.note(ids_of(NOTED + 1))) == 16 * NOTED
