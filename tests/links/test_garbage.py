"""A site that sends garbage harms the statistics of links and nothing else."""

from __future__ import annotations

import pytest

from shmbus.testing import eventually
from tests.links.stage import Stage

pytest.importorskip("zenoh")

from tests.links.garbage import Vandal


def test_garbage_in_every_lane_is_counted_and_the_others_go_on(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    link = berlin.join()
    with Vandal(stage.space, "oslo", berlin.port, 1) as vandal:
        eventually(vandal.hears_all, "its session has begun")
        paris.join(berlin)
        eventually(lambda: vandal.seen() >= {"control"}, "it knows the lanes")
        vandal.join()
        run = link.status().run
        for _ in range(10):
            vandal.spoil("berlin", run, 100)
        eventually(lambda: link.status().garbage > 100)
        print(link.status())
        assert berlin.sees() >= {"paris"}
