"""Events of other sites: once, in order, only where they are wanted, and each loss is counted."""

from __future__ import annotations

from functools import partial
from typing import cast

import msgspec
import numpy as np
import pytest

import shmbus
from shmbus.endpoint._kernel import Origin, entry_of
from shmbus.events import LinkDown, LinkUp
from shmbus.links.clock import Clock, Pong
from shmbus.links.coming import _Came, is_newer
from shmbus.links.peer import Peer
from shmbus.links.runs import Run
from shmbus.links.status import PeerStatus
from shmbus.testing import eventually
from shmbus.views import Retained
from tests.links.stage import Site, Stage, meet, mesh


class Pair:
    """Two sites that are joined, and an endpoint at each."""

    def __init__(self, here: Site, there: Site) -> None:
        self.here, self.there = here, there

    def towards(self) -> PeerStatus:
        """There, as the link here sees it."""
        assert self.here.link is not None
        return next(p for p in self.here.link.status().peers if p.site == self.there.name)


@pytest.fixture
def pair(stage: Stage) -> Pair:
    here, there = stage.sites("here", "there")
    mesh(here, there)
    meet(here, there)
    return Pair(here, there)


@pytest.fixture
def publisher(pair: Pair) -> shmbus.Endpoint:
    return pair.here.attach("publisher")


@pytest.fixture
def reader(pair: Pair) -> shmbus.Endpoint:
    return pair.there.attach("reader")


def texts(endpoint: shmbus.Endpoint, count: int) -> list[object]:
    """The payloads of so many messages, and no more come."""
    found = [endpoint.receive(timeout=30) for _ in range(count)]
    assert endpoint.receive(timeout=0.05) is None
    return [message and message.payload for message in found]


