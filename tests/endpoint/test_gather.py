"""A question to all: each endpoint that handles the type answers, or ends in the result as what
became of it."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from typing import Any, TypeGuard

import pytest

import shmbus
from shmbus import Message, errors
from shmbus.testing import Attach, eventually
from shmbus.views.facts import EndpointInfo
from shmbus.views.registry import Registry
from tests.kept import Kept

SMALL = shmbus.Settings(max_requests=2, in_bytes=4096, out_bytes=4096, reply_bytes=4096)

Results = dict[str, Message | errors.BusError]


def payloads(results: Results) -> dict[str, object]:
    """Of replies the payload, of errors the class."""
    return {
        name: type(one) if isinstance(one, errors.BusError) else one.payload
        for name, one in results.items()
    }


def timed_out(one: Message | errors.BusError) -> TypeGuard[errors.RequestTimeout]:
    return isinstance(one, errors.RequestTimeout)


def serve(endpoint: shmbus.Endpoint, pattern: str = "state.get") -> shmbus.Endpoint:
    """It answers with its name."""
    endpoint.handle(pattern, lambda message: endpoint.name)
    endpoint.start()
    return endpoint


def info(bus: shmbus.Bus, name: str) -> shmbus.views.EndpointInfo:
    return next(one for one in bus.endpoints() if one.name == name)


@pytest.mark.smoke
def test_all_who_handle_a_type_answer_by_the_most_specific_pattern_or_not(
    bus: shmbus.Bus, attach: Attach
) -> None:
    for name, pattern in (("a", "state.get"), ("b", "state.get"), ("c", "state.*"), ("d", ">")):
        serve(attach(name), pattern)
    serve(attach("other"), "state.set")
    attach("subscriber").subscribe("state.get")
    found = attach("asker").gather("state.get", timeout=60)
    assert payloads(found) == {"a": "a", "b": "b", "c": "c", "d": "d"}


def test_each_of_them_is_asked_once_though_others_handle_the_same_pattern(
    bus: shmbus.Bus, attach: Attach
) -> None:
    asked: list[str] = []
    for name in "abcd":
        worker = attach(name)
        worker.handle("ask", lambda message, name=name: asked.append(name))
        worker.start()
    asker = attach("asker")
    for _ in range(20):
        asker.gather("ask", timeout=60)
    assert sorted(asked) == sorted("abcd" * 20)


def test_nobody_there_is_an_empty_result_unless_replies_are_wanted(
    attach: Attach, bus: shmbus.Bus
) -> None:
    asker = attach("asker")
    assert asker.gather("ask", timeout=60) == {}
    with pytest.raises(errors.TooFewReplies) as caught:
        asker.gather("ask", at_least=1, timeout=60)
    assert (caught.value.wanted, caught.value.replies, caught.value.results) == (1, 0, {})


def test_the_errors_of_many_who_hang_say_what_each_has_begun_and_look_at_all_of_them_once(
    bus: shmbus.Bus, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    look = Registry.endpoints

    def count(*args: Any) -> list[EndpointInfo]:
        looks.append(None)
        return look(*args)

    for name in "abcdefgh":
        attach(name).handle("ask", lambda message: None)  # and runs nothing
    asker = attach("asker")
    monkeypatch.setattr(Registry, "endpoints", count)
    results = asker.gather("ask", timeout=0.05)
    facts = [(one.endpoint, one.pid, one.begun) for one in results.values() if timed_out(one)]
    assert facts == [(name, os.getpid(), False) for name in "abcdefgh"]
    assert len(looks) <= 2  # one as its view of the bus is opened


def test_a_handler_that_raises_and_one_that_takes_too_long_are_told_apart(
    bus: shmbus.Bus, attach: Attach
) -> None:
    serve(attach("good"), "ask")
    bad, hung, kept = attach("bad"), attach("hung"), Kept()
    bad.handle("ask", lambda message: 1 / 0)
    hung.handle("ask", kept)
    bad.start()
    hung.start()
    found = attach("asker").gather("ask", timeout=0.2)
    assert payloads(found) == {
        "good": "good",
        "bad": errors.RemoteError,
        "hung": errors.RequestTimeout,
    }
    late = found["hung"]
    assert isinstance(late, errors.RequestTimeout)
    assert (late.endpoint, late.begun) == ("hung", True)
    eventually(lambda: kept[0].cancelled)


def test_enough_replies_withdraw_the_others(bus: shmbus.Bus, attach: Attach) -> None:
    serve(attach("a"), "ask")
    serve(attach("b"), "ask")
    hung, kept = attach("hung"), Kept()
    hung.handle("ask", kept)
    hung.start()
    found = attach("asker").gather("ask", at_least=2, timeout=None)
    assert payloads(found) == {"a": "a", "b": "b", "hung": errors.Withdrawn}
    withdrawn = found["hung"]
    assert isinstance(withdrawn, errors.Withdrawn)
    assert (withdrawn.endpoint, withdrawn.replies, withdrawn.enough) == ("hung", 2, True)
    eventually(lambda: not kept or kept[0].cancelled)  # it may have come before it was begun


def test_it_raises_as_soon_as_fewer_can_reply_than_are_wanted(
    bus: shmbus.Bus, attach: Attach
) -> None:
    serve(attach("a"), "ask")
    bad, hung = attach("bad"), attach("hung")
    bad.handle("ask", lambda message: 1 / 0)
    hung.handle("ask", Kept())
    bad.start()
    hung.start()
    with pytest.raises(errors.TooFewReplies, match="bad: RemoteError") as caught:
        attach("asker").gather("ask", at_least=3, timeout=None)
    why = caught.value
    assert why.wanted == 3
    assert payloads(why.results)["bad"] is errors.RemoteError
    assert set(why.results) == {"a", "bad", "hung"}
    again = pickle.loads(pickle.dumps(why))
    assert str(again.results["bad"]) == str(why.results["bad"])


def test_more_handlers_than_places_in_the_table_are_asked_in_portions(
    bus: shmbus.Bus, attach: Attach
) -> None:
    names = [f"worker{i}" for i in range(9)]
    for name in names:
        serve(attach(name), "ask")
    asker = attach("asker", settings=SMALL)
    assert payloads(asker.gather("ask", timeout=60)) == {name: name for name in names}
    assert asker.bus.requests("asker") == []


@pytest.mark.slow
def test_an_answer_of_the_bus_that_does_not_fit_into_the_reply_ring_comes_in_parts(
    bus: shmbus.Bus, attach: Attach
) -> None:
    names = [f"worker{i:03}" for i in range(130)]  # 8 bytes each, and 1,024 are a record of it
    for name in names:
        attach(name, settings=SMALL).handle("ask", Kept())
    asker = attach("asker", settings=SMALL)
    assert asker.matched("ask", handlers=True) == 130
    found = asker.gather("ask", timeout=0.1)
    assert list(found) == names
    assert set(payloads(found).values()) == {errors.RequestTimeout}


def test_the_asker_itself_answers_if_another_thread_of_it_receives(
    bus: shmbus.Bus, attach: Attach
) -> None:
    asker = attach("asker")
    asker.handle("ask", lambda message: "I")
    assert asker.gather("ask", timeout=60) == {}  # nobody runs its handlers
    asker.start()
    eventually(lambda: info(bus, "asker").receivers == 1)
    assert payloads(asker.gather("ask", timeout=60)) == {"asker": "I"}


def test_within_the_only_thread_of_its_handlers_the_asker_does_not_wait_for_itself(
    bus: shmbus.Bus, attach: Attach
) -> None:
    both = serve(attach("both"), "ask")
    serve(attach("other"), "ask")
    both.handle("relay", lambda message: list(both.gather("ask", timeout=60)))
    assert attach("asker").request("relay", timeout=60).payload == ["other"]


def test_inside_a_handler_it_ends_with_the_request_that_it_serves(
    bus: shmbus.Bus, attach: Attach
) -> None:
    hung, middle = attach("hung"), attach("middle")
    hung.handle("ask", Kept())
    hung.start()
    seen: list[Results] = []
    done = threading.Event()

    @middle.handle("relay")
    def relay(message: Message) -> None:
        seen.append(middle.gather("ask", timeout=60))
        done.set()

    middle.start()
    with contextlib.suppress(errors.RequestTimeout):  # unless its reply comes just in time
        attach("asker").request("relay", timeout=0.5)
    assert done.wait(60)
    late = seen[0]["hung"]
    assert isinstance(late, errors.RequestTimeout)
    assert late.inherited == "relay"


def test_one_whose_ring_is_full_holds_up_neither_the_others_nor_other_messages(
    bus: shmbus.Bus, attach: Attach
) -> None:
    full = attach("full", settings=SMALL)
    full.handle("ask", Kept())
    full.subscribe("noise", lambda message: None, overflow="drop_newest")
    sender, asker, listener = attach("sender"), attach("asker"), attach("listener")
    for _ in range(40):
        sender.publish("noise", bytes(600))
    eventually(lambda: info(bus, "full").lost > 0)
    serve(attach("last"), "ask")
    listener.subscribe("news")
    found = asker.gather("ask", bytes(900), at_least=1, timeout=None)
    assert payloads(found) == {"full": errors.Withdrawn, "last": "last"}
    asker.publish("news")
    assert listener.receive(60) is not None


def test_one_whose_ring_was_full_answers_once_there_is_space(
    bus: shmbus.Bus, attach: Attach
) -> None:
    full = attach("full", settings=SMALL)
    full.handle("ask", lambda message: "at last")
    full.subscribe("noise", lambda message: None, overflow="drop_newest")
    sender, asker = attach("sender"), attach("asker")
    for _ in range(40):
        sender.publish("noise", bytes(600))
    eventually(lambda: info(bus, "full").lost > 0)
    results: list[Results] = []
    asking = threading.Thread(
        target=lambda: results.append(asker.gather("ask", bytes(900), timeout=60))
    )
    asking.start()
    eventually(lambda: info(bus, "asker").sent.requests > 1)  # it is asked again
    full.start()
    asking.join(60)
    assert payloads(results[0]) == {"full": "at last"}


def test_what_does_not_fit_into_the_ring_of_one_reaches_it_all_the_same(
    bus: shmbus.Bus, attach: Attach
) -> None:
    serve(attach("large"), "ask")
    serve(attach("small", settings=SMALL), "ask")
    found = attach("asker").gather("ask", bytes(5000), timeout=60)
    assert payloads(found) == {"large": "large", "small": "small"}


def test_one_that_closes_before_it_has_begun_is_gone_and_nobody_else_gets_its_request(
    bus: shmbus.Bus, attach: Attach
) -> None:
    leaving, staying, kept = attach("leaving"), attach("staying"), Kept()
    leaving.handle("ask", kept)
    staying.handle("ask", kept)
    staying.start()
    results: list[Results] = []
    asker = attach("asker")
    asking = threading.Thread(target=lambda: results.append(asker.gather("ask", timeout=60)))
    asking.start()
    eventually(lambda: len(kept) == 1 and info(bus, "leaving").untouched == 1)
    leaving.close()
    kept[0].reply("here")
    asking.join(60)
    assert payloads(results[0]) == {"leaving": errors.EndpointDied, "staying": "here"}
    gone = results[0]["leaving"]
    assert isinstance(gone, errors.EndpointDied)
    assert (gone.endpoint, gone.begun) == ("leaving", False)
    assert len(kept) == 1


def test_closing_the_asker_ends_it(bus: shmbus.Bus, attach: Attach) -> None:
    hung, kept = attach("hung"), Kept()
    hung.handle("ask", kept)
    hung.start()
    asker = attach("asker")
    raised: list[errors.BusError] = []

    def ask() -> None:
        try:
            asker.gather("ask", timeout=None)
        except errors.BusError as why:
            raised.append(why)

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: kept)
    asker.close()
    asking.join(60)
    assert isinstance(raised[0], errors.EndpointClosed)


def test_replies_are_decoded_to_the_type_that_is_asked_for(bus: shmbus.Bus, attach: Attach) -> None:
    worker = attach("worker")
    worker.handle("ask", lambda message: [1, 2])
    worker.start()
    (reply,) = attach("asker").gather("ask", reply_type=tuple[int, int], timeout=60).values()
    assert not isinstance(reply, errors.BusError)
    assert reply.payload == (1, 2)


def test_nonsense_is_refused_before_anybody_is_asked(bus: shmbus.Bus, attach: Attach) -> None:
    asker, kept = attach("asker"), Kept()
    worker = attach("worker")
    worker.handle("ask", kept)
    worker.start()
    with pytest.raises(errors.InvalidSetting):
        asker.gather("ask", at_least=0)
    with pytest.raises(errors.InvalidType):
        asker.gather("ask.>")
    with pytest.raises(errors.EncodeError):
        asker.gather("ask", object())
    assert not kept


def test_queries_are_no_messages_that_anybody_counts_or_taps(
    bus: shmbus.Bus, attach: Attach
) -> None:
    serve(attach("worker"), "ask")
    asker, tap = attach("asker"), attach("tap")
    tap.tap()
    asker.gather("ask", timeout=60)
    asker.matched("nothing")
    counts = info(bus, "asker")
    assert (counts.sent.total, counts.received.total, counts.forwarded) == (1, 1, 1)
    asker.publish("last")
    seen = [message.tap for message in (tap.receive(60) for _ in range(3)) if message]
    assert [(copy.kind, copy.target) for copy in seen if copy] == [
        ("request", "worker"),
        ("reply", "asker"),
        ("event", None),
    ]
