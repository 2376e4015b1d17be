"""A site that sends garbage harms the statistics of links and nothing else."""

from __future__ import annotations

import pytest

from shmbus.testing import eventually
from tests.links.books import Books
from tests.links.stage import Stage, meet

pytest.importorskip("zenoh")

from tests.links.garbage import Vandal


def test_garbage_in_every_lane_is_counted_and_the_others_go_on(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    books = Books(berlin, paris)
    link = berlin.join()
    with Vandal(stage.space, "oslo", berlin.port, 1) as vandal:
        eventually(vandal.hears_all, "its session has begun")
        paris.join(berlin)
        meet(berlin, paris)
        books.opened()
        books.work()
        lanes = {"control", "event", "send", "request", "reply"}
        eventually(lambda: vandal.seen() >= lanes, "it knows frames of every lane")
        vandal.join()
        eventually(lambda: "oslo" in {peer.site for peer in link.status().peers})
        for _ in range(20):
            before = link.status()
            vandal.spoil("berlin", before.run, 100)
            eventually(lambda before=before: link.status().garbage > before.garbage)  # type: ignore[misc]
            books.progress()
        books.rest()
        books.close()
        books.all_well()
    eventually(lambda: "oslo" not in {peer.site for peer in link.status().peers})