@pytest.mark.smoke
def test_an_event_comes_to_who_subscribes_on_another_bus_with_where_it_is_from(
    publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    reader.subscribe("sensor.*.temperature")
    publisher.wait_for("sensor.1.temperature")
    publisher.publish("sensor.1.temperature", {"celsius": 21})
    message = reader.receive(timeout=30)
    assert message is not None
    assert (message.type, message.payload) == ("sensor.1.temperature", {"celsius": 21})
    assert (message.source, message.site, message.lost) == ("publisher@here", "here", 0)


def test_events_come_in_the_order_in_which_they_were_published(
    publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    reader.subscribe("count.>")
    publisher.wait_for("count.even")
    for i in range(3000):
        publisher.publish("count.odd" if i % 2 else "count.even", i)
    assert texts(reader, 3000) == list(range(3000))


def test_an_event_crosses_once_whatever_the_number_of_subscribers(
    pair: Pair, publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    with shmbus.attach(pair.there.bus, name="another") as another:
        reader.subscribe("many.>")
        reader.subscribe("many.one")
        another.subscribe("many.*")
        eventually(lambda: len(publisher.bus.find("many.one")) == 2, "both are known")
        before = pair.towards().sent
        publisher.publish("many.one", "once")
        assert texts(reader, 1) == texts(another, 1) == ["once"]
        assert pair.towards().sent == before + 1


def test_what_nobody_wants_over_there_does_not_cross(
    pair: Pair, publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    reader.subscribe("wanted")
    publisher.wait_for("wanted")
    before = pair.towards().sent
    publisher.publish("unwanted", 1)
    publisher.publish("wanted", 2)
    assert texts(reader, 1) == [2]
    assert pair.towards().sent == before + 1


def test_an_interest_that_ends_ends_the_traffic(
    pair: Pair, publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    with reader.subscribe("ends.>"):
        publisher.wait_for("ends.soon")
    eventually(lambda: not publisher.bus.find("ends.soon"), "it is known")
    before = pair.towards().sent
    publisher.publish("ends.soon")
    assert pair.towards().sent == before


def test_payloads_of_every_kind_and_size_arrive_as_they_are(
    publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    reader.subscribe("kinds")
    publisher.wait_for("kinds")
    numbers = np.arange(300_000, dtype=np.float32).reshape(3, 100_000)
    for payload in (None, b"raw", b"", ["list", 1], bytes(2_000_000), numbers, {"a": numbers}):
        publisher.publish("kinds", payload)
    found = texts(reader, 7)
    assert found[:5] == [None, b"raw", b"", ["list", 1], bytes(2_000_000)]
    assert np.array_equal(np.asarray(found[5]), numbers)
    assert isinstance(found[6], dict)
    assert np.array_equal(found[6]["a"], numbers)


def test_one_member_of_all_gets_an_event_of_a_group_and_a_local_one_before_others(
    pair: Pair, publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    reader.subscribe("work.>", group="workers")
    publisher.wait_for("work.one")
    publisher.publish("work.one", "there")
    assert texts(reader, 1) == ["there"]
    with shmbus.attach(pair.here.bus, name="local") as local:
        local.subscribe("work.>", group="workers")
        for i in range(5):
            publisher.publish("work.one", i)
        assert texts(local, 5) == [*range(5)]
        assert texts(reader, 0) == []


def test_plain_subscribers_and_a_group_get_their_own_copies(
    pair: Pair, publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    with shmbus.attach(pair.there.bus, name="member") as member:
        reader.subscribe("both.>")
        member.subscribe("both.>", group="members")
        eventually(lambda: len(publisher.bus.find("both.one")) == 2, "both are known")
        publisher.publish("both.one", 1)
        assert texts(reader, 1) == texts(member, 1) == [1]


def test_a_value_that_is_kept_comes_to_who_subscribes_later(
    pair: Pair, publisher: shmbus.Endpoint, reader: shmbus.Endpoint
) -> None:
    publisher.publish("state.a", "old", retain=True)
    publisher.publish("state.b", "other", retain=True)
    publisher.publish("state.a", "new", retain=True)
    reader.subscribe("state.>", history=1)
    assert texts(reader, 2) == ["other", "new"]
    publisher.publish("state.a", "newer", retain=True)
    assert texts(reader, 1) == ["newer"]
    with shmbus.attach(pair.there.bus, name="later") as later:
        later.subscribe("state.a", history=1)
        assert texts(later, 1) == ["newer"]


@pytest.mark.parametrize(
    ("boots", "stamp", "newer"), [(1, 50.0, False), (1, 50.1, True), (2, 5.0, True)]
)
def test_a_kept_value_is_newer_by_its_sources_clock_or_where_that_began_anew_by_ours(
    boots: int, stamp: float, newer: bool
) -> None:
    second = 10**9
    there = {1: 60.0, 2: 10.0}[boots]  # what its clock shows now; ours 1,000 s
    clock, now = Clock(), 1000 * second
    clock.ping(now)
    clock.take(Pong(now, int(there * second), int(there * second)), now)
    kept = Retained(
        type="state", payload=None, source="publisher@there", site="there", number=1,
        sent=5000 - 10.0 - (15.0 if boots == 2 else 0), stamp_ns=50 * second, size=0,
        format="raw", raw=b"",
    )  # fmt: skip
    origin = Origin("publisher", "there", 0, 0, int(stamp * second), 0)
    assert is_newer(clock, origin, [kept], now, 5000.0) is newer
    other = msgspec.structs.replace(kept, source="other", sent=4999.9)
    assert not is_newer(clock, origin, [other], now, 5000.0)


def test_urgent_events_stay_so(publisher: shmbus.Endpoint, reader: shmbus.Endpoint) -> None:
    reader.subscribe("alarm")
    publisher.wait_for("alarm")
    publisher.publish("alarm", "fire", urgent=True)
    message = reader.receive(timeout=30)
    assert message is not None
    assert message.urgent


def test_three_sites_get_each_event_once(stage: Stage) -> None:
    sites = stage.sites("a", "b", "c")
    mesh(*sites)
    meet(*sites)
    readers = [site.attach("reader") for site in sites]
    for reader in readers:
        reader.subscribe(">")
    for site in sites:
        eventually(partial(all_known, site, "tick"), "all are known")
    for site in sites:
        site.attach("publisher").publish("tick", site.name)
    for reader in readers:
        assert sorted(map(str, texts(reader, 3))) == ["a", "b", "c"]


def all_known(site: Site, type: str) -> bool:
    with shmbus.observe(site.bus) as view:
        return len(view.find(type)) == 3


def test_each_site_has_one_member_of_a_group_where_groups_are_local(stage: Stage) -> None:
    here, there = stage.sites("here", "there")
    mesh(here, there, groups="local")
    meet(here, there)
    members = [site.attach("member") for site in (here, there)]
    for member in members:
        member.subscribe("work", group="workers")
    publisher = here.attach("publisher")
    publisher.wait_for("work", receivers=2)
    publisher.publish("work", 1)
    assert texts(members[0], 1) == texts(members[1], 1) == [1]


def test_only_what_both_sides_permit_crosses_under_the_names_that_it_has_there(
    stage: Stage,
) -> None:
    here, there = stage.sites("here", "there")
    rename = [{"local": "sensor", "space": "here.sensor"}]
    here.join(export=["sensor.>", "other.>"], rename=rename)
    there.join(here, **{"import": ["here.>"]})
    meet(here, there)
    reader = there.attach("reader")
    reader.subscribe(">")
    publisher = here.attach("publisher")
    publisher.wait_for("sensor.1")
    for type in ("sensor.1", "other.1", "here.sensor.2", "private.1"):
        publisher.publish(type, type)
    message = reader.receive(timeout=30)
    assert message is not None
    assert (message.type, message.payload) == ("here.sensor.1", "sensor.1")
    assert reader.receive(timeout=0.05) is None


def test_the_bus_tells_when_another_site_can_be_reached_and_when_not(stage: Stage) -> None:
    here, there = stage.sites("here", "there")
    watcher = here.attach("watcher")
    watcher.subscribe("$bus.link.up", payload_type=LinkUp)
    watcher.subscribe("$bus.link.down", payload_type=LinkDown)
    mesh(here, there)
    up = watcher.receive(timeout=30)
    assert up is not None
    assert (up.payload.site, up.payload.link) == ("there", "@link")
    assert there.link is not None
    there.link.close()
    down = watcher.receive(timeout=30)
    assert down is not None
    assert (down.payload.site, down.payload.run) == ("there", up.payload.run)
    with shmbus.observe(here.bus) as view:
        eventually(lambda: [site.state for site in view.sites()] == ["here", "left"])


def test_what_the_links_own_ring_loses_is_counted_over_there(stage: Stage) -> None:
    here, there = stage.site("here", in_bytes=1 << 16, block_timeout=0.001), stage.site("there")
    mesh(here, there)
    meet(here, there)
    publisher, reader = here.attach("publisher"), there.attach("reader")
    reader.subscribe("flood")
    publisher.wait_for("flood")
    assert here.link is not None
    batch = [("flood", bytes(1000))] * 1500
    here.link._call(lambda _: publisher.publish_many(batch))  # it takes nothing meanwhile
    came = lost = more = 0
    while came + lost < 1500 + more and more < 20:
        message = reader.receive(timeout=0.2)
        if message is None:
            publisher.publish("flood", "what was lost is told with the next one")
            more += 1
        else:
            came, lost = came + 1, lost + message.lost
    assert lost > 0
    assert came + lost == 1500 + more


def test_what_was_lost_is_told_with_one_event_of_those_that_wait_for_space() -> None:
    run = Run("publisher", 0, ("",), 0, entry_of(1, 1) + entry_of(2, 1))
    origin = Origin("publisher", "there", 1, 0, 1, 7)
    came = _Came(cast(Peer, None), "flood", "flood", run, b"ab", 2, origin, 0)
    told = []
    while not came.done:
        left = came.left().origin
        assert left is not None
        told.append(left.lost)
        came.told()
        came.skip()
    assert told == [7, 0]
