"""Whether anybody is there: `matched`, at the price of a look, and `on_match`, at changes."""

from __future__ import annotations

import queue
import random
import threading

import pytest

import shmbus
from shmbus import errors
from shmbus.shared.patterns import overlaps
from shmbus.testing import Attach, BusProcess, eventually
from tests.kept import Kept

SMALL = shmbus.Settings(in_bytes=4096, out_bytes=4096, reply_bytes=4096, max_requests=2)


class Calls(queue.SimpleQueue[int]):
    """What a callback of `on_match` was called with."""

    __call__ = queue.SimpleQueue.put

    def next(self) -> int:
        return self.get(timeout=60)


# matched -----------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_it_counts_the_endpoints_that_would_get_an_event_each_once(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, a, b = attach("producer"), attach("a"), attach("b")
    assert producer.matched("log.line") == 0
    first = a.subscribe("log.line")
    a.subscribe("log.>")
    b.subscribe("log.*", group="archive")
    assert (producer.matched("log.line"), producer.matched("log.other")) == (2, 2)
    first.close()
    assert (producer.matched("log.line"), producer.matched("log.a.b")) == (2, 1)
    producer.subscribe("log.line")
    assert producer.matched("log.line") == 3
    b.close()
    assert producer.matched("log.line") == 2


