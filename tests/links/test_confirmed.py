"""Delivery that is confirmed: commands and events of groups come once, whoever is killed."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

import shmbus
from shmbus.testing import eventually
from tests.links.stage import Site, Stage, meet, mesh

CONFIRMED = {"delivery": "confirmed"}


class Receiver:
    """What an endpoint of a site has got."""

    def __init__(self, site: Site) -> None:
        self.endpoint = site.attach("there")
        self.came: list[Any] = []
        self._lock = threading.Lock()

    def take(self, message: shmbus.Message) -> None:
        with self._lock:
            self.came.append(message.payload)

    def handle(self, type: str) -> None:
        self.endpoint.handle(type, self.take)
        self.endpoint.start()

    def join(self, type: str, group: str) -> None:
        self.endpoint.subscribe(type, self.take, group=group)
        self.endpoint.start()

    def await_all(self, count: int) -> None:
        """Wait until all have come, and see that each has come once."""
        eventually(lambda: len(set(self.came)) == count, f"{count} came, of which {self.counts()}")
        assert self.counts() == {1: count}

    def counts(self) -> dict[int, int]:
        """How many have come how often."""
        with self._lock:
            return Counter(Counter(self.came).values())


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
