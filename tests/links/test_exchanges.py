"""Requests to other sites, as far as this side goes: peers that answer, that do not, that say what
nobody asked for, and that go."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest

from shmbus import errors
from shmbus.endpoint._kernel import Encoded, Message
from shmbus.links import failures
from shmbus.links.channel import Channel
from shmbus.links.exchanges import (
    PARTS,
    REPLY,
    WINDOW,
    Answer,
    Ask,
    Credit,
    End,
    Failed,
    Part,
    Withdrawn,
    part_bytes,
)
from shmbus.links.peer import Peer
from shmbus.links.requests import Asking
from shmbus.links.rules import Rules
from shmbus.links.wire import Garbage
from shmbus.shared.failures import Passed
from shmbus.shared.layout import RecordFlag
from shmbus.testing import run_async

RAW = RecordFlag.RAW


class Site(Peer):
    """A peer that says nothing by itself, and keeps what is said to it."""

    def __init__(self, site: str) -> None:
        super().__init__(site, "0" * 16, Rules([">"], [">"]), cast(Channel, self))
        self.got: list[tuple[str, Any, bytes]] = []

    def send(self, lane: str, type: str, body: object, payload: Any = b"") -> None:
        assert lane == "request"
        self.got.append((type, body, bytes(payload)))

    @property
    def asked(self) -> Ask:
        """What came first."""
        return next(body for _, body, _ in self.got if isinstance(body, Ask))

    @property
    def last(self) -> Any:
        """What came last."""
        return self.got[-1][1]


class Request:
    """A request of an endpoint here."""

    type, source, sent_ns, attempt = "a.b", "me", 7, 1
    deadline_ns: int | None = None
    cancelled = False

    def __init__(self, *, parts: bool = False) -> None:
        self._streams = parts
        self.failed: errors.BusError | None = None

    def _encoded(self) -> Encoded:
        return Encoded(RAW, b"question")

    def _fail_as(self, error: errors.BusError) -> None:
        self.failed = error


def asking(*sites: Site) -> Asking:
    """Of a link that has these peers, the nearest first."""
    able = [(site, "x.a.b") for site in sites]
    return Asking(lambda type: able, asyncio.get_running_loop())


def ask(link: Asking, request: Request) -> asyncio.Task[Any]:
    return asyncio.create_task(link.ask(cast(Message, request)))


async def settle() -> None:
    """Everybody has had a turn."""
    for _ in range(5):
        await asyncio.sleep(0)


def answer(site: Site, text: bytes = b"answer") -> tuple[Peer, Answer, bytes]:
    return site, Answer(site.asked.number, "there", 9, RAW), text


def failure(site: Site, error: errors.BusError) -> tuple[Peer, Failed, bytes]:
    return site, Failed(site.asked.number), failures.account(error)


def part(site: Site, index: int, text: bytes = b"part") -> tuple[Peer, Part, bytes]:
    return site, Part(site.asked.number, "there", 9, RAW, index), text


@pytest.mark.smoke
def test_the_nearest_is_asked_and_its_answer_is_the_reply() -> None:
    async def main() -> None:
        near, far = Site("near"), Site("far")
        link, request = asking(near, far), Request()
        task = ask(link, request)
        await settle()
        ((type, body, payload),) = near.got
        assert (type, body.source, body.want, payload) == ("x.a.b", "me", REPLY, b"question")
        link.take(*answer(near))
        reply = await task
        assert (bytes(reply.data), reply.origin.source, reply.origin.site) == (
            b"answer",
            "there",
            "near",
        )
        assert not far.got
        link.take(*answer(near, b"again"))  # which is passed over
        link.end()

    run_async(main)


@pytest.mark.parametrize(
    "untouched",
    [
        errors.NoRoute(type="x.a.b"),
        errors.EndpointDied(type="x.a.b", endpoint="worker", begun=False),
    ],
)
def test_where_nobody_has_begun_it_the_next_site_is_asked(untouched: errors.BusError) -> None:
    async def main() -> None:
        near, far = Site("near"), Site("far")
        link = asking(near, far)
        task = ask(link, Request())
        await settle()
        link.take(*failure(near, untouched))
        await settle()
        link.take(*answer(far))
        assert bytes((await task).data) == b"answer"
        link.end()

    run_async(main)


def test_an_error_keeps_its_class_and_says_where_it_was() -> None:
    async def main() -> None:
        site = Site("paris")
        link, request = asking(site, Site("unasked")), Request()
        task = ask(link, request)
        await settle()
        link.take(
            *failure(site, errors.HandlerTimeout(type="x.a.b", endpoint="worker", seconds=2.0))
        )
        assert await task is None
        assert isinstance(request.failed, errors.HandlerTimeout)
        assert request.failed.endpoint == "worker@paris"
        assert (request.failed.type, request.failed.seconds) == ("a.b", 2.0)
        link.end()

    run_async(main)


def test_where_nobody_handles_it_there_is_no_route_at_once() -> None:
    async def main() -> None:
        request = Request()
        assert await asking().ask(cast(Message, request)) is None
        assert isinstance(request.failed, errors.NoRoute)

    run_async(main)


def test_who_waits_learns_at_once_that_a_site_has_gone() -> None:
    async def main() -> None:
        site, other = Site("paris"), Site("rome")
        link, request = asking(site), Request()
        task = ask(link, request)
        await settle()
        link.gone(other, "gone")
        await settle()
        assert not task.done()
        link.gone(site, "gone")
        assert await task is None
        assert isinstance(request.failed, errors.EndpointDied)
        assert request.failed.endpoint == "@link@paris"
        link.end()

    run_async(main)


def test_a_request_that_is_withdrawn_here_is_withdrawn_there() -> None:
    async def main() -> None:
        site = Site("paris")
        link = asking(site)
        task = ask(link, Request())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert site.last == Withdrawn(site.asked.number)
        link.take(*answer(site))
        link.end()

    run_async(main)


def test_a_site_answers_no_request_to_another() -> None:
    async def main() -> None:
        site, other = Site("paris"), Site("rome")
        link = asking(site)
        task = ask(link, Request())
        await settle()
        _, body, text = answer(site)
        link.take(other, body, text)
        await settle()
        assert not task.done()
        task.cancel()
        link.end()

    run_async(main)


# In parts -----------------------------------------------------------------------------------------


Parts = AsyncGenerator[Encoded, None]


def in_parts(play: Callable[[Asking, Site, Parts], Any]) -> None:
    """The first part of a reply has come, and is not taken yet."""

    async def main() -> None:
        site = Site("paris")
        link = asking(site)
        task = ask(link, Request(parts=True))
        await settle()
        assert site.asked.want == PARTS
        link.take(*part(site, 0))
        parts: Parts = await task
        await play(link, site, parts)
        await parts.aclose()
        link.end()

    run_async(main)


@pytest.mark.smoke
def test_parts_come_in_order_and_end() -> None:
    async def play(link: Asking, site: Site, parts: Parts) -> None:
        link.take(*part(site, 1, b"second"))
        link.take(site, End(site.asked.number, 2), b"")
        assert [bytes(each.data) async for each in parts] == [b"part", b"second"]
        assert isinstance(site.last, Ask)  # there is nothing to be withdrawn

    in_parts(play)


def test_more_parts_are_granted_as_they_are_taken() -> None:
    async def play(link: Asking, site: Site, parts: Parts) -> None:
        size = WINDOW // 4
        sent = part_bytes(len(b"part"))
        for index in itertools.count(1):
            if sent >= WINDOW:
                break
            link.take(*part(site, index, bytes(size)))
            sent += part_bytes(size)
        with pytest.raises(Garbage):  # more than that
            link.take(*part(site, index))
        for _ in range(index):
            await anext(parts)
        with pytest.raises(Passed) as caught:
            await anext(parts)
        assert isinstance(caught.value.error, errors.ReplyLost)
        assert site.last == Withdrawn(site.asked.number)

    in_parts(play)


def test_a_slow_reader_grants_nothing_and_a_quick_one_does() -> None:
    async def play(link: Asking, site: Site, parts: Parts) -> None:
        for index in range(1, 4):
            link.take(*part(site, index, bytes(WINDOW // 4)))
        assert not any(isinstance(body, Credit) for _, body, _ in site.got)
        for _ in range(4):
            await anext(parts)
        waits = asyncio.create_task(anext(parts))
        await settle()
        assert isinstance(site.last, Credit)
        assert site.last.bytes > WINDOW
        waits.cancel()
        await settle()

    in_parts(play)


def test_a_part_that_was_lost_on_the_way_is_an_error_and_no_gap() -> None:
    async def play(link: Asking, site: Site, parts: Parts) -> None:
        link.take(*part(site, 2))
        assert bytes((await anext(parts)).data) == b"part"
        with pytest.raises(Passed) as caught:
            await anext(parts)
        assert isinstance(caught.value.error, errors.ReplyLost)
        assert site.last == Withdrawn(site.asked.number)

    in_parts(play)


def test_an_end_that_says_more_parts_than_came_is_an_error() -> None:
    async def play(link: Asking, site: Site, parts: Parts) -> None:
        link.take(site, End(site.asked.number, 2), b"")
        await anext(parts)
        with pytest.raises(Passed):
            await anext(parts)

    in_parts(play)


def test_an_error_after_some_parts_comes_behind_them() -> None:
    async def play(link: Asking, site: Site, parts: Parts) -> None:
        link.take(*failure(site, errors.EndpointDied(type="x.a.b", endpoint="worker")))
        await anext(parts)
        with pytest.raises(Passed) as caught:
            await anext(parts)
        assert isinstance(caught.value.error, errors.EndpointDied)
        assert caught.value.error.endpoint == "worker@paris"

    in_parts(play)


def test_who_wants_no_more_parts_withdraws_there() -> None:
    async def play(link: Asking, site: Site, parts: Parts) -> None:
        await anext(parts)
        await parts.aclose()
        assert site.last == Withdrawn(site.asked.number)

    in_parts(play)
