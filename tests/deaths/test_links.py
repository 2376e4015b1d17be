"""What becomes of the work of a link that dies: its keeper has it until the link is there again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import shmbus
from shmbus.endpoint.attach import attach_as
from shmbus.testing import Attach, MakeRecorder, eventually, start_python

Link = Callable[[str], shmbus.Endpoint]

BEGINS_ONE = """
    import sys, time
    from shmbus.endpoint.attach import attach_as

    with attach_as("@link", sys.argv[1]) as link:
        link.handle("ask", lambda message: (print("begun"), time.sleep(600)))
        link.handle("do", lambda message: None)
        link.subscribe("job", lambda message: None, group="workers")
        link.run()
"""


@pytest.fixture
def link(bus: shmbus.Bus) -> Iterator[Link]:
    """A link, or a keeper, that does the same work, if it is told to."""
    with ExitStack() as stack:

        def attach(name: str) -> shmbus.Endpoint:
            endpoint = stack.enter_context(attach_as(name, bus.name, timeout=60))
            endpoint.handle("ask", lambda message: "done")
            endpoint.handle("do", lambda message: endpoint.publish("did", message.payload))
            endpoint.subscribe("job", lambda m: endpoint.publish("did", m.payload), group="workers")
            return endpoint

        yield attach


def test_what_a_killed_link_had_not_begun_its_successor_does_once(
    bus: shmbus.Bus, attach: Attach, link: Link, recorder: MakeRecorder
) -> None:
    did, letters, keeper = recorder("did"), recorder("$bus.undeliverable"), link("@@link")
    caller = attach("caller")
    with start_python(BEGINS_ONE, bus.name) as first:
        eventually(lambda: bus.route("job").subscribers == ("@link",))
        begun = caller.request_async("ask", timeout=60)
        first.line()
        waits = caller.request_async("ask", timeout=60)
        caller.send("do", 0)
        for n in (1, 2):
            caller.publish("job", n)
        first.kill()
        with pytest.raises(shmbus.EndpointDied, match="'@link'"):
            begun.result()
    eventually(lambda: bus.route("do").handler == "@@link")
    caller.send("do", 3)
    link("@link").start()
    keeper.close()
    assert waits.result().payload == "done"
    did.wait(4)
    assert sorted(message.payload for message in did.messages) == [0, 1, 2, 3]
    assert not letters.messages
