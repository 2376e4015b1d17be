"""What a link's bus refuses is tried again. Without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import errors
from shmbus.links import pauses, receiving, wire
from shmbus.links.config import LinkConfig
from shmbus.links.node import Node
from shmbus.links.receiving import Receiving
from shmbus.links.sure import Sure
from shmbus.links.tables import Away, Table, Wanted
from shmbus.links.wanting import Wanting
from shmbus.testing import Attach, run_async
from tests.links.test_leaving import RUN, Paris, berlin


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "FIRST", 0.001)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


def test_pauses_double_up_to_the_longest_and_begin_anew() -> None:
    made = pauses.Pauses(1.0, longest=3.0)
    assert [made.next() for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]
    made.over()
    assert made.next() == 1.0


def test_what_a_site_wants_is_subscribed_to_once_the_bus_permits_it(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    member = attach("member")
    other_key = member.subscribe("job.*", group="workers", key="job.{id}")

    @run_async
    async def main() -> None:
        paris = Paris()
        wants = (Wanted("subscribe", "job.*", "workers"), Wanted("subscribe", "other"))
        paris.table.set(Table(0, (Away("reader", 1, "paris", wants),)))
        node, settled = await berlin(bus, paris), list[int]()
        node.settling.on_settled.append(lambda: settled.append(1))
        wanting = Wanting(node)
        wanting.look()
        await until(lambda: len(settled) > 2)  # it has failed twice
        assert [found.name for found in bus.find("other")] == ["@link"]
        other_key.close()
        await until(lambda: bus.find("job.1"))
        wanting.close()
        await node.close()

    assert len(caplog.messages) == 1  # of one reason, however often


def test_many_that_a_site_wants_are_subscribed_to_together(bus: shmbus.Bus) -> None:
    @run_async
    async def main() -> None:
        paris = Paris()
        wants = tuple(Wanted("subscribe", f"type.n{i}") for i in range(40))
        paris.table.set(Table(0, (Away("reader", 1, "paris", wants),)))
        node, settled = await berlin(bus, paris), asyncio.Event()
        node.settling.on_settled.append(settled.set)
        wanting = Wanting(node)
        wanting.look()
        await settled.wait()
        assert all(bus.find(want.pattern) for want in wants)
        paris.table.set(Table(1))
        settled.clear()
        wanting.look()
        await settled.wait()
        assert not any(bus.find(want.pattern) for want in wants)
        await node.close()


def test_a_bus_that_could_not_be_looked_at_is_looked_at_again(bus: shmbus.Bus) -> None:
    @run_async
    async def main() -> None:
        node = Node(bus.name, LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",)), RUN)
        await node.attach()
        looks, see = list[int](), node.looking.see

        async def see_at_last() -> None:
            looks.append(1)
            if len(looks) < 3:
                raise errors.NoSuchBus(bus=bus.name)
            await see()

        there: Any = node.looking
        there.see = see_at_last
        node.looking.look()
        await until(lambda: node.looking._seen)
        await node.close()


def test_what_comes_before_a_killed_links_last_messages_are_forwarded_comes_again(
    bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "SETTLED", 0.05)
    sure = msgspec.Raw(wire.packed(Sure("writer", 1, "", 0)))

    @run_async
    async def main() -> None:
        paris = Paris()
        node = await berlin(bus, paris)
        node.peers._there["paris"] = paris
        view, looks = node.endpoint.bus, list[int]()
        former = msgspec.structs.replace(view.endpoints()[0], state="dead")
        seen: Any = view
        endpoints = seen.endpoints

        def with_former() -> list[Any]:
            looks.append(1)
            return [former, *endpoints()]

        monkeypatch.setattr(type(view), "endpoints", lambda _: with_former())
        receiving = Receiving(node)
        receiving.take(paris, "job", sure, b"\xc0")
        await until(lambda: receiving._work and receiving._work.done())
        assert len(looks) < 10
        assert paris.sent == []
        monkeypatch.undo()
        receiving.take(paris, "job", sure, b"\xc0")
        await until(lambda: paris.sent)  # refused, since nobody here takes it
        await node.close()