def test_handlers_taps_and_who_waits_for_receivers_receive_no_events(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, other = attach("producer"), attach("other")
    other.handle("log.line", Kept())
    other.tap("log.line")
    other.on_match("log.line", Calls())
    assert producer.matched("log.line") == 0
    assert producer.matched("log.line", handlers=True) == 1


def test_of_a_pattern_it_counts_who_would_get_any_type_that_matches(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, a, b = attach("producer"), attach("a"), attach("b")
    a.subscribe("log.*.error")
    b.subscribe("$bus.>")
    assert [producer.matched(p) for p in ("log.>", "*.b.error", ">", "log.*", "$bus.>")] == [
        1,
        1,
        1,
        0,
        1,
    ]


def test_two_patterns_have_a_type_in_common_or_not(bus: shmbus.Bus, attach: Attach) -> None:
    producer, consumer = attach("producer"), attach("consumer")
    chance = random.Random(16)

    def pattern() -> str:
        tokens = chance.choices(["a", "b", "*"], k=chance.randint(1, 3))
        return ".".join(["$bus", *tokens] if chance.random() < 0.1 else tokens) + chance.choice(
            ["", "", ".>"]
        )

    for _ in range(40):
        subscribed = pattern()
        with consumer.subscribe(subscribed):
            for asked in {pattern() for _ in range(40)} | {">", "*", "$bus.>"}:
                wanted = overlaps(asked, subscribed)
                assert bool(producer.matched(asked)) == wanted, (asked, subscribed)


def test_what_subscribe_has_returned_from_counts_at_once_at_every_endpoint(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, consumer = attach("producer"), attach("consumer")
    for _ in range(200):
        subscription = consumer.subscribe("tick")
        assert producer.matched("tick") == 1
        subscription.close()
        assert producer.matched("tick") == 0


@pytest.mark.slow
def test_many_types_are_not_remembered_for_ever(bus: shmbus.Bus, attach: Attach) -> None:
    producer, consumer = attach("producer"), attach("consumer")
    consumer.subscribe("*.odd")
    assert [producer.matched(f"{n}.odd") for n in range(5000)] == [1] * 5000


@pytest.mark.parametrize("known", [True, False])
def test_it_answers_while_there_is_no_dispatcher_and_after_it_died(
    bus_process: BusProcess, attach: Attach, known: bool
) -> None:
    producer, consumer = attach("producer"), attach("consumer", reconnect="always")
    consumer.subscribe("tick")
    if known:
        assert producer.matched("tick") == 1
    bus_process.kill()
    assert producer.matched("tick") == 1
    bus_process.start()
    assert producer.matched("tick") == 1
    consumer.close()
    eventually(lambda: producer.matched("tick") == 0)


def test_nonsense_is_no_type(bus: shmbus.Bus, attach: Attach) -> None:
    producer = attach("producer")
    with pytest.raises(errors.InvalidPattern):
        producer.matched("log..line")
    with pytest.raises(TypeError):
        producer.matched(None)  # type: ignore[arg-type]
    producer.close()
    with pytest.raises(errors.EndpointClosed):
        producer.matched("log.line")


# on_match ----------------------------------------------------------------------------------------


@pytest.mark.smoke
def test_it_tells_when_the_first_receiver_comes_and_when_the_last_has_gone(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, calls = attach("producer"), Calls()
    producer.on_match("camera.>", calls)
    producer.start()
    a, b = attach("a"), attach("b")
    a.subscribe("camera.frame")
    assert calls.next() == 1
    subscription = b.subscribe("camera.*", group="display")
    a.close()
    subscription.close()
    assert calls.next() == 0
    b.subscribe("*.frame")
    assert calls.next() == 1
    assert calls.empty()


def test_it_tells_at_once_if_somebody_is_there_and_nothing_if_nobody_is(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, consumer, calls, others = attach("producer"), attach("consumer"), Calls(), Calls()
    consumer.subscribe("a.b")
    producer.on_match("a.*", calls)
    producer.on_match("b.*", others)
    producer.start()
    assert calls.next() == 1
    eventually(lambda: not producer._data_waits())
    assert others.empty()


def test_it_tells_no_more_once_it_is_closed(bus: shmbus.Bus, attach: Attach) -> None:
    producer, consumer, calls, others = attach("producer"), attach("consumer"), Calls(), Calls()
    producer.on_match("a", calls).close()
    producer.on_match("a", others)
    producer.start()
    consumer.subscribe("a")
    assert others.next() == 1
    assert calls.empty()


def test_subscribers_of_the_buss_own_events_do_not_get_what_it_tells(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, consumer, calls = attach("producer"), attach("consumer"), Calls()
    producer.subscribe("$bus.matched")
    consumer.subscribe("$bus.matched")
    producer.on_match("a", calls)
    consumer.subscribe("a")
    assert producer.receive(0.1) is None
    assert calls.next() == 1
    assert consumer.receive(0.01) is None


def test_what_comes_and_goes_is_told_in_order_one_call_at_a_time(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, consumer = attach("producer"), attach("consumer")
    calls: list[int] = []
    inside, most = threading.Semaphore(0), [0]

    def note(receivers: int) -> None:
        inside.release()
        most[0] = max(most[0], inside._value)
        calls.append(receivers)
        inside.acquire()

    producer.on_match("a", note)
    producer.start(threads=3)
    for _ in range(100):
        consumer.subscribe("a").close()
    consumer.subscribe("a")
    eventually(lambda: calls[-1:] == [1] and not producer._data_waits())
    assert calls == [1, 0] * (len(calls) // 2) + [1]
    assert most == [1]


def test_what_finds_no_space_is_told_once_there_is_some(bus: shmbus.Bus, attach: Attach) -> None:
    producer, consumer, calls = attach("producer", settings=SMALL), attach("consumer"), Calls()
    producer.on_match("a", calls)
    producer.subscribe("noise", lambda message: None, overflow="drop_newest")
    while not consumer.bus.find("noise")[0].lost:
        consumer.publish("noise", bytes(600))
    while not consumer.bus.find("noise")[0].lost > 100:
        consumer.publish("noise")
    consumer.subscribe("a")
    assert calls.empty()
    producer.start()
    assert calls.next() == 1
    consumer.close()
    assert calls.next() == 0


def test_a_receiver_that_dies_is_told_of_as_one_that_goes(bus: shmbus.Bus, attach: Attach) -> None:
    producer, consumer, calls = attach("producer"), attach("consumer"), Calls()
    producer.on_match("a", calls)
    producer.start()
    consumer.subscribe("a")
    assert calls.next() == 1
    bus.evict("consumer")
    assert calls.next() == 0


def test_the_next_dispatcher_tells_what_has_changed_meanwhile_and_nothing_else(
    bus_process: BusProcess, attach: Attach
) -> None:
    producer, calls, others = attach("producer", reconnect="always"), Calls(), Calls()
    going, staying = attach("going"), attach("staying", reconnect="always")
    producer.on_match("a", calls)
    producer.on_match("b", others)
    producer.start()
    going.subscribe("a")
    staying.subscribe("b")
    assert (calls.next(), others.next()) == (1, 1)
    bus_process.kill()
    going.close()
    bus_process.start()
    assert calls.next() == 0
    staying.close()
    assert others.next() == 0
    assert calls.empty()


def test_a_callback_that_raises_is_logged_and_told_of_the_next_change(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    producer, consumer, calls = attach("producer"), attach("consumer"), Calls()

    def fail(receivers: int) -> None:
        calls(receivers)
        raise ValueError("no")

    producer.on_match("a", fail)
    producer.start()
    consumer.subscribe("a").close()
    assert [calls.next(), calls.next()] in ([1, 0],)
    eventually(lambda: "ValueError" in caplog.text)


def test_what_cannot_be_called_is_refused(bus: shmbus.Bus, attach: Attach) -> None:
    producer = attach("producer")
    with pytest.raises(TypeError):
        producer.on_match("a", None)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidPattern):
        producer.on_match("a..b", print)

    async def note(receivers: int) -> None: ...

    with pytest.raises(errors.InvalidSetting):
        producer.on_match("a", note)


def test_one_endpoint_is_told_of_so_many_patterns_and_no_more(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer, calls = attach("producer"), Calls()
    told = [producer.on_match(f"a.{n}", calls) for n in range(64)]
    with pytest.raises(errors.InvalidSetting, match="64"):
        producer.on_match("one.more", calls)
    told[0].close()
    producer.on_match("one.more", calls)
    producer.start()
    attach("consumer").subscribe("one.more")
    assert calls.next() == 1
    assert bus.health().healthy


def test_who_is_told_is_shown_among_the_interests_and_gets_nothing_itself(
    bus: shmbus.Bus, attach: Attach
) -> None:
    producer = attach("producer")
    producer.on_match("a.>", Calls())
    (mine,) = (one for one in bus.endpoints() if one.name == "producer")
    assert [(i.pattern, i.role) for i in mine.interests] == [("a.>", "match")]
    assert mine.patterns == ()
    assert bus.find("a.b") == []
    assert bus.route("a.b").receivers == ()
