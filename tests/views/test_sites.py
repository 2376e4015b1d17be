"""What a bus shows of other sites: what its links note of them, and nothing else."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest

import shmbus
from shmbus.endpoint.attach import attach_as
from shmbus.shared import layout, sites
from shmbus.shared.methods import MethodInfo
from shmbus.shared.sites import EndpointNote, SiteNote, Wish
from shmbus.testing import Attach
from shmbus.views import BusView, observe
from tests.by_hand import BusByHand, EndpointByHand, entry, note

ADD = MethodInfo(service="calc", name="add", interface="Calc", summary="Adds.")
CAMERA = EndpointNote(
    name="camera",
    site="paris",
    pid=7,
    host="pc7",
    interests=(Wish("shoot", "handle"), Wish("light.>", group="lights")),
)
CALC = EndpointNote(
    name="calc", site="rome", pid=8, interests=(Wish("calc.add", "handle", method=ADD),)
)
HERE = SiteNote(site="berlin", space="lan", run="0" * 16, state="here", since=1.0)
UP = SiteNote(site="rome", space="lan", run="2" * 16, state="up", since=2.0)
ROME = msgspec.structs.replace(UP, round_trip=0.01)
PARIS = msgspec.structs.replace(UP, site="paris", round_trip=0.02, sent=5, lost_to=2)


@pytest.fixture
def by_hand() -> Iterator[BusByHand]:
    with ExitStack() as stack:
        yield BusByHand(stack, f"sites-{secrets.token_hex(4)}")


@pytest.fixture
def link(by_hand: BusByHand) -> EndpointByHand:
    return by_hand.endpoint(1, "@link")


@pytest.fixture
def seen(by_hand: BusByHand) -> Iterator[BusView]:
    with observe(by_hand.name) as view:
        yield view


@pytest.mark.smoke
def test_endpoints_of_other_sites_are_seen_behind_those_here(
    by_hand: BusByHand, link: EndpointByHand, seen: BusView
) -> None:
    by_hand.endpoint(2, "camera").interests(entry(1, "a"))
    link.interests(note(1, CALC), entry(2, "calc.add"), note(3, CAMERA))
    here, camera, calc = seen.endpoints()[-3:]
    assert [e.name for e in seen.endpoints()] == ["@link", "camera", "camera@paris", "calc@rome"]
    assert (here.site, here.host) == (None, "")
    assert (camera.site, camera.host, camera.pid) == ("paris", "pc7", 7)
    assert (camera.slot, camera.state, camera.condition) == (-1, "attached", "idle")
    assert (camera.patterns, camera.groups) == (("shoot", "light.>"), ("lights",))
    assert {i.endpoint for i in camera.interests} == {"camera@paris"}
    assert calc.sent.total == calc.incoming.capacity == 0
    assert [e.name for e in seen.look().endpoints] == [e.name for e in seen.endpoints()]


def test_what_a_note_says_is_replaced_and_removed(link: EndpointByHand, seen: BusView) -> None:
    link.interests(note(1, CAMERA), note(2, PARIS))
    link.interests(note(1, msgspec.structs.replace(CAMERA, interests=(Wish("b"),))))
    assert seen.endpoints()[1].patterns == ("b",)
    link.interests(entry(1, op=layout.InterestOp.REMOVE))
    assert [e.name for e in seen.endpoints()] == ["@link"]
    link.interests(note(9, CALC), serial=1)
    assert [e.name for e in seen.endpoints()] == ["@link", "calc@rome"]
    assert seen.sites() == []


def test_the_sites_are_seen_the_own_one_first(link: EndpointByHand, seen: BusView) -> None:
    link.interests(note(1, ROME), note(2, PARIS), note(3, HERE))
    own, paris, rome = seen.sites()
    assert (own.name, own.state, own.link, own.space) == ("berlin", "here", "@link", "lan")
    assert (paris.name, paris.round_trip, paris.sent, paris.lost_to) == ("paris", 0.02, 5, 2)
    assert rome.clock_error_ns is None
    assert seen.look().sites == seen.sites()


def test_an_endpoint_that_two_links_know_is_seen_once(
    by_hand: BusByHand, link: EndpointByHand, seen: BusView
) -> None:
    link.interests(note(1, CAMERA), note(2, PARIS))
    by_hand.endpoint(2, "@wan").interests(note(1, CAMERA), note(2, PARIS))
    assert [e.name for e in seen.endpoints()] == ["@link", "@wan", "camera@paris"]
    assert [(s.name, s.link) for s in seen.sites()] == [("paris", "@link"), ("paris", "@wan")]


def test_what_a_link_noted_goes_with_it(link: EndpointByHand, seen: BusView) -> None:
    link.interests(note(1, CAMERA), note(2, PARIS))
    link.row["state"] = layout.RowState.DYING
    assert [e.name for e in seen.endpoints()] == ["@link"]
    assert seen.sites() == []


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 40, sites.encode(CAMERA)[:-1]])
def test_a_note_of_garbage_is_told_and_harms_nothing_else(
    link: EndpointByHand, seen: BusView, garbage: bytes
) -> None:
    link.interests(entry(1, "a"), note(2, garbage), note(3, CAMERA))
    broken, camera = seen.endpoints()
    assert (broken.patterns, camera.name) == (("a",), "camera@paris")
    assert broken.note.startswith("1 of its notes of other sites cannot be read")
    link.interests(note(2, CALC))
    assert seen.endpoints()[0].note == ""


def test_who_is_no_link_tells_of_no_other_site(by_hand: BusByHand, seen: BusView) -> None:
    by_hand.endpoint(0, "worker").interests(entry(1, "a"), note(2, CAMERA))
    (worker,) = seen.endpoints()
    assert worker.patterns == ("a",)
    assert "worker is no link" in worker.note


def test_they_are_found_by_what_they_want_and_offer(link: EndpointByHand, seen: BusView) -> None:
    link.interests(entry(1, "light.>"), note(2, CAMERA), note(3, CALC))
    (camera,) = seen.find("light.on")
    assert (camera.name, camera.routed) == ("camera@paris", False)
    link.down["interests_seen"] = 1
    (camera,) = seen.find("light.on")
    assert (camera.name, camera.routed) == ("camera@paris", True)
    assert [e.name for e in seen.find("calc.*", role="handle")] == ["calc@rome"]
    (service,) = seen.services("calc.>")
    assert (service.name, service.endpoint, service.methods) == ("calc", "calc@rome", (ADD,))


def test_a_link_is_found_where_it_has_told_of_nobody_who_wants_that(
    link: EndpointByHand, seen: BusView
) -> None:
    link.interests(entry(1, "light.>"), entry(2, "own"), note(3, CAMERA))
    assert [e.name for e in seen.find("own")] == ["@link"]
    assert [e.name for e in seen.find("light.*")] == ["camera@paris"]


def test_they_are_no_part_of_this_bus_s_health(link: EndpointByHand, seen: BusView) -> None:
    link.interests(note(1, CAMERA), note(2, PARIS))
    assert [e.name for e in seen.health().endpoints] == ["@link"]


# Routes -----------------------------------------------------------------------------------------


def wants(site: str, name: str, *wishes: Wish) -> EndpointNote:
    """An endpoint of this site that wants this."""
    return EndpointNote(name=name, site=site, pid=1, interests=wishes)


def chosen(seen: BusView, type: str) -> list[tuple[str, str | None]]:
    """Who would get it, and on which site."""
    return [(r.endpoint, r.site) for r in seen.route(type).receivers if r.chosen]


HANDLES = layout.InterestRole.HANDLE


@pytest.mark.smoke
def test_a_request_goes_to_the_nearest_site_that_handles_it(
    link: EndpointByHand, seen: BusView
) -> None:
    there = [wants(site, "calc", Wish("sum", "handle")) for site in ("paris", "rome", "oslo")]
    notes = [note(10 + i, each) for i, each in enumerate(there)]
    link.interests(entry(1, "sum", role=HANDLES), *notes, note(20, PARIS), note(21, ROME))
    route = seen.route("sum")
    assert route.handler == "calc@rome"
    reasons = {r.site: r.reason for r in route.receivers}
    assert reasons == {
        "rome": "the nearest of 3 sites, 10 ms, over @link",
        "paris": "rome is nearer",
        "oslo": "rome is nearer",
    }


def test_who_is_here_comes_before_who_is_elsewhere(
    by_hand: BusByHand, link: EndpointByHand, seen: BusView
) -> None:
    by_hand.endpoint(2, "calc").interests(entry(1, "*", role=HANDLES))
    there = wants("rome", "calc", Wish("sum", "handle"))
    link.interests(entry(1, "sum", role=HANDLES), note(2, there))
    assert chosen(seen, "sum") == [("calc", None)]
    assert seen.route("sum").receivers[1].reason == "calc comes first"


def test_at_the_nearest_site_the_most_specific_handler_has_it(
    link: EndpointByHand, seen: BusView
) -> None:
    link.interests(
        entry(1, "sum.*", role=HANDLES),
        note(2, wants("rome", "any", Wish("sum.*", "handle"))),
        note(3, wants("rome", "one", Wish("sum.one", "handle"))),
        note(4, wants("rome", "two", Wish("sum.one", "handle"))),
    )
    reasons = {r.endpoint: r.reason for r in seen.route("sum.one").receivers}
    assert reasons == {
        "one@rome": "the only site, over @link",
        "two@rome": "in turn after one@rome",
        "any@rome": "sum.one is more specific",
    }


def test_an_event_goes_to_all_who_subscribe_and_to_one_of_a_group_that_spans_sites(
    link: EndpointByHand, seen: BusView
) -> None:
    link.interests(
        entry(1, "job.>"),
        entry(2, "job.>", group="workers"),
        note(3, wants("paris", "log", Wish("job.*"))),
        note(4, wants("rome", "log", Wish("job.*"), Wish("job.done"))),
        note(5, wants("paris", "w", Wish("job.*", group="workers"))),
        note(6, wants("rome", "w", Wish("job.*", group="workers"))),
        note(7, ROME),
        note(8, PARIS),
    )
    everybody = [("log@paris", "paris"), ("log@rome", "rome")]
    assert chosen(seen, "job.new") == [*everybody, ("w@rome", "rome")]
    assert seen.route("job.done").subscribers == ("log@paris", "log@rome", "w@rome")


def test_of_a_group_that_stays_local_each_site_has_its_own_copy(
    link: EndpointByHand, seen: BusView
) -> None:
    link.interests(
        entry(1, "job.>"),
        note(2, wants("paris", "a", Wish("job.*", group="workers"))),
        note(3, wants("paris", "b", Wish("job.*", group="workers"))),
        note(4, wants("rome", "w", Wish("job.*", group="workers"))),
    )
    assert chosen(seen, "job.new") == [("a@paris", "paris"), ("w@rome", "rome")]


def test_a_link_of_which_nothing_is_noted_stands_for_itself(
    link: EndpointByHand, seen: BusView
) -> None:
    link.interests(entry(1, "job.>"), note(2, wants("paris", "a", Wish("other"))))
    assert chosen(seen, "job.new") == [("@link", None)]
    assert [r.endpoint for r in seen.route("other").receivers] == []


def test_sites_that_are_down_or_refused_are_reasons_of_health_and_who_has_left_is_none(
    link: EndpointByHand, seen: BusView
) -> None:
    down = msgspec.structs.replace(UP, site="oslo", state="down", reason="no word of it")
    refused = msgspec.structs.replace(UP, site="bern", state="refused", reason="version 2")
    left = msgspec.structs.replace(UP, site="pisa", state="left")
    link.interests(*(note(n, each) for n, each in enumerate((HERE, UP, left, down, refused), 1)))
    told = [each for each in seen.health().reasons if each.startswith("site ")]
    assert len(told) == 2
    assert any("oslo" in each and "no word of it" in each for each in told)
    assert any("bern" in each and "version 2" in each for each in told)


# As a link writes them --------------------------------------------------------------------------


@pytest.mark.smoke
def test_what_a_link_notes_is_seen_at_once_and_no_more_once_it_has_left(
    bus: shmbus.Bus, attach: Attach
) -> None:
    client = attach("client")
    with attach_as("@link", bus.name, timeout=60) as link:
        link.handle("shoot", lambda message: None)
        link._note(CAMERA.key, sites.encode(CAMERA))
        link._note(PARIS.key, sites.encode(PARIS))
        client.wait_for("shoot", timeout=60)
        (camera,) = client.bus.find("shoot")
        assert (camera.name, camera.routed) == ("camera@paris", True)
        assert client.bus.route("shoot").handler == "camera@paris"
        for sent in range(100):  # the log is replaced several times
            moved = msgspec.structs.replace(PARIS, sent=sent)
            link._note(moved.key, sites.encode(moved))
        assert [site.sent for site in client.bus.sites()] == [99]
        link._note(CAMERA.key, None)
        assert [e.name for e in client.bus.find("shoot")] == ["@link"]
    assert client.bus.sites() == []
