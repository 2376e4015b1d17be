"""Events that come for one subscription alone, in an event loop."""

from __future__ import annotations

import pytest

from tests.addressed import address

from .stage import AioAttach


@pytest.mark.smoke
async def test_an_event_for_one_subscription_alone_is_not_for_the_others(
    attach: AioAttach,
) -> None:
    async with attach("source") as source, attach("here") as here:
        calls = list[tuple[str, int]]()

        async def called(message: object) -> None:
            calls.append(("job", message.payload))  # type: ignore[attr-defined]

        iterated = aiter(await here.subscribe("x"))
        await here.subscribe("*", called)
        await here.subscribe("x", lambda message: calls.append(("called", message.payload)))
        others = await here.subscribe("x")
        await source.publish_many([("x", n) for n in range(5)])
        address(here._inner, 1, 2, 3, None, 4)  # before the loop has a turn
        assert (await anext(iterated)).payload == 0
        assert (await anext(iterated)).payload == 3
        message = await here.receive(10)
        assert message is not None
        assert message.payload == 3
        assert (await anext(aiter(others))).payload == 4
        await here.drain()
        assert sorted(calls) == [("called", 2), ("called", 3), ("job", 1), ("job", 3)]
