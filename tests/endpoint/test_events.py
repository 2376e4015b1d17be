"""What is published reaches those who subscribe, once each, in order, or is counted."""

import functools
import random
import re
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import Message, errors
from shmbus.endpoint import interests, runners
from shmbus.endpoint._kernel import EventCallback
from shmbus.testing import Attach, MakeRecorder, Recorder, eventually, in_shm


@pytest.mark.smoke
def test_an_event_reaches_all_who_match(bus: shmbus.Bus, attach: Attach) -> None:
    publisher, one, two, other = (attach(n) for n in ("publisher", "one", "two", "other"))
    one.subscribe("buffer.*.changed")
    two.subscribe("buffer.>")
    other.subscribe("file.>")
    publisher.publish("buffer.12.changed", {"rev": 7})
    for endpoint in (one, two):
        message = endpoint.receive(10)
        assert message is not None
        assert message.type == "buffer.12.changed"
        assert message.payload == {"rev": 7}
        assert message.source == "publisher"
        assert message.kind == "event"
        assert message.correlation_id is None
        assert message.deadline_ns is None
        assert (message.attempt, message.redelivered, message.lost) == (1, False, 0)
    assert other.receive(0) is None


def test_what_cannot_be_called_is_refused_at_once(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("one")
    with pytest.raises(TypeError, match=r"'a\.\*' is not callable: 3"):
        endpoint.subscribe("a.*", 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'a' is not callable: 'text'"):
        endpoint.handle("a", "text")  # type: ignore[call-overload]
    assert not endpoint.bus.find("a")


def test_who_subscribes_while_another_thread_looks_for_callbacks_misses_nothing(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, before, after = attach("e"), list[int](), list[int]()
    endpoint.subscribe("x", lambda message: before.append(message.payload))
    make = EventCallback

    def meanwhile(**facts: Any) -> object:
        monkeypatch.undo()
        endpoint.subscribe("x", lambda message: after.append(message.payload))
        return make(**facts)

    endpoint.publish("x", 1)
    monkeypatch.setattr(interests, "EventCallback", meanwhile)
    endpoint.start()
    eventually(lambda: before == [1])
    endpoint.publish("x", 2)
    endpoint.drain()
    assert (before, after[-1:]) == ([1, 2], [2])


def test_a_publisher_hears_itself(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("alone")
    endpoint.subscribe("x")
    endpoint.publish("x", 1)
    message = endpoint.receive(10)
    assert message is not None
    assert message.source == "alone"


@pytest.mark.parametrize(
    "payload",
    [None, b"", b"bytes", "text", 0, -1.5, True, [1, [2]], {"a": {"b": None}}, b"x" * 100_000],
)
def test_payloads_arrive_as_they_were_sent(
    bus: shmbus.Bus, attach: Attach, payload: object
) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x")
    endpoint.publish("x", payload)
    message = endpoint.receive(10)
    assert message is not None
    assert message.payload == payload
    assert type(message.payload) is type(payload)


@pytest.mark.smoke
@pytest.mark.bus(block_timeout=60.0)  # more than a ring holds, and a reader that may be slow
def test_order_is_kept_within_a_pair(bus: shmbus.Bus, attach: Attach) -> None:
    publisher, subscriber = attach("p"), attach("s")
    subscriber.subscribe("n")
    count = 20_000

    def publish() -> None:
        for i in range(count):
            publisher.publish("n", i, timeout=60)

    thread = threading.Thread(target=publish)
    thread.start()
    got: list[int] = []
    while len(got) < count:
        message = subscriber.receive(10)
        assert message is not None
        got.append(message.payload)
    thread.join()
    assert got == list(range(count))


def test_no_two_messages_of_an_endpoint_were_sent_at_the_same_time(
    bus: shmbus.Bus, attach: Attach
) -> None:
    publisher, subscriber = attach("p"), attach("s")
    subscriber.subscribe("n")
    publisher.publish_many(("n", i) for i in range(300))
    for i in range(300):
        publisher.publish("n", i)
    times = [message.sent_ns for message in islice(subscriber, 600)]
    assert times == sorted(set(times))


@pytest.mark.smoke
def test_of_a_batch_each_gets_what_is_for_it(
    bus: shmbus.Bus, attach: Attach, recorder: MakeRecorder
) -> None:
    sender, chance = attach("sender"), random.Random(7)
    one, two = recorder("a", "c", handles=["b"]), recorder("b", "c", handles=["a"])
    subscribed = {"a": [one], "b": [two], "c": [one, two]}
    handling = {"a": [two], "b": [one]}
    due: dict[Recorder, list[tuple[str, str]]] = {one: [], two: []}
    for _ in range(100):
        with sender.batch() as batch:
            for _ in range(8):
                if chance.random() < 0.5:
                    type, kind = chance.choice("abc"), "event"
                    batch.publish(type)
                else:
                    type, kind = chance.choice("ab"), "send"
                    batch.send(type)
                for each in (subscribed if kind == "event" else handling)[type]:
                    due[each].append((kind, type))
    sender.publish("c")
    for each, messages in due.items():
        each.wait(len(messages) + 1)
        assert [(m.kind, m.type) for m in each.messages] == [*messages, ("event", "c")]


def test_a_callback_and_iteration_each_get_what_is_theirs(bus: shmbus.Bus, attach: Attach) -> None:
    publisher, endpoint = attach("p"), attach("e")
    called: list[int] = []
    endpoint.subscribe("a", lambda message: called.append(message.payload))
    endpoint.subscribe("*", lambda message: called.append(-message.payload))
    endpoint.subscribe("b")
    endpoint.subscribe(">")
    publisher.publish("a", 1)
    publisher.publish("b", 2)
    seen = []
    for message in endpoint:
        seen.append((message.type, message.payload))
        if message.type == "b":
            break
    assert seen == [("a", 1), ("b", 2)]  # once each, though "b" matches two patterns
    assert called == [1, -1, -2]


def test_payload_types_come_from_the_call_the_annotation_and_attach(
    bus: shmbus.Bus, attach: Attach
) -> None:
    class Change(msgspec.Struct):
        rev: int

    endpoint = attach("e", types={"registered": Change})
    got: list[object] = []

    def annotated(message: Message[Change]) -> None:
        got.append(message.payload)

    endpoint.subscribe("annotated", annotated)
    endpoint.subscribe("called", lambda m: got.append(m.payload), payload_type=Change)
    endpoint.subscribe("registered", lambda m: got.append(m.payload))
    endpoint.subscribe("plain")
    for type in ("annotated", "called", "registered", "plain"):
        endpoint.publish(type, Change(7))
    message = endpoint.receive(10)
    assert message is not None
    assert message.payload == {"rev": 7}
    assert got == [Change(7), Change(7), Change(7)]


class Registered(msgspec.Struct):
    rev: int


class Annotated(msgspec.Struct):
    rev: int


class Called(msgspec.Struct):
    rev: int


def test_the_type_of_the_call_goes_before_the_annotation_s_and_that_before_attach_s(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e", types={">": Registered})
    got: list[object] = []

    def annotated(message: Message[Annotated]) -> None:
        got.append(message.payload)

    def answer(message: Message[Annotated]) -> None:
        got.append(message.payload)

    endpoint.subscribe("called", annotated, payload_type=Called)
    endpoint.subscribe("annotated", annotated)
    endpoint.subscribe("registered", lambda message: got.append(message.payload))
    endpoint.subscribe("iterated", payload_type=Called)
    endpoint.handle("ask.called", answer, payload_type=Called)
    endpoint.handle("ask.annotated", answer)
    for type in ("called", "annotated", "registered"):
        endpoint.publish(type, {"rev": 1})
    for type in ("ask.called", "ask.annotated"):
        endpoint.send(type, {"rev": 2})
    endpoint.publish("iterated", {"rev": 3})
    message = endpoint.receive(10)
    assert message is not None
    assert message.payload == Called(3)
    assert got == [Called(1), Annotated(1), Registered(1), Called(2), Annotated(2)]


def test_a_payload_of_another_type_is_told_to_the_receiver_and_counted(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e", types={"x": int})
    endpoint.subscribe("x")
    endpoint.publish("x", "no number")
    message = endpoint.receive(10)
    assert message is not None
    with pytest.raises(errors.DecodeError, match="'x'"):
        message.payload  # noqa: B018
    assert bus.endpoints()[0].decode_errors == 1


def test_an_exception_in_a_callback_stops_nothing(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = attach("e")
    endpoint.subscribe("bad", lambda message: 1 / 0)
    endpoint.subscribe("good")
    endpoint.publish("bad")
    endpoint.publish("good")
    message = endpoint.receive(10)
    assert message is not None
    assert message.type == "good"
    assert bus.endpoints()[0].handler_errors == 1
    assert "'bad'" in caplog.text
    assert "'e'" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_closed_subscription_gets_nothing_more(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    first = endpoint.subscribe("x")
    endpoint.subscribe("y")
    first.close()
    first.close()
    endpoint.publish("x")
    endpoint.publish("y")
    message = endpoint.receive(10)
    assert message is not None
    assert message.type == "y"


@pytest.mark.smoke
def test_a_group_gets_each_message_once(bus: shmbus.Bus, attach: Attach) -> None:
    publisher = attach("p")
    members = [attach(f"m{i}") for i in range(3)]
    got: Counter[int] = Counter()
    lock = threading.Lock()

    def work(message: Message[int]) -> None:
        with lock:
            got[message.payload] += 1

    for member in members:
        member.subscribe("job", work, group="workers")
        member.start()
    for i in range(3000):
        publisher.publish("job", i)
    eventually(lambda: len(got) == 3000)
    assert set(got.values()) == {1}


def test_what_comes_for_a_group_that_has_been_left_is_counted(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    sender, member = attach("s"), attach("m")
    got: list[Message] = []
    left = member.subscribe("job", got.append, group="workers")
    member.subscribe("job", got.append, group="others")
    sender.publish("job")
    eventually(lambda: bus.endpoints()[1].untouched == 1)
    left.close()
    member.receive(0)
    assert len(got) == 1
    assert bus.endpoints()[1].handler_errors == 1
    assert "nothing here handles it any more" in caplog.text


def test_what_comes_for_a_group_that_has_been_left_is_not_for_the_next_group(
    bus: shmbus.Bus, attach: Attach
) -> None:
    sender, member = attach("s"), attach("m")
    got: list[Message] = []
    left = member.subscribe("job", print, group="workers")
    sender.publish("job")
    eventually(lambda: bus.endpoints()[1].untouched == 1)
    left.close()
    member.subscribe("job", got.append, group="others")
    member.receive(0)
    assert got == []


def test_groups_are_limited_to_31_and_a_left_one_makes_room(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e")
    subscriptions = [endpoint.subscribe("x", group=f"g{i}") for i in range(31)]
    with pytest.raises(errors.TooManyGroups) as caught:
        endpoint.subscribe("x", group="one-more")
    assert (caught.value.endpoint, caught.value.limit) == ("e", 31)
    subscriptions[7].close()
    endpoint.subscribe("x", group="one-more")


def test_many_patterns_of_one_endpoint(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    subscriptions = [endpoint.subscribe(f"type.{'x' * 50}.{i}") for i in range(500)]
    endpoint.publish(f"type.{'x' * 50}.499", 1)
    assert endpoint.receive(10) is not None
    for subscription in subscriptions[:-1]:
        subscription.close()
    assert len([name for name in in_shm(bus.name) if ":int:" in name]) == 1  # log of interests
    endpoint.publish(f"type.{'x' * 50}.0", 1)
    endpoint.publish(f"type.{'x' * 50}.499", 2)
    message = endpoint.receive(10)
    assert message is not None
    assert message.payload == 2


def test_receive_many_keeps_what_came_before_the_end_of_the_bus(bus_name: str) -> None:
    with shmbus.serve(bus_name) as bus:
        endpoint = bus.attach("e")
        endpoint.subscribe("x")
        for i in range(3):
            endpoint.publish("x", i)
    assert [message.payload for message in endpoint.receive_many(5, timeout=10)] == [0, 1, 2]
    with pytest.raises(errors.BusDown):
        endpoint.receive_many(5, timeout=10)
    endpoint.close()


def test_receive_many_takes_what_is_there(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x")
    assert endpoint.receive_many(5, timeout=0) == []
    endpoint.publish_many(("x", i) for i in range(10))
    got: list[object] = []
    while len(got) < 10:
        got += [message.payload for message in endpoint.receive_many(4, timeout=10)]
    assert got == list(range(10))


@pytest.mark.parametrize("type", ["", "a..b", "a.*", "$bus.x", "ä", "a" * 256])
def test_wrong_types_are_refused(bus: shmbus.Bus, attach: Attach, type: str) -> None:
    endpoint = attach("e")
    with pytest.raises(errors.InvalidType):
        endpoint.publish(type)


def test_what_cannot_be_encoded_is_told_to_its_maker(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    with pytest.raises(errors.EncodeError) as caught:
        endpoint.publish("x", object())
    assert caught.value.type == "x"
    endpoint.publish("x", {"still": "works"})


def test_too_large_is_told_to_its_maker_with_the_limit(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e", settings=shmbus.Settings(out_bytes=65536, pool_bytes=20_000))
    endpoint.subscribe("x")
    with pytest.raises(errors.MessageTooLarge) as caught:
        endpoint.publish("x", bytes(20_001))
    assert caught.value.size == 20_001
    assert caught.value.endpoint == "e"
    assert caught.value.setting == "pool_bytes"
    endpoint.publish("x", bytes(caught.value.limit))
    assert endpoint.receive(10) is not None


def test_a_message_that_is_too_large_is_taken_with_the_settings_that_its_error_names(
    bus: shmbus.Bus, attach: Attach
) -> None:
    payload = bytes(200_000)
    small = attach("small", settings=shmbus.Settings(pool_bytes=100_000))
    with pytest.raises(errors.MessageTooLarge, match="Send parts, or attach that") as caught:
        small.publish("x", payload)
    named = re.search(r"attach that endpoint with Settings\(pool_bytes=(\d+)\)", str(caught.value))
    assert named is not None
    settings = shmbus.Settings(pool_bytes=int(named[1]))
    endpoint = attach("large", settings=settings)
    endpoint.subscribe("x")
    endpoint.publish("x", payload)
    message = endpoint.receive(60)
    assert message is not None
    assert message.payload == payload


def test_large_messages_where_the_rings_are_made_for_them(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e", settings=shmbus.Settings(in_bytes=32 << 20, out_bytes=32 << 20))
    endpoint.subscribe("x")
    payload = bytes(range(256)) * 16384
    endpoint.publish("x", payload)
    message = endpoint.receive(10)
    assert message is not None
    assert message.payload == payload


def test_run_and_iteration_exclude_each_other(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x", print)
    begun = iter(endpoint)
    endpoint.start()
    eventually(lambda: bus.endpoints()[0].receivers == 1)
    with pytest.raises(errors.ReceiveConflict):
        next(begun)
    with pytest.raises(errors.ReceiveConflict):
        next(iter(endpoint))
    with pytest.raises(errors.ReceiveConflict):
        endpoint.receive(0)
    with pytest.raises(errors.ReceiveConflict):
        endpoint.subscribe("y")
    other = attach("other")
    other.subscribe("y")
    with pytest.raises(errors.ReceiveConflict, match="'y'"):
        other.run()


@pytest.mark.slow
def test_messages_that_nobody_runs_are_warned_of_once(
    bus: shmbus.Bus, attach: Attach, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = attach("e")
    endpoint.subscribe("x", print)
    endpoint.publish("x")
    eventually(lambda: "no thread runs its handlers" in caplog.text)
    endpoint.close()
    assert caplog.text.count("no thread runs its handlers") == 1


def test_who_was_started_and_has_not_come_to_run_yet_is_not_said_to_be_missing(
    bus: shmbus.Bus,
    attach: Attach,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runners, "PATIENCE", 0.001)
    endpoint, go = attach("e"), threading.Event()
    run = runners.Runners.run

    def late(*given: Any, **more: Any) -> None:
        go.wait(60)
        run(*given, **more)

    monkeypatch.setattr(runners.Runners, "run", late)
    endpoint.subscribe("x", print)
    endpoint.start()
    endpoint.publish("x")
    eventually(lambda: bus.endpoints()[0].untouched == 1)
    endpoint._running.warn_if_missing()
    go.set()
    eventually(lambda: bus.endpoints()[0].untouched == 0)
    assert caplog.records == []


async def work(message: shmbus.Message) -> None:
    raise AssertionError


class Works:
    async def __call__(self, message: shmbus.Message) -> None:
        raise AssertionError


@pytest.mark.parametrize("function", [work, Works(), functools.partial(work), Works().__call__])
@pytest.mark.parametrize("call", ["subscribe", "handle", "on_death"])
def test_an_async_function_is_refused_since_nothing_would_run_it(
    bus: shmbus.Bus, attach: Attach, call: str, function: Any
) -> None:
    endpoint = attach()
    with pytest.raises(errors.InvalidSetting, match="nothing would run it") as caught:
        getattr(endpoint, call)("x", function)
    assert "run_coroutine_threadsafe" in caught.value.remedy
    assert bus.find("x") == []


def parts(message: shmbus.Message) -> Iterator[int]:
    yield 1


async def later_parts(message: shmbus.Message) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [parts, later_parts])
def test_a_function_that_yields_is_refused_since_nothing_would_iterate_over_it(
    bus: shmbus.Bus, attach: Attach, function: Any
) -> None:
    endpoint = attach()
    with pytest.raises(errors.InvalidSetting, match="yields: nothing would iterate over it"):
        endpoint.subscribe("x", function)
    assert bus.find("x") == []
