"""What becomes of work whose callback raises or is interrupted: `subscribe(on_error=)`."""

from __future__ import annotations

import contextlib
import logging
import signal
from functools import partial
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import Message
from shmbus.errors import InvalidSetting, QueueFull
from shmbus.testing import Attach, MakeRecorder, eventually

from .looks import info, seen

pytestmark = pytest.mark.usefixtures("bus")


@pytest.mark.smoke
def test_a_callback_that_raises_makes_a_dead_letter(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    letters, ran = recorder("$bus.undeliverable"), list[int]()

    def fails(message: Message) -> None:
        ran.append(message.payload)
        raise ValueError("no such job: ä")

    sender, one = attach("sender"), attach("one")
    one.subscribe("job", fails, group="workers")
    one.start()
    sender.publish("job", 7)
    (letter,) = letters.wait()
    assert letter.payload["reason"] == "its callback at 'one' raised ValueError: no such job: ä"
    assert (letter.payload["attempt"], letter.payload["source"]) == (1, "sender")
    assert msgspec.msgpack.decode(letter.payload["payload"]) == 7
    assert ran == [7]
    assert info(bus, "one").handler_errors == 1


def test_a_plain_subscriber_that_raises_makes_none(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    letters, plain = recorder("$bus.undeliverable"), attach("plain")
    plain.subscribe("job", lambda message: 1 / 0)
    plain.start()
    attach("sender").publish("job", 7)
    eventually(lambda: info(bus, "plain").handler_errors == 1)
    assert not letters.messages


def test_with_retry_another_tries_it(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    letters, tried = recorder("$bus.undeliverable"), list[tuple[str, int]]()
    sender, workers = attach("sender"), [attach("one"), attach("two")]

    def fails(name: str, message: Message) -> None:
        tried.append((name, message.attempt))
        if message.payload == "hopeless" or message.attempt == 1:
            raise OSError("no disk")

    for worker in workers:
        worker.subscribe("job", partial(fails, worker.name), group="workers", on_error="retry")
        worker.start()
    sender.publish("job", "once")
    eventually(lambda: len(tried) == 2)
    assert [attempt for _, attempt in tried] == [1, 2]
    assert tried[0][0] != tried[1][0]
    assert not letters.messages
    sender.publish("job", "hopeless")
    (letter,) = letters.wait()
    assert "raised OSError: no disk" in letter.payload["reason"]
    assert len(tried) == 4
    assert sum(info(bus, w.name).handler_errors for w in workers) == 3


def test_of_two_groups_only_the_one_whose_callback_raised_gets_it_again(attach: Attach) -> None:
    good, bad = list[int](), list[int]()
    sender, one = attach("sender"), attach("one")

    def fails(message: Message) -> None:
        bad.append(message.attempt)
        if message.attempt == 1:
            raise OSError

    one.subscribe("job", fails, group="a", on_error="retry")
    one.subscribe("job", lambda m: good.append(m.attempt), group="b", on_error="retry")
    one.start()
    sender.publish("job", 1)
    eventually(lambda: len(bad) == 2)
    sender.publish("job", 2)
    eventually(lambda: len(bad) == 4 and len(good) == 2)
    assert (bad, good) == ([1, 2, 1, 2], [1, 1])


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_a_group_message_whose_callback_is_interrupted_goes_to_another(
    attach: Attach, interruption: type[BaseException]
) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")

    def interrupted(message: Message) -> None:
        other.subscribe("job", group="workers")
        raise interruption

    one.subscribe("job", interrupted, group="workers")
    sender.publish("job", 1)
    with pytest.raises(interruption):
        one.receive(60)
    one.close()
    assert seen(other.receive(60)) == (1, 2, True, "sender")
    assert other.receive(0) is None


@pytest.mark.bus(in_bytes=4096, out_bytes=4096, block_timeout=3600)
def test_what_an_interrupted_callback_had_is_given_back_though_that_is_interrupted_too(
    attach: Attach,
) -> None:
    deaf, one, came = attach("deaf"), attach("one"), list[Message]()
    deaf.subscribe("flood")

    class Interruption(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interruption

    def interrupted(message: Message) -> None:
        came.append(message)
        if message.attempt == 1:
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # while this waits for space
            raise Interruption

    one.subscribe("job", interrupted, group="workers")
    one.publish("job", 1)
    with contextlib.suppress(QueueFull):
        while True:
            one.publish("flood", bytes(500), timeout=0.05)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interruption):
            one.receive(60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    one.start()
    while len(came) == 1 and deaf.receive(0.1):
        pass
    eventually(lambda: len(came) == 2)
    assert [seen(message) for message in came] == [(1, 1, False, "one"), (1, 2, True, "one")]


def test_an_event_of_the_bus_whose_callback_is_interrupted_puts_nobody_out(
    bus: shmbus.Bus, attach: Attach
) -> None:
    one, came = attach("one"), list[Message]()

    def interrupted(message: Message) -> None:
        came.append(message)
        if len(came) == 1:
            raise KeyboardInterrupt

    one.subscribe("$bus.endpoint.up", interrupted, group="watchers")
    attach("two")
    with pytest.raises(KeyboardInterrupt):
        one.receive(60)
    one.subscribe("job")
    attach("sender").publish("job", 1)
    message = one.receive(60)
    assert message is not None
    assert message.payload == 1


def test_a_command_whose_handler_is_interrupted_is_a_dead_letter(
    attach: Attach, recorder: MakeRecorder
) -> None:
    letters = recorder("$bus.undeliverable")
    sender, one = attach("sender"), attach("one")

    def interrupted(message: Message) -> None:
        raise KeyboardInterrupt

    one.handle("do", interrupted)
    sender.send("do", 1)
    with pytest.raises(KeyboardInterrupt):
        one.receive(60)
    (letter,) = letters.wait(1)
    assert letter.payload["type"] == "do"
    assert "KeyboardInterrupt" in letter.payload["reason"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_error": "again", "group": "g", "callback": print},
        {"on_error": "retry", "callback": print},
        {"on_error": "retry", "group": "g"},
    ],
)
def test_on_error_is_checked(attach: Attach, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match="on_error"):
        attach("one").subscribe("job", **wrong)


def test_an_error_of_the_bus_in_the_midst_is_logged(
    attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    """A callback that finishes its message, then raises: it is finished, and no dead letter."""
    sender, one = attach("sender"), attach("one")

    def fails(message: Message) -> None:
        message.done()
        raise OSError("afterwards")

    one.subscribe("job", fails, group="workers", on_error="retry")
    one.start()
    with caplog.at_level(logging.ERROR, "shmbus"):
        sender.publish("job", 1)
        eventually(lambda: info(one.bus, "one").handler_errors == 1)
        eventually(lambda: info(one.bus, "one").in_hand == 0)
    assert info(one.bus, "one").nacked == 0


def test_an_event_of_the_bus_s_own_is_not_given_back(bus: shmbus.Bus, attach: Attach) -> None:
    one = attach("one")
    one.subscribe("$bus.endpoint.up", lambda m: 1 / 0, group="watchers", on_error="retry")
    one.start()
    attach("other")
    eventually(lambda: info(bus, "one").handler_errors == 1)
    attach("another")
    eventually(lambda: info(bus, "one").handler_errors == 2)
    assert info(bus, "one").nacked == 0
