"""What a link brings from another bus, at those who get it, and what it gets for that bus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
import numpy as np
import pytest

import shmbus
from shmbus import errors
from shmbus.endpoint._kernel import Encoded, Origin
from shmbus.endpoint.attach import attach_as
from shmbus.endpoint.payloads import FRAMED, MSGPACK, NONE, RAW
from shmbus.shared.failures import Passed, encode_failure
from shmbus.testing import Attach, MakeRecorder, eventually

CAMERA = Origin("camera", "paris", 123_000, 77, 999, 5)
LARGE = bytes(range(256)) * 4096

Link = Callable[..., shmbus.Endpoint]


@pytest.fixture
def link(bus: shmbus.Bus) -> Iterator[Link]:
    """Attach a link to the test's bus."""
    with ExitStack() as stack:
        yield lambda name="@link": stack.enter_context(attach_as(name, bus.name, timeout=60))


def received(endpoint: shmbus.Endpoint) -> shmbus.Message:
    message = endpoint.receive(60)
    assert message is not None
    return message


PAYLOADS = {
    "nothing": None,
    "bytes": b"abc",
    "value": {"x": [1, 2.5]},
    "array": np.arange(5.0),
    "within": {"a": np.arange(3), "n": 1},
    "large": LARGE,
    "large array": np.arange(100_000),
}


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other) and str(type(one)) == str(type(other))


@pytest.mark.smoke
def test_a_message_of_another_bus_says_where_it_comes_from_and_has_the_payload_that_was_sent(
    bus: shmbus.Bus, attach: Attach, link: Link
) -> None:
    here, worker, tap = link(), attach("worker"), attach("tap")
    worker.subscribe("frame")
    tap.tap("frame")
    for payload in PAYLOADS.values():
        worker.publish("frame", payload)
        local = received(worker)
        assert (local.site, local.sent_error_ns, local._origin) == (None, None, None)
        assert same(local.payload, payload)
        tapped = received(tap)
        encoded = local._encoded()
        here.publish("frame", Encoded(encoded.flags, encoded.data, CAMERA))
        for endpoint in (worker, tap):
            relayed = received(endpoint)
            assert same(relayed.payload, payload)
            assert (relayed.source, relayed.site) == ("camera@paris", "paris")
            assert (relayed.sent_ns, relayed.sent_error_ns) == (123_000, 77)
            assert (relayed.size, relayed.lost) == (local.size, 5)
            again = relayed._encoded()
            assert (again.flags, bytes(again.data)) == (encoded.flags, bytes(encoded.data))
            assert again.origin is not None
            assert again.origin.sent_there_ns == 999
        assert tapped.site is None


def test_a_large_payload_is_passed_on_from_where_it_lies(
    bus: shmbus.Bus, attach: Attach, link: Link
) -> None:
    here, source = link(), attach("source")
    here.subscribe("frame")
    source.publish("frame", LARGE)
    message = received(here)
    encoded = message._encoded()
    assert isinstance(encoded.data, memoryview)
    with pytest.raises(BufferError):
        message.release()
    del message
    assert bytes(encoded.data) == LARGE
    del encoded
    eventually(lambda: not bus.pools()[0].in_use)


ONE = Encoded(MSGPACK, msgspec.msgpack.encode("one"), CAMERA)


def test_every_call_that_takes_a_payload_takes_one_that_is_encoded(
    attach: Attach, link: Link, recorder: MakeRecorder
) -> None:
    here, worker, events = link(), attach("worker"), recorder("event")
    got: list[object] = []

    @worker.handle("question.>")
    @worker.handle("order")
    def answer(message: shmbus.Message) -> object:
        got.append((message.payload, message.site))
        return message.payload

    worker.start()
    here.publish("event", ONE)
    here.publish_many([("event", ONE)] * 2)
    with here.batch() as batch:
        batch.publish("event", ONE)
    assert [(m.payload, m.site) for m in events.wait(4)] == [("one", "paris")] * 4
    assert here.request("question.a", ONE).payload == "one"
    assert here.request_async("question.a", ONE).result(60).payload == "one"
    with here.stream("question.a", ONE) as parts:
        assert [part.payload for part in parts] == ["one"]
    (reply,) = here.gather("question.a", ONE).values()
    assert isinstance(reply, shmbus.Message)
    here.send("order", ONE)
    eventually(lambda: got == [("one", "paris")] * 5)


