"""Which sites are up, as their tokens come and go."""

from __future__ import annotations

from shmbus.links import keys
from shmbus.links.membership import Down, Membership, Rival, Up

ONE, TWO, OWN = "1" * 16, "2" * 16, "0" * 16


def token(site: str, run: str) -> str:
    return keys.token("lan", site, run)


def test_a_site_is_up_while_its_token_is_there() -> None:
    members = Membership("berlin", OWN)
    assert members.sign(token("paris", ONE), True) == [Up("paris", ONE)]
    assert members.sign(token("paris", ONE), True) == []
    assert members.sign(token("paris", ONE), False) == [Down("paris", ONE, "gone")]
    assert members.sign(token("paris", ONE), False) == []


def test_of_two_runs_the_one_that_came_last_counts() -> None:
    members = Membership("berlin", OWN)
    members.sign(token("paris", ONE), True)
    restarted = [Down("paris", ONE, "restarted"), Up("paris", TWO)]
    assert members.sign(token("paris", TWO), True) == restarted
    assert members.sign(token("paris", ONE), False) == []
    assert members.sign(token("paris", TWO), False) == [Down("paris", TWO, "gone")]


def test_another_link_of_the_own_site_is_a_rival() -> None:
    members = Membership("berlin", OWN)
    assert members.sign(token("berlin", OWN), True) == []
    assert members.sign(token("berlin", ONE), True) == [Rival(ONE, True)]
    assert members.sign(token("berlin", ONE), False) == [Rival(ONE, False)]


def test_a_link_that_speaks_another_version_is_refused_by_name() -> None:
    members = Membership("berlin", OWN)
    other = token("paris", ONE).replace(f"/{keys.WIRE}/", "/99/")
    assert members.sign(other, True) == []
    assert members.refused == {"paris": "99"}
    members.sign(other, False)
    assert members.refused == {}


def test_what_is_no_token_is_nothing() -> None:
    members = Membership("berlin", OWN)
    assert members.sign("shmbus/1/lan/site/paris/x", True) == []
