"""A grant, as tasks meet it."""

from __future__ import annotations

import pytest

from shmbus import Grant, errors
from shmbus.aio.attach import attach_as
from shmbus.aio.posting import EVENT
from shmbus.aio.relay import Relay
from shmbus.testing import AioAttach, BusProcess


@pytest.fixture
def bus_grants() -> dict[str, Grant | None]:
    return {"plug": Grant(publish=("news",)), "@link": Grant(publish=("news",)), "sink": None}


async def test_what_is_not_granted_is_forbidden(
    bus_process: BusProcess, aio_attach: AioAttach
) -> None:
    async with aio_attach("plug") as plug:
        await plug.publish("news")
        for call in (plug.publish, plug.send, plug.request, plug.subscribe):
            with pytest.raises(errors.Forbidden):
                await call("secret")
        with pytest.raises(errors.Forbidden) as caught:
            await plug.publish_many([("news", 1), ("secret", 2)])
        assert caught.value.index == 1


async def test_who_has_no_grant_is_not_admitted(
    bus_process: BusProcess, aio_attach: AioAttach
) -> None:
    with pytest.raises(errors.Forbidden, match="stranger"):
        async with aio_attach("stranger"):
            pass


async def test_of_messages_that_go_together_none_is_sent_where_one_may_not_be(
    bus_process: BusProcess, aio_attach: AioAttach
) -> None:
    async with attach_as("@link", bus_process.name) as link, aio_attach("sink") as sink:
        await sink.subscribe(">")
        await sink.subscribe("$bus.link.>")
        note = (EVENT, 0, "$bus.link.done.paris", b"")
        with pytest.raises(errors.Forbidden, match="rumours"):
            await Relay(link).together([(EVENT, 0, "news", 1), (EVENT, 0, "rumours", 1), note])
        await Relay(link).together([(EVENT, 0, "news", 2), note])
        got = [await sink.receive(60) for _ in range(2)]
        found = [m and (m.type, m.payload) for m in got]
        assert found == [("news", 2), ("$bus.link.done.paris", b"")]
