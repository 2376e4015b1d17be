"""A grant, as tasks meet it."""

from __future__ import annotations

import pytest

from shmbus import Grant, errors
from shmbus.testing import AioAttach, BusProcess


@pytest.fixture
def bus_grants() -> dict[str, Grant | None]:
    return {"plug": Grant(publish=("news",))}


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
