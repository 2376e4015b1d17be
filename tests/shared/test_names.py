"""Names: what they may be, and that every file in /dev/shm names its owner."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmbus.errors import InvalidName
from shmbus.shared import names

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
good = st.text(LETTERS, min_size=1, max_size=48)
owners = st.builds(
    names.Owner,
    st.integers(1, 2**22),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1).map("{:016x}".format),
)
buses = st.builds(names.BusNames, st.integers(0, 2**32 - 1), good)


@given(good)
def test_letters_digits_and_a_few_signs_make_a_name(name: str) -> None:
    assert names.check_bus(name) == names.check_endpoint(name) == names.check_group(name) == name


@given(st.text().filter(lambda text: not set(text) <= set(LETTERS)))
def test_other_characters_are_refused(name: str) -> None:
    with pytest.raises(InvalidName) as caught:
        names.check_endpoint(name)
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "it is empty"),
        ("x" * 49, "it has 49 characters, the limit is 48"),
        ("a/b", "it has the character '/'"),
        ("a\n", "it has the character '\\n'"),
        ("a:b", "it has the character ':'"),
        (b"abc", "it is of type bytes"),
        (None, "it is of type NoneType"),
    ],
)
def test_a_bad_name_is_told_why(name: str, reason: str) -> None:
    with pytest.raises(InvalidName) as caught:
        names.check_bus(name)
    assert caught.value.reason == reason
    assert caught.value.what == "bus"
    assert "Use 1 to 48" in str(caught.value)


def test_a_bus_belongs_to_the_user_who_serves_it() -> None:
    assert names.names_of("symphony").bus_segment == f"shmbus:{os.geteuid()}:symphony:bus"
    assert names.names_of("symphony", 7).bell == "/shmbus:7:symphony:bell"
    with pytest.raises(InvalidName):
        names.names_of("a:b")


@given(buses)
def test_what_a_bus_owns_can_be_told_by_its_name(bus: names.BusNames) -> None:
    for kind, file in [
        ("bus", bus.bus_segment),
        ("lock", bus.lock),
        ("door", bus.door),
        ("ready", bus.ready),
        ("bell", f"sem.{bus.bell[1:]}"),
    ]:
        entry = names.parse(file)
        assert entry is not None
        assert (entry.names, entry.kind, entry.owner) == (bus, kind, None)


@pytest.mark.smoke
@given(buses, owners, st.integers(0, 2**32), st.integers(0, 2**16), st.integers(0, 2**32))
def test_what_an_endpoint_owns_names_its_process(
    bus: names.BusNames, owner: names.Owner, serial: int, slot: int, generation: int
) -> None:
    up = names.parse(bus.up(owner))
    assert up is not None
    assert (up.names, up.kind, up.owner) == (bus, "up", owner)
    interests = names.parse(bus.interests(owner, serial))
    assert interests is not None
    assert (interests.kind, interests.owner, interests.serial) == ("int", owner, serial)
    bell = names.parse(f"sem.{bus.endpoint_bell(owner)[1:]}")
    assert bell is not None
    assert (bell.kind, bell.owner, bell.semaphore) == ("bell", owner, True)
    down = names.parse(bus.down(slot, generation))
    assert down is not None
    assert (down.kind, down.slot, down.generation) == ("down", slot, generation)


@given(buses, owners)
def test_every_name_fits_a_file_and_the_door_a_socket_path(
    bus: names.BusNames, owner: names.Owner
) -> None:
    assert len(bus.interests(owner, 2**32)) <= 255
    assert len(bus.endpoint_bell(owner)) <= 250
    assert len("/dev/shm/" + bus.door) < 108


@given(good, good)
def test_two_buses_never_share_a_name(one: str, two: str) -> None:
    a, b = names.BusNames(0, one), names.BusNames(0, two)
    assert a.bus_segment.startswith(b.prefix) == (one == two)


@pytest.mark.parametrize(
    "file",
    [
        "",
        "psm_1234",
        "sem.other",
        "shmbus:0:b:bus:1",
        "shmbus:0:b:up",
        "shmbus:0:b:up:1:2:xyz",
        "shmbus:0:b:up:1:2:0123456789abcdef:3",
        "shmbus:0:b:int:1:2:0123456789abcdef",
        "shmbus:0:b:down:1",
        "shmbus:00:b:bus",
        "shmbus:-1:b:bus",
        "shmbus:0:b:bus\n",
        "shmbus:0:b:bell",
        "sem.shmbus:0:b:bus",
        "shmbus:0:b/c:bus",
        f"shmbus:0:{'b' * 49}:bus",
    ],
)
def test_what_is_not_ours_is_left_alone(file: str) -> None:
    assert names.parse(file) is None


@given(st.text())
def test_no_file_name_confuses_the_parser(file: str) -> None:
    names.parse(file)
    names.parse("shmbus:" + file)


def test_each_attach_has_a_nonce_of_its_own() -> None:
    one, two = names.new_owner(1, 2), names.new_owner(1, 2)
    assert one != two
    assert len(one.nonce) == 16
