"""What a link tells who observes its bus."""

from __future__ import annotations

import asyncio
from typing import Any

import shmbus
from shmbus.links import notes
from shmbus.links.config import LinkConfig
from shmbus.links.node import Node
from shmbus.links.notes import Notes
from shmbus.testing import eventually, run_async
from tests.links.stage import Stage, meet
from tests.links.test_leaving import Paris


def test_counts_are_noted_without_a_look_at_the_endpoints_of_each_site(
    bus: shmbus.Bus, monkeypatch: Any
) -> None:
    monkeypatch.setattr(notes, "EVERY", 0.01)

    @run_async
    async def main() -> None:
        paris = Paris()
        node = Node(bus.name, LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",)), "0" * 16)
        await node.attach()
        node.peers._known["paris"] = paris
        made = Notes(node)
        made.write()
        there = {endpoint.name for endpoint in bus.endpoints()}
        assert there >= {"@link", "reader@paris"}
        paris.table.endpoints.clear()  # who looks at them again would take them back
        paris.received = 3
        made.write_later()
        while [site.received for site in bus.sites() if site.name == "paris"] != [3]:
            await asyncio.sleep(0.01)
        assert {endpoint.name for endpoint in bus.endpoints()} == there
        await node.close()


def test_a_site_that_is_refused_is_noted_at_once_and_one_that_was_never_met_is_not(
    bus: shmbus.Bus,
) -> None:
    @run_async
    async def main() -> None:
        paris = Paris()
        node = Node(bus.name, LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",)), "0" * 16)
        await node.attach()
        node.peers._known["paris"] = paris
        made = Notes(node)

        def states() -> dict[str, str]:
            return {site.name: site.state for site in bus.sites()}

        oslo = f"shmbus/99/default/site/oslo/{'1' * 16}"
        node.space.take_signs([(oslo, True)])
        assert states() == {"berlin": "here", "oslo": "refused", "paris": "up"}
        node.space.take_signs([(oslo, False)])
        paris.up = False
        made.write()
        assert states() == {"berlin": "here"}
        paris.met = True
        made.write()
        assert states() == {"berlin": "here", "paris": "down"}
        await node.close()


def test_how_far_away_a_site_is_is_noted_though_nothing_comes_from_it(stage: Stage) -> None:
    berlin, paris = stage.sites("berlin", "paris")
    berlin.join()
    paris.join(berlin)
    meet(berlin, paris)

    def known() -> bool:
        views = [shmbus.observe(each.bus) for each in (berlin, paris)]
        there = [site for view in views for site in view.sites() if site.state == "up"]
        return len(there) == 2 and all(site.round_trip is not None for site in there)

    eventually(known, "both buses say how far away the other one is")
