"""Notes of links: what is written is read, and nothing else is."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmbus.shared.methods import MethodInfo
from shmbus.shared.sites import MOST, EndpointNote, SiteNote, Wish, decode, encode

ADD = MethodInfo(service="calc", name="add", interface="Calc", arguments={"a": {"type": "number"}})
CAMERA = EndpointNote(
    name="camera",
    site="paris",
    pid=7,
    interests=(
        Wish("order.*.>", group="workers", key="order.{id}.>", history=2),
        Wish("calc.add", "handle", method=ADD),
    ),
)
PARIS = SiteNote(site="paris", space="lan", run="0" * 16, state="up", since=1.0, round_trip=0.002)


@pytest.mark.parametrize("note", [CAMERA, PARIS])
def test_what_a_link_notes_is_read_as_it_was_written(note: EndpointNote | SiteNote) -> None:
    assert decode(encode(note)) == note


def test_notes_of_two_sites_and_endpoints_have_keys_of_their_own() -> None:
    notes = [msgspec.structs.replace(note, site=site) for note in (CAMERA, PARIS) for site in "ab"]
    assert len({note.key for note in notes}) == 4


def test_a_note_too_long_has_methods_without_their_schemas() -> None:
    long = msgspec.structs.replace(ADD, result={"description": "x" * MOST})
    note = msgspec.structs.replace(CAMERA, interests=(Wish("calc.add", "handle", method=long),))
    found = decode(encode(note))
    assert isinstance(found, EndpointNote)
    method = found.interests[0].method
    assert method is not None
    assert (method.type, method.result) == ("calc.add", {})


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xc1",
        encode(CAMERA)[:-1],
        b"\x91" * 5000,
        msgspec.msgpack.encode({"type": "other"}),
        msgspec.msgpack.encode({"type": "site", "site": "paris"}),
        encode(msgspec.structs.replace(PARIS, site="pa/ris")),
        encode(msgspec.structs.replace(PARIS, site="x" * 33)),
        encode(msgspec.structs.replace(PARIS, space="")),
        encode(msgspec.structs.replace(PARIS, round_trip=-1.0)),
        encode(msgspec.structs.replace(PARIS, round_trip=math.inf)),
        encode(msgspec.structs.replace(PARIS, since=math.nan)),
        encode(msgspec.structs.replace(PARIS, lost_to=-1)),
        encode(msgspec.structs.replace(CAMERA, name="@link")),
        encode(msgspec.structs.replace(CAMERA, interests=(Wish("a..b"),))),
        encode(msgspec.structs.replace(CAMERA, interests=(Wish("$bus.>"),))),
        encode(msgspec.structs.replace(CAMERA, interests=(Wish("a", group="a b"),))),
        encode(msgspec.structs.replace(CAMERA, interests=(Wish("a.*", key="b.{id}"),))),
    ],
)
def test_what_no_link_writes_is_refused(note: bytes) -> None:
    with pytest.raises(ValueError):
        decode(note)


@given(st.sampled_from([CAMERA, PARIS]), st.integers(0, 500), st.binary(max_size=4))
def test_no_note_however_broken_harms_its_reader(
    note: EndpointNote | SiteNote, at: int, garbage: bytes
) -> None:
    text = encode(note)
    at %= len(text)
    try:
        decode(text[:at] + garbage + text[at + len(garbage) :])
    except ValueError:
        pass
