"""Delivery that is confirmed: commands and events of groups come once, whoever is killed."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import Any

import pytest

import shmbus
from shmbus.events import Undeliverable
from shmbus.links import Keep, Keeper, Link, LinkConfig, confirmed
from shmbus.links.keeper import Tell
from shmbus.links.receiving import Receiving
from shmbus.testing import eventually
from tests.links.stage import Site, Stage, meet, mesh

CONFIRMED = {"delivery": "confirmed"}
_numbers = itertools.count(1)


class Receiver:
    """What an endpoint of a site has got."""

    def __init__(self, site: Site) -> None:
        self.endpoint = site.attach(f"there-{next(_numbers)}")
        self.came: list[Any] = []
        self.others: list[str] = []
        self._lock = threading.Lock()

    def take(self, message: shmbus.Message) -> None:
        with self._lock:
            self.came.append(message.payload)

    def take_other(self, message: shmbus.Message) -> None:
        self.others.append(message.type)

    def handle(self, type: str) -> None:
        self.endpoint.handle(type, self.take)
        self.endpoint.start()

    def join(self, type: str, group: str) -> None:
        self.endpoint.subscribe(type, self.take, group=group)
        self.endpoint.start()

    def await_all(self, count: int) -> None:
        """Wait until all have come, and see that each has come once."""
        eventually(lambda: len(set(self.came)) == count, f"all {count} have come")
        assert self.counts() == {1: count}

    def counts(self) -> dict[int, int]:
        """How many have come how often."""
        with self._lock:
            return Counter(Counter(self.came).values())


def one_at_a_time(keeper: Keeper) -> Tell:
    """Has it do what a link says in several threads."""
    lock = threading.Lock()

    def tell(told: Keep) -> None:
        with lock:
            keeper.keep(told)

    return tell


def await_link(site: Site, type: str, role: str) -> None:
    """Wait until its link has this role for the type there."""

    def has() -> bool:
        with shmbus.observe(site.bus) as bus:
            found = bus.route(type).receivers
        return any(r.role == role and r.endpoint.startswith("@link.") for r in found)

    eventually(has, f"the link of {site.name} takes {type}")


@pytest.mark.smoke
def test_commands_come_once_in_their_order_with_who_sent_them(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    mesh(berlin, paris, **CONFIRMED)
    meet(berlin, paris)
    there, here = Receiver(paris), berlin.attach("here")
    there.handle("job.do")
    await_link(berlin, "job.do", "handle")
    for n in range(200):
        here.send("job.do", n)
    there.await_all(200)
    assert there.came == list(range(200))


def test_events_for_a_group_come_to_one_member_and_others_as_ever(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    mesh(berlin, paris, **CONFIRMED)
    meet(berlin, paris)
    there, here = Receiver(paris), berlin.attach("here")
    there.join("job.new", "workers")
    await_link(berlin, "job.new", "subscribe")
    for n in range(200):
        here.publish("job.new", n)
    there.await_all(200)


def test_members_of_a_group_whose_patterns_overlap_get_each_event_once(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    mesh(berlin, paris, **CONFIRMED)
    meet(berlin, paris)
    here, came = berlin.attach("here"), list[object]()
    for pattern in ("job.*.new", "job.big.*", "job.>"):
        there = Receiver(paris)
        there.came = came
        there.join(pattern, "workers")
        await_link(berlin, pattern.replace("*", "x").replace(">", "y"), "subscribe")
    for n in range(100):  # more than are held at a time
        here.publish("job.big.new", n)
    eventually(lambda: len(came) >= 100, "all have come")
    assert sorted(came, key=repr) == sorted(range(100), key=repr)


def test_requests_of_such_types_are_answered(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    mesh(berlin, paris, **CONFIRMED)
    meet(berlin, paris)
    there, here = paris.attach("there"), berlin.attach("here")
    there.handle("job.do", lambda m: m.payload + 1)
    there.start()
    await_link(berlin, "job.do", "handle")
    assert here.request("job.do", 1).payload == 2
    found = here.gather("job.do", 1)
    assert [getattr(one, "payload", one) for one in found.values()] == [2]


def test_what_is_sent_while_a_link_is_started_again_waits_for_it(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    there, here = Receiver(paris), berlin.attach("here")
    there.handle("job.do")
    there.join("job.new", "workers")
    paris.join(**CONFIRMED)
    config = LinkConfig.of(berlin.config(paris, **CONFIRMED))
    with Keeper(berlin.bus, config.name) as keeper:
        with Link(berlin.bus, config, keeper.keep):
            await_link(berlin, "job.do", "handle")
            await_link(berlin, "job.new", "subscribe")
        for n in range(50):
            here.send("job.do", n)
            here.publish("job.new", -1 - n)
        with Link(berlin.bus, config, keeper.keep):
            there.await_all(100)


def test_what_a_site_has_not_confirmed_waits_until_its_link_is_there_again(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    mesh(berlin, paris, **CONFIRMED)
    meet(berlin, paris)
    there, here = Receiver(paris), berlin.attach("here")
    there.handle("job.do")
    await_link(berlin, "job.do", "handle")
    assert paris.link is not None
    paris.link.close()
    for n in range(100):
        here.send("job.do", n)
    paris.join(berlin, **CONFIRMED)
    there.await_all(100)


def test_groups_that_stay_local_have_each_event_on_each_site(stage: Stage) -> None:
    sites = berlin, *_ = stage.sites("berlin", "paris", "rome")
    mesh(*sites, groups="local", **CONFIRMED)
    meet(*sites)
    receivers, here = [Receiver(site) for site in sites], berlin.attach("here")
    others: dict[Receiver, list[object]] = {}
    for receiver in receivers:
        receiver.join("job.new", "w" * 47 + "1")
        taken = others[receiver] = list[object]()
        receiver.endpoint.subscribe("job.new", taken.append, group="w" * 47 + "2")
        receiver.endpoint.subscribe("job.*", receiver.take_other)  # beside the group

    def both() -> bool:
        with shmbus.observe(berlin.bus) as bus:
            found = {e.name: e for e in bus.endpoints() if e.routed}
        held = [found[name].groups for name in ("@link.paris", "@link.rome") if name in found]
        return [*map(len, held)] == [2, 2] and "job.*" in found["@link"].patterns

    eventually(both, "the link of berlin takes it for both, and for who is in no group")
    for n in range(20):
        here.publish("job.new", n)
    here.publish("job.end")
    for receiver in receivers:
        eventually(lambda: "job.end" in receiver.others, "all have come")  # noqa: B023
        receiver.await_all(20)
        eventually(lambda: len(others[receiver]) == 20, "the other group has each, too")  # noqa: B023


def test_what_nobody_takes_there_any_more_is_undeliverable_here(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    mesh(berlin, paris, **CONFIRMED)
    meet(berlin, paris)
    there, here = Receiver(paris), berlin.attach("here")
    there.handle("job.do")
    await_link(berlin, "job.do", "handle")
    with here.subscribe("$bus.undeliverable", payload_type=Undeliverable):
        assert paris.link is not None
        paris.link.close()
        there.endpoint.close()
        here.send("job.do", 1)
        paris.join(berlin, **CONFIRMED)
        message = here.receive(60)
    assert message is not None
    assert (message.payload.type, message.payload.source) == ("job.do", "here")


def test_what_waits_for_a_site_that_does_not_return_becomes_a_dead_letter(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed, "AWAY", 0.1)
    monkeypatch.setattr(confirmed, "KEPT", 0.1)
    berlin, paris = stage.sites("berlin", "paris")
    there, here = Receiver(paris), berlin.attach("here")
    there.handle("job.do")
    paris.join(**CONFIRMED)
    here.subscribe("$bus.undeliverable", payload_type=Undeliverable)
    config = LinkConfig.of(berlin.config(paris, **CONFIRMED))
    with Keeper(berlin.bus, config.name) as keeper:
        with Link(berlin.bus, config, keeper.keep):
            await_link(berlin, "job.do", "handle")
            assert paris.link is not None
            paris.link.close()
            here.send("job.do", "held")
            held = here.receive(60)
            paris.join(**CONFIRMED)
            await_link(berlin, "job.do", "handle")
        paris.link.close()
        here.send("job.do", "kept")
        with Link(berlin.bus, config, keeper.keep):
            kept = here.receive(60)
    assert held is not None
    assert kept is not None
    assert [each.payload.payload[1:] for each in (held, kept)] == [b"held", b"kept"]
    assert not there.came


def test_what_several_sites_may_have_is_done_once_whichever_the_next_link_meets_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    berlin, paris, rome = sites = stage.sites("berlin", "paris", "rome")
    for number, site in enumerate(sites[1:]):
        site.join(*sites[1:][:number], **CONFIRMED)
    here, receivers = berlin.attach("here"), [Receiver(paris), Receiver(rome)]
    for receiver in receivers:
        receiver.handle("job.do")
    config = LinkConfig.of(berlin.config(paris, rome, **CONFIRMED))

    def both_handle() -> bool:
        with shmbus.observe(berlin.bus) as bus:
            found = {r.endpoint for r in bus.route("job.do").receivers}
        return found >= {"@link.paris", "@link.rome"}

    def came() -> list[Any]:
        return sorted(receivers[0].came + receivers[1].came)

    with Keeper(berlin.bus, config.name) as keeper:
        keep = one_at_a_time(keeper)
        with monkeypatch.context() as deaf:
            deaf.setattr(Receiving, "_say", lambda *_: None)
            with Link(berlin.bus, config, keep):
                eventually(both_handle, "both sites have them")
                for n in range(20):
                    here.send("job.do", n)
                eventually(lambda: came() == list(range(20)), "all are done, and none confirmed")
        assert all(receiver.came for receiver in receivers)
        for n in range(20, 400):
            here.send("job.do", n)
        with Link(berlin.bus, config, keep, keeper.sites) as link:
            eventually(lambda: len(set(came())) == 400, "what waited is done")
            eventually(
                lambda: not any(peer.unconfirmed for peer in link.status().peers),
                "all is confirmed",
            )
            assert came() == list(range(400))
            for n in range(400, 420):
                here.send("job.do", n)
                eventually(lambda: n in came(), "one more is done")  # noqa: B023
    for site in (paris, rome):
        with shmbus.observe(site.bus) as bus:
            note = max(bus.retained("$bus.link.done.berlin"), key=lambda value: value.number)
        assert len(note.raw) <= 3 * 16, "ids of what is done are forgotten"


def test_a_site_that_is_gone_for_good_does_not_keep_others_from_what_it_may_have(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmed, "AWAY", 0.5)
    berlin, rome = stage.sites("berlin", "rome")
    rome.join(**CONFIRMED)
    there, here = Receiver(rome), berlin.attach("here")
    there.handle("job.do")
    config = LinkConfig.of(berlin.config(rome, **CONFIRMED))
    with Keeper(berlin.bus, config.name) as keeper:
        with Link(berlin.bus, config, keeper.keep):
            await_link(berlin, "job.do", "handle")
        here.send("job.do", 1)
        with Link(berlin.bus, config, keeper.keep, ["paris", *keeper.sites]):
            there.await_all(1)
