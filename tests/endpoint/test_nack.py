"""Work that its receiver gives back: `message.nack`."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import pytest

import shmbus
from shmbus import Message, errors
from shmbus.errors import CannotNack, EndpointClosed, ForkedEndpoint, InvalidSetting
from shmbus.testing import Attach, MakeRecorder, eventually

from .looks import info, seen

pytestmark = pytest.mark.usefixtures("bus")


@pytest.mark.smoke
def test_what_one_gives_back_goes_to_another(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    one.subscribe("job", group="workers")
    sender.publish("job", {"n": 1})
    mine = one.receive(60)
    assert mine is not None
    other.subscribe("job", group="workers")
    mine.nack()
    assert seen(other.receive(60)) == ({"n": 1}, 2, True, "sender")
    assert one.receive(0) is None
    assert other.receive(0) is None


def test_it_comes_back_where_there_is_nobody_else(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("job", group="workers")
    sender.publish("job", b"raw")
    message = one.receive(60)
    assert message is not None
    message.nack()
    assert seen(one.receive(60)) == (b"raw", 2, True, "sender")


def test_a_command_is_given_to_another_handler(attach: Attach, recorder: MakeRecorder) -> None:
    done = recorder("done")
    sender, one, other = attach("sender"), attach("one"), attach("other")
    one.handle("work", lambda message: message.nack(reason="not mine"))
    one.start()
    sender.send("work", None)
    eventually(lambda: info(one.bus, "one").nacked >= 1)
    other.handle("work", lambda message: other.publish("done", message.attempt))
    other.start()
    sender.send("work", None)
    assert done.wait()[-1].payload >= 2


@pytest.mark.smoke
def test_at_max_deliveries_it_is_a_dead_letter_with_the_reason(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    letters = recorder("$bus.undeliverable")
    sender, one = attach("sender"), attach("one")
    one.subscribe("job", lambda m: m.nack(reason=f"no disk, try {m.attempt}"), group="workers")
    one.start()
    sender.publish("job", [1, 2])
    (letter,) = letters.wait()
    assert (letter.payload["type"], letter.payload["kind"]) == ("job", "event")
    assert (letter.payload["source"], letter.payload["attempt"]) == ("sender", 3)
    assert letter.payload["reason"] == "no disk, try 2"
    assert msgspec.msgpack.decode(letter.payload["payload"]) == [1, 2]
    assert info(bus, "one").nacked == 2
    eventually(lambda: info(bus, "one").in_hand == 0)
    assert bus.health().dead_letters == 1


def test_another_thread_gives_it_back_while_its_callback_runs(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    got, go = list[Message](), threading.Event()

    def hold(message: Message) -> None:
        got.append(message)
        go.wait(60)

    one.subscribe("job", hold, group="workers")
    one.start()
    sender.publish("job", 1)
    eventually(lambda: got)
    other.subscribe("job", group="workers")
    got[0].nack()
    again = other.receive(60)
    go.set()
    assert seen(again)[:2] == (1, 2)


def test_what_cannot_be_given_back_says_why(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("plain")
    one.subscribe("job", group="workers")
    sender.publish("plain", 1)
    plain = one.receive(60)
    assert plain is not None
    with pytest.raises(CannotNack, match=r"'plain'.*no group.*group="):
        plain.nack()
    sender.publish("job", 1)
    job = one.receive(60)
    assert job is not None
    with pytest.raises(InvalidSetting, match="delay"):
        job.nack(delay=-1.0)
    job.done()
    with pytest.raises(CannotNack, match=r"'job'.*finished.*before done\(\)"):
        job.nack()
    sender.publish("job", 2)
    job = one.receive(60)
    assert job is not None
    job.nack()
    with pytest.raises(CannotNack, match="given back"):
        job.nack()
    job = one.receive(60)
    one.close()
    assert job is not None
    with pytest.raises(EndpointClosed):
        job.nack()


def test_a_request_is_not_given_back(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.handle("ask", lambda message: message.nack())
    one.start()
    with pytest.raises(shmbus.errors.RemoteError, match=r"fail\(\)") as raised:
        sender.request("ask")
    assert raised.value.error == "shmbus.errors.CannotNack"
    one.handle("answer", lambda message: 1)
    with pytest.raises(CannotNack, match="reply"):
        sender.request("answer").nack()


def test_a_forked_child_gives_nothing_back(attach: Attach) -> None:
    sender, one = attach("sender"), attach("one")
    one.subscribe("job", group="workers")
    sender.publish("job", 1)
    job = one.receive(60)
    assert job is not None
    pid = os.fork()
    if not pid:
        try:
            job.nack()
        except ForkedEndpoint:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    job.nack()
    assert seen(one.receive(60))[:2] == (1, 2)


def test_a_long_reason_is_cut(attach: Attach, recorder: MakeRecorder) -> None:
    letters, one = recorder("$bus.undeliverable"), attach("one")
    one.subscribe("job", lambda m: m.nack(reason="ä" * 1000), group="workers")
    one.start()
    attach("sender").publish("job", None)
    (letter,) = letters.wait()
    assert set(letter.payload["reason"]) == {"ä"}
    assert 100 < len(letter.payload["reason"]) <= 127


def test_the_largest_message_can_be_given_back(attach: Attach, recorder: MakeRecorder) -> None:
    letters = recorder("$bus.undeliverable")
    small = shmbus.Settings(in_bytes=16384, out_bytes=16384)
    sender, one = attach("sender", settings=small), attach("one", settings=small)
    tried = list[int]()

    def fails(message: Message) -> None:
        tried.append(len(message.payload))
        message.nack(reason="too heavy")

    one.subscribe("job", fails, group="workers")
    one.start()
    largest = 16384 // 4 - 64 - len("job")
    sender.publish("job", bytes(largest))
    (letter,) = letters.wait()
    assert tried == [largest, largest]
    assert (letter.payload["size"], letter.payload["payload"]) == (largest, bytes(largest))


def test_what_its_own_ring_does_not_take_goes_back_by_its_pool(attach: Attach) -> None:
    sizes = shmbus.Settings(in_bytes=65536, out_bytes=8192, pool_bytes=16384)
    sender, one, other = attach("sender"), attach("one", settings=sizes), attach("other")
    data = os.urandom(5_000)
    for _ in range(3):  # two blocks take all of its pool
        subscriptions = [one.subscribe("job", group=group) for group in ("workers", "others")]
        sender.publish("job", data)
        mine = one.receive(60)
        assert mine is not None
        for each in subscriptions:
            each.close()
        subscriptions = [other.subscribe("job", group=group) for group in ("workers", "others")]
        mine.nack(reason="not now")
        for _ in subscriptions:
            theirs = other.receive(60)
            assert theirs is not None
            assert seen(theirs)[1:] == (2, True, "sender")
            assert theirs.payload == data
            theirs.done()
            del theirs
        for each in subscriptions:
            each.close()


def test_a_large_one_that_could_not_be_held_goes_back_as_it_was_copied(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    seat = one._seat
    no_pool = Path("/dev/shm") / seat.names.pool(seat.slot, seat.generation)
    no_pool.mkdir()
    one.subscribe("job", group="workers")
    data = os.urandom(1_000_000)
    sender.publish("job", data)
    mine = one.receive(60)
    no_pool.rmdir()
    assert mine is not None
    other.subscribe("job", group="workers")
    mine.nack()
    theirs = other.receive(60)
    assert theirs is not None
    assert seen(theirs)[1:] == (2, True, "sender")
    assert theirs.payload == data


def test_what_its_own_rings_do_not_take_is_not_given_back_and_becomes_a_dead_letter(
    attach: Attach, recorder: MakeRecorder
) -> None:
    letters = recorder("$bus.undeliverable")
    sizes = shmbus.Settings(in_bytes=65536, out_bytes=8192, pool_bytes=4096)
    sender, one = attach("sender"), attach("one", settings=sizes)
    refused = list[errors.MessageTooLarge]()

    def fails(message: Message) -> None:
        try:
            message.nack()
        except errors.MessageTooLarge as error:
            refused.append(error)
            raise OSError("too heavy") from error

    one.subscribe("job", fails, group="workers", on_error="retry")
    one.start()
    sender.publish("job", bytes(10_000))
    (letter,) = letters.wait()
    (error,) = refused
    assert (error.endpoint, error.setting, error.size) == ("one", "pool_bytes", 10_000)
    assert "too large to be given back" in letter.payload["reason"]
    assert (letter.payload["attempt"], letter.payload["size"]) == (1, 10_000)
    assert bytes(1000) < letter.payload["payload"] < bytes(2048)
    eventually(lambda: info(one.bus, "one").in_hand == 0)
