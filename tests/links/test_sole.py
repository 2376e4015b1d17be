"""A bus joins a space once: what crosses twice would come twice."""

from __future__ import annotations

import pytest

import shmbus
from shmbus import errors
from tests.links.stage import Stage


def test_a_second_link_of_a_bus_to_the_same_space_is_refused_and_to_another_is_not(
    stage: Stage,
) -> None:
    (site,) = stage.sites("berlin")
    site.join()
    again = {"site": "again", "name": "second", "space": stage.space, "listen": ["tcp/127.0.0.1:0"]}
    with pytest.raises(errors.LinkFailed, match=r"'@link' joins it to space .*'berlin'"):
        shmbus.link(site.bus, again)
    with shmbus.link(site.bus, again | {"space": "other"}) as second:
        assert second.status().endpoint == "@second"
