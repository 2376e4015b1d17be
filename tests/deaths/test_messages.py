"""What becomes of requests, commands and events that the dead had received, sent or waited for."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import Message, errors
from shmbus.testing import (
    Attach,
    MakeRecorder,
    StartWorker,
    eventually,
)

from .roles import NEVER, seen, take_and_hang


@pytest.mark.smoke
def test_an_untouched_request_goes_on_and_a_begun_one_ends_with_an_error(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun = recorder("begun")
    victim = worker(take_and_hang, "ask", None, name="victim")
    caller = attach("caller")
    caller.wait_for("ask")
    first = caller.request_async("ask", 1, timeout=60)
    begun.wait()
    second = caller.request_async("ask", 2, timeout=60)
    eventually(lambda: bus.find("ask")[0].untouched == 1)
    other = attach("other")
    got: list[tuple[Any, int, bool]] = []

    def answer(message: Message) -> int:
        got.append(seen(message))
        return int(message.payload) * 10

    other.handle("ask", answer)
    other.start()
    victim.kill()
    with pytest.raises(errors.EndpointDied) as caught:
        first.result(60)
    assert (caught.value.endpoint, caught.value.begun) == ("victim", True)
    assert second.result(60).payload == 20
    assert got == [(2, 1, True)]


def test_withdrawn_requests_of_one_that_died_go_to_nobody(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun = recorder("begun")
    victim = worker(take_and_hang, "ask", None, name="victim")
    caller = attach("caller")
    caller.wait_for("ask")
    futures = [caller.request_async("ask", n, timeout=60) for n in range(3)]
    begun.wait()
    eventually(lambda: bus.find("ask")[0].untouched == 2)
    other = attach("other")
    got: list[object] = []
    other.handle("ask", lambda message: got.append(message.payload))
    other.start()
    for future in futures[:2]:  # the one in hand, and one that waits
        assert future.cancel()
    victim.kill()
    assert futures[2].result(60).payload is None
    assert got == [2]
    assert [future.cancelled() for future in futures] == [True, True, False]
    assert caller.request("ask", "next", timeout=60).source == "other"


def test_a_request_whose_only_handler_died_ends_with_its_name(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun = recorder("begun")
    victim = worker(take_and_hang, "ask", None, name="victim")
    caller = attach("caller")
    caller.wait_for("ask")
    replies = [caller.request_async("ask", n, timeout=60) for n in range(8)]
    begun.wait()
    eventually(lambda: bus.find("ask")[0].untouched == 7)
    victim.kill()
    for n, reply in enumerate(replies):
        with pytest.raises(errors.EndpointDied) as caught:
            reply.result(60)
        assert (caught.value.endpoint, caught.value.begun) == ("victim", n == 0)
        assert ("had not begun" in str(caught.value)) == (n > 0)
    with pytest.raises(errors.NoRoute):
        caller.request("ask", timeout=60)
    assert bus.requests("caller") == []


def test_a_begun_command_is_a_dead_letter_and_an_untouched_one_goes_on(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victim = worker(take_and_hang, "do", None, name="victim")
    sender = attach("sender")
    sender.wait_for("do")
    for n in range(3):
        sender.send("do", n)
    begun.wait()
    eventually(lambda: bus.find("do")[0].untouched == 2)
    other = attach("other")
    got: list[tuple[Any, int, bool]] = []
    other.handle("do", lambda m: got.append(seen(m)))
    other.start()
    victim.kill()
    (letter,) = letters.wait()
    assert letter.payload["kind"] == "send"
    assert msgspec.msgpack.decode(letter.payload["payload"]) == 0
    eventually(lambda: len(got) == 2)
    assert got == [(1, 1, True), (2, 1, True)]


@pytest.mark.bus(in_bytes=1 << 20, out_bytes=1 << 20)
@pytest.mark.parametrize(("ring", "kept"), [(4096, 256), (1 << 20, 64768)])
def test_a_dead_letter_has_as_much_of_its_payload_as_fits(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, ring: int, kept: int
) -> None:
    letters = recorder(
        "$bus.undeliverable", settings=shmbus.Settings(in_bytes=ring, out_bytes=ring)
    )
    sender, payload = attach("sender"), os.urandom(200_000)
    for size in (0, 10, kept, kept + 1, len(payload)):
        sender.send("nobody.handles.it", payload[:size])
    for letter in (m.payload for m in letters.wait(5)):
        assert (letter["type"], letter["source"]) == ("nobody.handles.it", "sender")
        assert (letter["kind"], letter["format"]) == ("send", "raw")
        assert letter["reason"] == "nobody handles it"
        assert letter["payload"] == payload[: min(letter["size"], kept)]
    assert [m.payload["size"] for m in letters.messages] == [0, 10, kept, kept + 1, len(payload)]
    assert bus.health().dead_letters == 5
    assert next(e for e in bus.endpoints() if e.name == "sender").undeliverable == 5


def test_there_are_no_dead_letters_about_dead_letters(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victims = [worker(take_and_hang, "$bus.undeliverable", "readers", name=n) for n in "ab"]
    sender = attach("sender")
    eventually(lambda: len(bus.find("$bus.undeliverable")) == 3)  # both victims, and the recorder
    sender.send("nobody.handles.it", 1)
    for count in (1, 2):  # every receiver dies of it; two are enough
        begun.wait(count)
        (reader,) = (e.pid for e in bus.find("$bus.undeliverable") if e.name in "ab" and e.in_hand)
        next(victim for victim in victims if victim.pid == reader).kill()
    eventually(lambda: not bus.find("$bus.undeliverable")[1:])
    sender.send("nor.this", 2)
    letters.wait(2)
    assert [m.payload["type"] for m in letters.messages] == ["nobody.handles.it", "nor.this"]


def take_again(endpoint: shmbus.Endpoint) -> None:
    def hang(message: Message) -> None:
        endpoint.publish("begun", message.payload)
        NEVER.wait()

    endpoint.handle("do", hang, redeliver=True)
    endpoint.run()


def test_a_begun_command_is_done_again_where_its_handler_asked_for_it(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, letters = recorder("begun"), recorder("$bus.undeliverable")
    victim = worker(take_again, name="victim")
    sender = attach("sender")
    sender.wait_for("do")
    sender.send("do", "it")
    begun.wait()
    other = attach("other")
    got: list[tuple[Any, int, bool]] = []
    other.handle("do", lambda m: got.append(seen(m)), redeliver=True)
    other.start()
    victim.kill()
    eventually(lambda: got)
    assert got == [("it", 2, True)]
    assert not letters.messages


def never_read(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("news")
    endpoint.publish("begun")
    NEVER.wait()


def test_events_that_the_dead_had_not_touched_are_counted(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker
) -> None:
    begun, received = recorder("begun"), recorder("news")
    victim = worker(never_read, name="victim")
    begun.wait()
    publisher = attach("publisher")
    for n in range(7):
        publisher.publish("news", n)
    received.wait(7)
    eventually(lambda: next(e for e in bus.endpoints() if e.name == "victim").untouched == 7)
    assert bus.health().lost == 0
    victim.kill()
    eventually(lambda: bus.health().lost == 7)
    assert received.payloads == list(range(7))


def say_and_die(endpoint: shmbus.Endpoint, count: int) -> None:
    for n in range(count):
        endpoint.publish("last.words", n)
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_the_dead_had_sent_is_delivered(
    bus: shmbus.Bus, recorder: MakeRecorder, worker: StartWorker
) -> None:
    received = recorder("last.words")
    worker(say_and_die, 3000, name="victim")
    messages = received.wait(3000)
    assert [m.payload for m in messages] == list(range(3000))
    assert {m.source for m in messages} == {"victim"}


def ask_and_hang(endpoint: shmbus.Endpoint) -> None:
    endpoint.request("ask", timeout=600)


def test_the_reply_to_a_dead_requester_is_counted_and_dropped(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    server = attach("server")
    asked, go = threading.Event(), threading.Event()

    def answer(message: Message) -> str:
        asked.set()
        go.wait(60)
        return "too late"

    server.handle("ask", answer)
    server.start()
    victim = worker(ask_and_hang, name="victim")
    assert asked.wait(60)
    victim.kill()
    eventually(lambda: "victim" not in {e.name for e in bus.endpoints()})
    go.set()
    eventually(lambda: bus.health().orphans == 1)


def fill(sender: shmbus.Endpoint) -> int:
    """How many messages were accepted before nothing moved for a while."""
    for n in itertools.count():
        try:
            sender.publish("news", b"x" * 500, timeout=0.2)
        except errors.QueueFull:
            return n
    raise AssertionError


@pytest.mark.bus(block_timeout=60.0, in_bytes=4096, out_bytes=4096)
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_sender_that_waits_for_room_goes_on_when_the_full_one_goes(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder, worker: StartWorker, how: str
) -> None:
    begun = recorder("begun")
    full = worker(never_read, name="full")
    begun.wait()
    sender = attach("sender")
    while fill(sender):  # first the receiver's ring, then ours
        pass
    waiting = threading.Thread(target=sender.publish, args=("news", b"y" * 500), daemon=True)
    waiting.start()
    if how == "kill":
        full.kill()
    else:
        full.stop()
    waiting.join(60)
    assert not waiting.is_alive()
