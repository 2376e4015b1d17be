"""Requests to other sites, as far as this side goes: peers that answer, that do not, that say what
nobody asked for, and that go."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import msgspec
import pytest

from shmbus import errors
from shmbus.aio.jobs import Jobs
from shmbus.endpoint._kernel import Encoded, Job, Message
from shmbus.links import failures, wire
from shmbus.links.channel import Channel, Lost
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
        self.missed: Lost
        """What came last has not come."""

    def send(
        self, lane: str, type: str, body: object, payload: Any = b"", lost: Lost | None = None
    ) -> None:
        assert lane == "request"
        assert lost is not None
        self.missed = lost
        self.got.append((type, body, bytes(payload)))

    has_no_room = False
    waiting_bytes, buffer = 7, 8

    def has_room(self, size: int) -> bool:
        return not self.has_no_room

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


class Errand:
    """A request that is to be answered, in the place of a job of the endpoint's, and of its
    jobs."""

    def __init__(self, request: Request) -> None:
        self.message = request
        self.reply: Encoded | None = None
        self._over = self.withdrawn = False
        self.withdraw: Callable[[], object]

    def begin_without_task(self, _: object, withdraw: Callable[[], object]) -> None:
        self.withdraw = withdraw

    def lapsed(self) -> bool:
        return False

    def returned(self, value: Encoded) -> None:
        self.reply = value

    def abandoned(self, why: str) -> None:
        self.withdrawn = True

    def over(self, _: object) -> None:
        assert not self._over
        self._over = True

    def is_over(self) -> bool:
        return self._over


def asking(*sites: Site) -> Asking:
    """Of a link that has these peers, the nearest first."""
    able = [(site, "x.a.b") for site in sites]
    return Asking(lambda type: able, asyncio.get_running_loop())


def ask(link: Asking, request: Request | None = None) -> Errand:
    errand = Errand(request or Request())
    link.ask_without_task(cast(Job, errand), cast(Jobs, errand))
    return errand


def run_async_test(test: Callable[..., Any]) -> Callable[..., None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        run_async(lambda: test(**arguments))

    return run


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
@run_async_test
async def test_the_nearest_is_asked_and_its_answer_is_the_reply() -> None:
    near, far = Site("near"), Site("far")
    link = asking(near, far)
    errand = ask(link)
    ((type, body, payload),) = near.got
    assert (type, body.source, body.want, payload) == ("x.a.b", "me", REPLY, b"question")
    assert not errand.is_over()
    link.take(*answer(near))
    reply = errand.reply
    assert errand.is_over()
    assert reply is not None
    assert reply.origin is not None
    assert bytes(reply.data) == b"answer"
    assert (reply.origin.source, reply.origin.site) == ("there", "near")
    assert not far.got
    link.take(*answer(near, b"again"))  # which is passed over
    link.end()


@pytest.mark.parametrize(
    "untouched",
    [
        errors.NoRoute(type="x.a.b"),
        errors.EndpointDied(type="x.a.b", endpoint="worker", begun=False),
    ],
)
@run_async_test
async def test_where_nobody_has_begun_it_the_next_site_is_asked(
    untouched: errors.BusError,
) -> None:
    near, far = Site("near"), Site("far")
    link = asking(near, far)
    errand = ask(link)
    link.take(*failure(near, untouched))
    link.take(*answer(far))
    assert errand.reply is not None
    assert bytes(errand.reply.data) == b"answer"
    link.end()


@run_async_test
async def test_a_request_that_is_lost_on_its_way_is_asked_of_the_next_site() -> None:
    near, far = Site("near"), Site("far")
    link = asking(near, far)
    errand = ask(link)
    near.missed()
    assert len(far.got) == 1
    far.missed()
    assert errand.is_over()
    failed = errand.message.failed
    assert isinstance(failed, errors.EndpointDied)
    assert (failed.endpoint, failed.begun) == ("@link@far", False)
    link.end()


@run_async_test
async def test_what_may_have_been_begun_is_asked_of_no_other_site() -> None:
    near, far = Site("near"), Site("far")
    link = asking(near, far)
    errand = ask(link)
    link.take(*failure(near, errors.EndpointDied(type="x.a.b", endpoint="worker")))
    failed = errand.message.failed
    assert isinstance(failed, errors.EndpointDied)
    assert failed.endpoint == "worker@near"
    assert not far.got
    link.end()


@run_async_test
async def test_an_error_keeps_its_class_and_says_where_it_was() -> None:
    site, other = Site("paris"), Site("unasked")
    link = asking(site, other)
    errand = ask(link)
    why = errors.HandlerTimeout(type="x.a.b", endpoint="worker", seconds=2.0)
    link.take(*failure(site, why))
    failed = errand.message.failed
    assert isinstance(failed, errors.HandlerTimeout)
    assert (failed.endpoint, failed.type, failed.seconds) == ("worker@paris", "a.b", 2.0)
    assert errand.is_over()
    assert not other.got
    link.end()


@run_async_test
async def test_where_nobody_handles_it_there_is_no_route_at_once() -> None:
    assert isinstance(ask(asking()).message.failed, errors.NoRoute)


@run_async_test
async def test_who_waits_learns_at_once_that_a_site_has_gone() -> None:
    site, other = Site("paris"), Site("rome")
    link = asking(site)
    errand = ask(link)
    link.gone(other, "gone")
    assert not errand.is_over()
    link.gone(site, "gone")
    failed = errand.message.failed
    assert isinstance(failed, errors.EndpointDied)
    assert failed.endpoint == "@link@paris"
    link.end()


@run_async_test
async def test_a_request_that_is_withdrawn_here_is_withdrawn_there() -> None:
    site = Site("paris")
    link = asking(site)
    errand = ask(link)
    errand.withdraw()
    assert site.last == Withdrawn(site.asked.number)
    assert errand.withdrawn
    assert errand.is_over()
    link.take(*answer(site))
    assert errand.reply is None
    link.end()


@run_async_test
async def test_a_site_answers_no_request_to_another() -> None:
    site, other = Site("paris"), Site("rome")
    link = asking(site)
    errand = ask(link)
    _, body, text = answer(site)
    link.take(other, body, text)
    assert not errand.is_over()
    link.end()


@run_async_test
async def test_parts_that_nobody_has_asked_for_are_an_error() -> None:
    site = Site("paris")
    link = asking(site)
    errand = ask(link)
    link.take(*part(site, 0))
    assert isinstance(errand.message.failed, errors.ReplyLost)
    assert site.last == Withdrawn(site.asked.number)
    link.end()


# In parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [[9], ["there", 9, 1 << 15], ["there", 9, {}]])
@run_async_test
async def test_a_reply_that_is_garbage_is_lost_at_once(fields: list[Any]) -> None:
    site, request = Site("paris"), Request()
    link = asking(site)
    errand = ask(link, request)
    garbled = msgspec.Raw(wire.packed([0, site.asked.number, *fields]))
    with pytest.raises(Garbage):
        link.come(site, garbled, b"")
    assert errand.is_over()
    assert isinstance(request.failed, errors.ReplyLost)
    for unknown in (b"", b"\xc1", wire.packed(["a", "b"]), wire.packed(7)):
        with pytest.raises(Garbage):
            link.come(site, msgspec.Raw(unknown), b"")
    link.end()


@run_async_test
async def test_a_site_for_which_too_much_waits_is_asked_nothing_more() -> None:
    near, far = Site("near"), Site("far")
    link = asking(near, far)
    near.has_no_room = True
    errand = ask(link)
    await settle()
    assert (near.got, far.asked.source) == ([], "me")
    far.has_no_room = True
    request = Request()
    assert ask(link, request).is_over() is False
    await settle()
    assert isinstance(request.failed, errors.QueueFull)
    assert (request.failed.endpoint, request.failed.setting) == ("@link@far", "buffer")
    assert not errand.is_over()
    link.end()


Parts = AsyncGenerator[Encoded, None]


def in_parts(play: Callable[[Asking, Site, Parts], Any]) -> None:
    """The first part of a reply has come, and is not taken yet."""

    async def main() -> None:
        site = Site("paris")
        link = asking(site)
        task = asyncio.create_task(link.ask(cast(Message, Request(parts=True))))
        await settle()
        assert site.asked.want == PARTS
        link.take(*part(site, 0))
        parts = await task
        assert isinstance(parts, AsyncGenerator)
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