@pytest.mark.usefixtures("bus")
def test_replies_and_parts_of_another_bus_say_where_they_come_from(
    attach: Attach, link: Link
) -> None:
    here, client = link(), attach("client")
    large = Encoded(RAW, LARGE, CAMERA)

    @here.handle("small")
    def small(message: shmbus.Message) -> object:
        return ONE

    @here.handle("large")
    def in_pool(message: shmbus.Message) -> object:
        return large

    @here.handle("parts")
    def parts(message: shmbus.Message) -> Iterator[object]:
        assert message._streams
        yield from (ONE, large, Encoded(NONE, b"", CAMERA))

    here.start()
    replies = [client.request("small"), client.request("large"), *client.stream("parts")]
    assert [m.payload for m in replies] == ["one", LARGE, "one", LARGE, None]
    assert [m.size for m in replies] == [4, len(LARGE), 4, len(LARGE), 0]
    assert {(m.source, m.sent_error_ns, m.lost) for m in replies} == {("camera@paris", 77, 5)}
    assert client.request_async("large").result(60).source == "camera@paris"


@pytest.mark.parametrize("payload", ["small", "large", "framed"])
def test_given_back_it_goes_on_and_becomes_a_dead_letter_without_its_origin(
    attach: Attach, link: Link, recorder: MakeRecorder, payload: str
) -> None:
    content = {"small": b"abc", "large": LARGE, "framed": b""}[payload]
    here, worker, letters = link(), attach("worker"), recorder("$bus.undeliverable")
    worker.subscribe("job", group="workers")
    flags = RAW
    if payload == "framed":
        worker.publish("job", np.arange(3))
        message = received(worker)
        flags, content = FRAMED, bytes(message._encoded().data)
        message.done()
    here.publish("job", Encoded(flags, content, CAMERA, "workers"))
    for attempt in (1, 2):
        message = received(worker)
        assert (message.attempt, message.source, message.size) == (
            attempt,
            "camera@paris",
            len(content),
        )
        assert message._groups == ("workers",)
        assert bytes(message._encoded().data) == content
        message.nack(reason="no")
    (letter,) = letters.wait()
    told = letter.payload
    assert (told["source"], told["size"], told["reason"]) == ("camera@paris", len(content), "no")
    assert content.startswith(told["payload"])


def test_a_command_that_nobody_handles_is_a_dead_letter_without_its_origin(
    link: Link, recorder: MakeRecorder
) -> None:
    here, letters = link(), recorder("$bus.undeliverable")
    for flags, content in ((RAW, b"abc"), (NONE, b""), (RAW, LARGE)):
        letters.clear()
        here.send("order", Encoded(flags, content, CAMERA))
        (letter,) = letters.wait()
        told = letter.payload
        assert (told["source"], told["size"]) == ("camera@paris", len(content))
        assert content.startswith(told["payload"])
        assert bool(told["payload"]) == bool(content)


@pytest.mark.parametrize("size", [3, 300_000])
def test_what_is_kept_of_another_bus_is_shown_and_given_without_its_origin(
    bus: shmbus.Bus, attach: Attach, link: Link, size: int
) -> None:
    here, late = link(), attach("late")
    here.publish("state", Encoded(RAW, bytes(size), CAMERA), retain=True)
    eventually(lambda: bus.retained())
    late.subscribe("state", history=1)
    message = received(late)
    assert (message.retained, message.payload, message.source) == (
        True,
        bytes(size),
        "camera@paris",
    )
    (kept,) = bus.retained()
    assert (kept.payload, kept.raw, kept.size) == (bytes(size), bytes(size), size)
    assert (kept.source, kept.site, kept.stamp_ns, kept.format) == (
        "camera@paris",
        "paris",
        999,
        "raw",
    )
    here.publish("state", Encoded(NONE, b"", CAMERA), retain=True)
    eventually(lambda: not bus.retained())


