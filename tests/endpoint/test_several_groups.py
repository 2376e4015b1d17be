"""What came for several groups of one endpoint, given back for some of them or all."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.limits import GROUPS
from shmbus.testing import Attach, MakeRecorder, StartWorker, eventually

from .looks import info, seen

pytestmark = pytest.mark.usefixtures("bus")


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


def put_off_for_one_group(endpoint: shmbus.Endpoint) -> None:
    endpoint.subscribe("job", lambda m: m.nack(delay=1000.0), group="a")
    endpoint.subscribe("job", lambda m: None, group="b")
    endpoint.subscribe("ready", print)
    endpoint.run()


def test_what_one_group_puts_off_and_another_has_done_comes_to_the_one_when_it_is_killed(
    bus: shmbus.Bus, attach: Attach, worker: StartWorker
) -> None:
    got = list[tuple[str, object, int]]()
    victim = worker(put_off_for_one_group, name="victim")
    sender, other = attach("sender"), attach("other")
    sender.wait_for("ready")
    sender.publish("job", 1)
    eventually(lambda: info(bus, "victim").held and not info(bus, "victim").untouched)
    sender.publish("ready")
    eventually(lambda: info(bus, "victim").received.events == 2)
    other.subscribe("job", lambda m: got.append(("a", m.payload, m.attempt)), group="a")
    other.subscribe("job", lambda m: got.append(("b", m.payload, m.attempt)), group="b")
    other.start()
    victim.kill()
    eventually(lambda: all(each.name != "victim" for each in bus.endpoints()))
    sender.publish("job", 2)
    eventually(lambda: len(got) >= 3)
    assert sorted(got) == [("a", 1, 2), ("a", 2, 1), ("b", 2, 1)]


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
