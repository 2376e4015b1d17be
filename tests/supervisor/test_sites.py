"""What runs on other machines is none of a supervisor's business."""

from __future__ import annotations

import os

import shmbus
from shmbus.endpoint.attach import attach_as
from shmbus.shared.sites import EndpointNote, Wish, encode
from shmbus.supervisor.on_bus import OnBus


def test_endpoints_of_other_sites_belong_to_none_of_its_processes(bus: shmbus.Bus) -> None:
    note = EndpointNote(
        name="camera", site="paris", pid=os.getpid(), interests=(Wish("shoot", "handle"),)
    )
    with attach_as("@link", bus.name, timeout=60) as link:
        link._note(note.key, encode(note))
        assert [e.name for e in bus.endpoints()] == ["@link", "camera@paris"]
        on_bus = OnBus(bus)
        assert {name for _, name in on_bus.attached()} == {"@link", "supervisor"}
        assert all("shoot" not in patterns for _, patterns in on_bus.handlers())
        assert on_bus.handled_in(os.getsid(0)) == []
        on_bus.close()