@pytest.mark.usefixtures("bus")
def test_what_waits_in_a_mailbox_says_where_it_comes_from(attach: Attach, link: Link) -> None:
    here, worker = link(), attach("worker")
    worker.subscribe("frame", overflow="latest")
    here.publish("frame", Encoded(RAW, b"abc", CAMERA))
    message = received(worker)
    assert (message.payload, message.size, message.source) == (b"abc", 3, "camera@paris")


@pytest.mark.usefixtures("bus")
def test_a_link_learns_what_it_needs_to_pass_a_message_on(attach: Attach, link: Link) -> None:
    here, other, source = link(), link("@other"), attach("source")
    here.subscribe("event")
    here.subscribe("event", group="a")
    here.subscribe("event", group="b")
    source.publish("event", 1, retain=True)
    message = received(here)
    assert (message._plain, set(message._groups), message._retains) == (True, {"a", "b"}, True)
    asked: list[tuple[bool, bool]] = []

    @other.handle("question")
    def answer(message: shmbus.Message) -> None:
        asked.append((message._directed, message._streams))

    other.start()
    source.request("question")
    source.gather("question")
    list(source.stream("question"))
    assert asked == [(False, False), (True, False), (False, True)]


ENDED = [
    errors.NoRoute(type="elsewhere"),
    errors.EndpointDied(type="x", endpoint="worker@paris", pid=7, reason="killed", begun=False),
    errors.HandlerTimeout(type="x", endpoint="worker@paris", seconds=2.0),
    errors.RemoteError(
        type="x", endpoint="worker@paris", error="KeyError", message="no", traceback="tr"
    ),
    errors.ReplyLost(type="x", endpoint="worker@paris", reason="too slow"),
    errors.MessageTooLarge(type="x", size=9, limit=8, endpoint="worker@paris"),
]


@pytest.mark.usefixtures("bus")
def test_an_error_of_another_bus_is_raised_here_as_what_it_was(attach: Attach, link: Link) -> None:
    here, client = link(), attach("client")

    @here.handle("question")
    def answer(message: shmbus.Message) -> None:
        message._fail_as(ENDED[message.payload])

    @here.handle("parts")
    def parts(message: shmbus.Message) -> Iterator[int]:
        yield 1
        raise Passed(ENDED[message.payload])

    here.start()
    for number, ended in enumerate(ENDED):
        with pytest.raises(type(ended)) as raised:
            client.request("question", number)
        assert raised.value.data == ended.data | {"type": "question"}
        with pytest.raises(type(ended)), client.stream("parts", number) as stream:
            list(stream)


@pytest.mark.usefixtures("bus")
def test_who_gathers_gets_what_a_link_has_gathered_of_each(attach: Attach, link: Link) -> None:
    here, worker, client = link(), attach("worker"), attach("client")
    account = encode_failure(Passed(ENDED[1]))
    answers: Any = [
        ["near@paris", "reply", MSGPACK, msgspec.msgpack.encode({"x": 1})],
        ["far@rome", "reply", RAW, b"abc"],
        ["dead@rome", "error", MSGPACK, account],
    ]

    @worker.handle("question")
    def local(message: shmbus.Message) -> str:
        return "here"

    @here.handle("question")
    def remote(message: shmbus.Message) -> object:
        return answers

    worker.start()
    here.start()
    found = client.gather("question", at_least=3)
    got = {name: m.payload for name, m in found.items() if not isinstance(m, errors.BusError)}
    assert got == {"worker": "here", "near@paris": {"x": 1}, "far@rome": b"abc"}
    assert isinstance(found["dead@rome"], errors.EndpointDied)
    near = found["near@paris"]
    assert not isinstance(near, errors.BusError)
    assert (near.source, near.site) == ("near@paris", "paris")
    answers = []
    assert set(client.gather("question")) == {"worker"}
    answers = "garbage"
    assert isinstance(client.gather("question")["@link"], errors.DecodeError)


