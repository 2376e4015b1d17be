"""Work that is given back later: `message.nack(delay=)`."""

from __future__ import annotations

import threading
import time
from typing import cast

import pytest

import shmbus
from shmbus import Message
from shmbus.endpoint.background import Background
from shmbus.endpoint.returns import Returns
from shmbus.errors import NoThread
from shmbus.testing import Attach, MakeRecorder, StartWorker, eventually

from .looks import info, seen

pytestmark = pytest.mark.usefixtures("bus")


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
