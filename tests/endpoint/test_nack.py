"""Work that its receiver gives back: `message.nack`, `subscribe(on_error=)`, and dead letters of
callbacks that raised."""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import partial
from typing import Any, cast

import msgspec
import pytest

import shmbus
from shmbus import BusView, Message, errors
from shmbus.endpoint.background import Background
from shmbus.endpoint.returns import Returns
from shmbus.errors import CannotNack, EndpointClosed, ForkedEndpoint, InvalidSetting, NoThread
from shmbus.limits import GROUPS
from shmbus.testing import Attach, MakeRecorder, StartWorker, eventually
from shmbus.views.facts import EndpointInfo

pytestmark = pytest.mark.usefixtures("bus")


def info(view: shmbus.Bus | BusView, name: str) -> EndpointInfo:
    return next(each for each in view.endpoints() if each.name == name)


def seen(message: Message | None) -> tuple[object, int, bool, str]:
    assert message is not None
    return message.payload, message.attempt, message.redelivered, message.source


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


def test_a_delay_passes_before_it_is_given_on(bus: shmbus.Bus, attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    one.subscribe("job", group="workers")
    sender.publish("job", "late")
    message = one.receive(60)
    assert message is not None
    other.subscribe("job", group="workers")
    before = time.monotonic()
    message.nack(delay=0.2)
    sender.publish("job", "soon")
    first, second = other.receive(60), other.receive(60)
    assert time.monotonic() - before >= 0.2
    assert [seen(m)[:2] for m in (first, second)] == [("soon", 1), ("late", 2)]
    assert one.receive(0) is None
    assert info(bus, "one").in_hand == 0


def delay_all(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("job", lambda message: message.nack(delay=1000.0), group="workers")
    endpoint.run()


def test_what_is_delayed_is_handed_on_where_its_holder_is_killed(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    sender, other = attach("sender"), attach("other")
    holder = worker(delay_all, name="one")
    sender.wait_for("job")
    sender.publish("job", 1)
    sender.publish("job", 2)
    eventually(
        lambda: info(bus, "one").received.events == 2
    )  # the callback of the first has returned
    other.subscribe("job", group="workers")
    holder.kill()
    got = [seen(other.receive(60))[:2] for _ in range(2)]
    assert sorted(got) == [(1, 2), (2, 2)]


def test_what_is_delayed_is_in_hand_and_given_back_at_a_close(
    bus: shmbus.Bus, attach: Attach
) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    one.subscribe("job", lambda m: m.nack(delay=1000.0), group="workers")
    one.start()
    sender.publish("job", 1)
    eventually(lambda: info(bus, "one").in_hand == 1 and info(bus, "one").untouched == 0)
    other.subscribe("job", group="workers")
    one.close()
    assert seen(other.receive(60))[:2] == (1, 2)


def test_what_is_delayed_is_given_back_at_a_drain(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    nacked = threading.Event()

    def later(message: Message) -> None:
        message.nack(delay=1000.0)
        nacked.set()

    one.subscribe("job", later, group="workers")
    one.start()
    sender.publish("job", 1)
    assert nacked.wait(60)
    other.subscribe("job", group="workers")
    one.drain(60)
    assert seen(other.receive(60))[:2] == (1, 2)


def nack_late_and_hang(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("job", lambda m: m.nack(delay=1000.0), group="workers")
    endpoint.run()


def test_what_is_delayed_goes_on_where_its_holder_dies(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    victim, sender, other = worker(nack_late_and_hang, name="victim"), attach("s"), attach("other")
    sender.wait_for("job")
    sender.publish("job", 1)
    eventually(lambda: info(bus, "victim").untouched == 0)
    eventually(lambda: info(bus, "victim").in_hand == 1)
    other.subscribe("job", group="workers")
    victim.kill()
    assert seen(other.receive(60))[:2] == (1, 2)


def test_ctrl_c_just_after_it_was_given_back_ends_the_delay_once(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    one.subscribe("job", group="workers")
    sender.publish("job", 1)
    message = one.receive(60)
    assert message is not None
    other.subscribe("job", group="workers")
    message.nack(delay=600)
    for _ in range(2):  # the second time as it is found in the list again
        message._give_back(0xFFFFFFFF, "", 60.0)
    assert one._deferred() == 0
    assert seen(other.receive(60)) == (1, 2, True, "sender")
    assert other.receive(0) is None


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


def test_what_its_own_rings_do_not_take_is_not_given_back_and_becomes_a_dead_letter(
    attach: Attach, recorder: MakeRecorder
) -> None:
    letters = recorder("$bus.undeliverable")
    sizes = shmbus.Settings(in_bytes=65536, out_bytes=8192)
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
    assert (error.endpoint, error.setting, error.size) == ("one", "out_bytes", 10_000)
    assert "too large to be given back" in letter.payload["reason"]
    assert (letter.payload["attempt"], letter.payload["size"]) == (1, 10_000)
    assert bytes(1000) < letter.payload["payload"] < bytes(2048)
    eventually(lambda: info(one.bus, "one").in_hand == 0)


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


class Given:
    """In the place of a message, for `Returns`: counts how often it was given back."""

    def __init__(self, *raises: type[BaseException]) -> None:
        self.times, self._raises = 0, list(raises)

    def _give_back(self, bits: int, reason: str, timeout: float) -> None:
        if self._raises:
            raise self._raises.pop(0)
        self.times += 1

    @property
    def message(self) -> Message:
        return cast(Message, self)


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_delayed_as_the_thread_for_that_leaves_is_given_back(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    returns, first, second = Returns("one"), Given(), Given()
    leave = Background.leave

    def leaves(thread: Background) -> None:
        late = first.times and not second.times
        if late and when == "before":
            returns.add(second.message, 2, "", 0)
        leave(thread)
        if late and when == "after":
            returns.add(second.message, 2, "", 0)

    monkeypatch.setattr(Background, "leave", leaves)
    returns.add(first.message, 2, "", time.monotonic_ns() + 10**12)
    returns.give_all(60)
    eventually(lambda: second.times)
    assert (first.times, second.times) == (1, 1)


@pytest.mark.parametrize("error", [MemoryError, SystemExit])
def test_what_fails_as_it_is_given_back_is_tried_again_and_keeps_no_other_waiting(
    caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    returns, first, second = Returns("one"), Given(error, error), Given()
    now = time.monotonic_ns()
    returns.add(first.message, 2, "", now)
    returns.add(second.message, 2, "", now)
    eventually(lambda: first.times and second.times)
    assert (first.times, second.times) == (1, 1)
    assert "could not be given back yet" in caplog.text
    returns.give_all(60)


def test_an_interrupt_as_all_is_given_back_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Background, "ensure", lambda thread: None)
    returns, one = Returns("one"), Given(KeyboardInterrupt)
    returns.add(one.message, 2, "", time.monotonic_ns() + 10**12)
    with pytest.raises(KeyboardInterrupt):
        returns.give_all(60)
    returns.give_all(60)
    assert one.times == 1


def put_off_and_wait(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("work", lambda m: m.nack(delay=1000.0))
    endpoint.run()


def test_a_command_that_is_delayed_goes_on_where_its_holder_dies(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker, recorder: MakeRecorder
) -> None:
    letters, got = recorder("$bus.undeliverable"), list[tuple[object, int]]()
    victim, sender, other = worker(put_off_and_wait, name="victim"), attach("s"), attach("other")
    sender.wait_for("work")
    sender.send("work", 1)
    eventually(lambda: info(bus, "victim").untouched == 0)
    eventually(lambda: info(bus, "victim").in_hand == 1)
    other.handle("work", lambda m: got.append((m.payload, m.attempt)))
    other.start()
    victim.kill()
    eventually(lambda: got or letters.messages)
    assert got == [(1, 2)]


def test_a_command_that_could_not_be_put_off_is_handled_at_most_once(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker, recorder: MakeRecorder
) -> None:
    letters = recorder("$bus.undeliverable")
    victim, sender, other = worker(fail_to_put_off, name="victim"), attach("s"), attach("other")
    sender.wait_for("work")
    sender.send("work", 1)
    sender.wait_for("failed")
    other.handle("work", lambda m: None)
    other.start()
    victim.kill()
    (letter,) = letters.wait()
    assert letter.payload["reason"] == "its handler died"


def fail_to_put_off(endpoint: shmbus.Endpoint) -> None:
    def work(message: Message) -> None:
        threading.Thread.start = no_thread  # type: ignore[method-assign]
        with pytest.raises(NoThread):
            message.nack(delay=1000.0)
        endpoint.subscribe("failed", print)
        time.sleep(1000)

    endpoint.handle("work", work)
    endpoint.run()


def no_thread(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def nack_for_one_group_and_hang_in_another(endpoint: shmbus.Endpoint) -> None:
    def hang(message: Message) -> None:
        endpoint.publish("hangs")
        time.sleep(1000)

    endpoint.subscribe("job", lambda m: m.nack(), group="a")
    endpoint.subscribe("job", hang, group="b")
    endpoint.subscribe("ready", print)
    endpoint.run()


def test_what_one_group_gives_back_goes_on_once_though_the_callback_of_another_is_killed(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker, recorder: MakeRecorder
) -> None:
    hangs, got = recorder("hangs"), list[tuple[str, object, int]]()
    victim = worker(nack_for_one_group_and_hang_in_another, name="victim")
    sender, other = attach("sender"), attach("other")
    sender.wait_for("ready")
    sender.publish("job", 1)
    hangs.wait()
    other.subscribe("job", lambda m: got.append(("a", m.payload, m.attempt)), group="a")
    other.subscribe("job", lambda m: got.append(("b", m.payload, m.attempt)), group="b")
    other.start()
    victim.kill()
    eventually(lambda: all(each.name != "victim" for each in bus.endpoints()))
    eventually(lambda: len(got) >= 2)
    sender.publish("job", 2)
    eventually(lambda: len(got) >= 4)
    assert sorted(got) == [("a", 1, 2), ("a", 2, 1), ("b", 1, 2), ("b", 2, 1)]


def test_what_both_groups_give_back_comes_to_both_again(attach: Attach) -> None:
    got = list[tuple[str, int]]()
    sender, one = attach("sender"), attach("one")

    def nack(group: str, message: Message) -> None:
        got.append((group, message.attempt))
        if message.attempt == 1:
            message.nack()

    one.subscribe("job", partial(nack, "a"), group="a")
    one.subscribe("job", partial(nack, "b"), group="b")
    one.start()
    sender.publish("job", 1)
    eventually(lambda: len(got) == 4)
    assert got == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    eventually(lambda: info(one.bus, "one").in_hand == 0)
    assert info(one.bus, "one").nacked == 2


def test_a_group_whose_time_has_come_waits_for_the_callback_of_the_other(attach: Attach) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    runs, go = threading.Event(), threading.Event()

    def work(message: Message) -> None:
        runs.set()
        go.wait(60)

    one.subscribe("job", lambda m: m.nack(delay=0.01), group="a")
    one.subscribe("job", work, group="b")
    one.start()
    sender.publish("job", 1)
    assert runs.wait(60)
    other.subscribe("job", group="a")
    assert other.receive(0.1) is None
    go.set()
    assert seen(other.receive(60))[:2] == (1, 2)
    one.drain(60)
    assert other.receive(0) is None


def test_of_two_groups_the_later_one_s_time_counts(attach: Attach) -> None:
    sender, one, other, third = attach("sender"), attach("one"), attach("other"), attach("third")
    nacked = threading.Event()

    def later(message: Message) -> None:
        message.nack(delay=1000.0)
        nacked.set()

    one.subscribe("job", lambda m: m.nack(), group="a")
    one.subscribe("job", later, group="b")
    one.start()
    sender.publish("job", 1)
    assert nacked.wait(60)
    other.subscribe("job", group="a")
    third.subscribe("job", group="b")
    assert other.receive(0.1) is None
    one.drain(60)
    assert seen(other.receive(60))[:2] == seen(third.receive(60))[:2] == (1, 2)
    assert other.receive(0) is third.receive(0) is None


def test_what_a_callback_gave_back_goes_on_once_the_caller_is_done_with_the_rest(
    attach: Attach,
) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    one.subscribe("job", lambda m: m.nack(), group="a")
    one.subscribe("job", group="b")
    sender.publish("job", 1)
    message = one.receive(60)
    assert seen(message)[:2] == (1, 1)
    other.subscribe("job", group="a")
    assert other.receive(0.1) is None
    assert one.receive(0) is None
    assert seen(other.receive(60))[:2] == (1, 2)


def test_large_messages_for_many_groups_are_given_back_for_each(attach: Attach) -> None:
    small = shmbus.Settings(in_bytes=16384, out_bytes=16384)
    sender, one = attach("sender", settings=small), attach("one", settings=small)
    for group in "abcdef":
        one.subscribe("job", group=group)
    sender.publish("job", bytes(4000))
    message = one.receive(60)
    assert message is not None
    message.nack()
    again = [one.receive(60) for _ in "abcdef"]
    assert {(len(each.payload), each.attempt) for each in again if each} == {(4000, 2)}
    assert one.receive(0) is None


@pytest.mark.parametrize("delay", [0.0, 1000.0])
def test_what_came_for_a_group_that_was_left_is_given_back_to_no_other_group(
    attach: Attach, delay: float
) -> None:
    sender, one, other = attach("sender"), attach("one"), attach("other")
    first = one.subscribe("job", group="first")
    sender.publish("job", 1)
    message = one.receive(60)
    assert message is not None
    if delay:
        message.nack(delay=delay)
        assert one.receive(0) is None
    first.close()
    kept = [one.subscribe("job", group=f"g{n}") for n in range(GROUPS - 2)]
    with pytest.raises(errors.TooManyGroups):
        one.subscribe("job", group="one.too.many")
    kept.pop().close()
    one.subscribe("job", group="new")
    other.subscribe("job", group="first")
    if delay:
        one.drain(60)
    else:
        message.nack()
    assert seen(other.receive(60))[:2] == (1, 2)