def test_only_links_have_names_with_an_at_sign(bus: shmbus.Bus, link: Link) -> None:
    for name in ("@link", "a@b"):
        with pytest.raises(errors.InvalidName):
            shmbus.attach(bus.name, name=name)
    for name in ("link", "@", "@@@link", "@a b", "@" + 48 * "x"):
        with pytest.raises(errors.InvalidName):
            attach_as(name, bus.name)
    here, keeper = link("@link"), link("@@link")
    assert {here.name, keeper.name} <= {info.name for info in bus.endpoints()}
    bus.evict("@@link")
    with pytest.raises(errors.Evicted):
        keeper.receive(60)


def test_a_request_that_lies_at_a_link_when_nobody_beyond_it_handles_that_any_more_has_no_route(
    bus: shmbus.Bus, attach: Attach, link: Link
) -> None:
    here, client = link(), attach("client")
    handling = here._subscribing.handle(
        "question", lambda message: "answer", payload_type=None, redeliver=False, limit=None
    )
    asked = client.request_async("question", timeout=None)
    eventually(lambda: next(e for e in bus.endpoints() if e.name == "@link").untouched == 1)
    handling.close()
    here.start()
    assert isinstance(asked.exception(timeout=60), errors.NoRoute)


def test_a_handler_that_takes_too_long_is_told_of_with_who_asked_on_the_other_bus(
    bus: shmbus.Bus, attach: Attach, link: Link
) -> None:
    here, worker, watch = link(), attach("worker"), attach("watch")
    over = {"camera@paris": threading.Event(), "local": threading.Event()}
    worker.subscribe("job", lambda message: over[message.source].wait(60), limit=0.01)
    worker.start()
    watch.subscribe("$bus.endpoint.overdue")
    here.publish("job", Encoded(NONE, b"", CAMERA))
    attach("local").publish("job")
    for source, event in over.items():
        told = received(watch).payload
        event.set()
        assert (told["name"], told["source"], told["type"]) == ("worker", source, "job")


@pytest.mark.bus(block_timeout=0.02, stall_after=60)
def test_what_is_lost_of_another_bus_is_told_of_with_who_sent_it_there(
    bus: shmbus.Bus, attach: Attach, link: Link
) -> None:
    here, deaf, watch = link(), attach("deaf"), attach("watch")
    watch.subscribe("$bus.lost")
    deaf.subscribe(">")
    told = None
    while told is None:
        here.publish("small", Encoded(RAW, bytes(10_000), CAMERA), timeout=60)
        told = watch.receive(0)
    assert (told.payload["source"], told.payload["size"]) == ("camera@paris", 10_000)
    here.publish("large", Encoded(RAW, LARGE, CAMERA), timeout=60)
    eventually(lambda: bus.losses()[0].type == "large")
    assert bus.losses()[0].source == "camera@paris"
    assert any("the last 'large' from camera@paris" in each for each in bus.health().reasons)
    attach("local").publish("small", bytes(10_000), timeout=60)
    eventually(lambda: bus.losses()[0].type == "small")
    assert bus.losses()[0].source == "local"


def test_what_was_kept_of_another_bus_and_is_too_large_is_told_of_likewise(
    bus: shmbus.Bus, attach: Attach, link: Link
) -> None:
    link().publish("x.a", Encoded(RAW, bytes(3000), CAMERA), retain=True)
    eventually(lambda: bus.retained())
    small = attach("small", settings=shmbus.Settings(in_bytes=4096))
    small.subscribe("x.*", overflow="latest", history=1)
    eventually(lambda: bus.losses())
    assert [(each.reason, each.source) for each in bus.losses()] == [("too_large", "camera@paris")]
