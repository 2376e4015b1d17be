"""Message types and patterns at an endpoint, however many there are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import shmbus
from shmbus.endpoint._kernel import PatternTable
from shmbus.errors import DecodeError, InvalidType
from shmbus.shared.patterns import check_type, matches, specificity
from shmbus.testing import Attach

texts = st.text("aZ09_-.$*> é\0/:@[`{", max_size=12) | st.text(max_size=4)


def test_an_endpoint_refuses_just_the_types_that_are_none(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("sender")

    @given(texts)
    @example("a" * 255)
    @example("a" * 256)
    @example("\ud800")
    def refused_alike(text: str) -> None:
        why = _refused(check_type, text)
        assert _refused(endpoint.publish, text) == why

    refused_alike()


def _refused(call: Callable[[str], object], text: str) -> str | None:
    try:
        call(text)
    except InvalidType as error:
        return str(error)
    return None


tokens = st.lists(st.sampled_from("abc"), min_size=1, max_size=4)
types = tokens.map(".".join) | tokens.map(lambda some: "$" + ".".join(some))
pattern_tokens = st.lists(st.sampled_from("abc*"), min_size=1, max_size=4)
patterns = (
    st.builds(lambda some, rest: ".".join(some) + rest, pattern_tokens, st.sampled_from(["", ".>"]))
    | st.just(">")
    | types
)


@given(st.lists(patterns, max_size=8), st.sets(st.integers(0, 7)), st.lists(types, max_size=5))
def test_patterns_are_found_by_the_types_that_they_match(
    added: list[str], removed: set[int], asked: list[str]
) -> None:
    table = PatternTable()
    for key, pattern in enumerate(added):
        table.add(pattern, key)
    left = dict(enumerate(added))
    for key in removed & left.keys():
        table.remove(left.pop(key), key)
    for type in asked:
        found = table.find(type)
        assert set(found) == {key for key, pattern in left.items() if matches(pattern, type)}
        order = [specificity(left[key]) for key in found]
        assert order == sorted(order)


class Value(msgspec.Struct):
    n: int


def test_a_payload_gets_the_type_of_the_most_specific_pattern_registered(
    bus: shmbus.Bus, attach: Attach
) -> None:
    registered: dict[str, Any] = {"a.>": dict, "a.*": list[int], "a.b": Value, "$bus.>": bytes}
    endpoint = attach("e", types=registered)
    endpoint.subscribe(">")

    def came(type: str, payload: object) -> Any:
        endpoint.publish(type, payload)
        message = endpoint.receive(5.0)
        assert message is not None
        assert message.type == type
        return message.payload

    assert came("a.b", {"n": 1}) == Value(1)
    assert came("a.c", [1]) == [1]
    assert came("a.c.d", {"n": 1}) == {"n": 1}
    assert came("x", {"n": 1}) == {"n": 1}
    endpoint.publish("a.c", ["no number"])
    message = endpoint.receive(5.0)
    assert message is not None
    with pytest.raises(DecodeError):
        message.payload  # noqa: B018


def test_a_type_that_came_before_goes_to_who_subscribes_now(
    bus: shmbus.Bus, attach: Attach
) -> None:
    endpoint = attach("e")
    came: list[str] = []
    endpoint.subscribe("a.b")

    def pass_through() -> None:
        endpoint.publish("a.b")
        assert endpoint.receive(5.0) is not None

    pass_through()
    star = endpoint.subscribe("a.*", lambda message: came.append("a.*"))
    pass_through()
    endpoint.subscribe("a.b", lambda message: came.append("a.b"))
    pass_through()
    assert came == ["a.*", "a.*", "a.b"]
    star.close()
    pass_through()
    assert came == ["a.*", "a.*", "a.b", "a.b"]


def test_an_endpoint_remembers_a_bounded_number_of_types(bus: shmbus.Bus, attach: Attach) -> None:
    endpoint = attach("e")
    endpoint.subscribe("value.>")

    def pass_through(numbers: range) -> None:
        for start in numbers[::500]:
            for number in range(start, start + 500):
                endpoint.publish(f"value.{number}.changed", number)
            for number in range(start, start + 500):
                message = endpoint.receive(5.0)
                assert message is not None
                assert message.payload == number

    pass_through(range(6000))
    tracemalloc.start()
    try:
        pass_through(range(6000, 11000))
        before, _ = tracemalloc.get_traced_memory()
        pass_through(range(11000, 26000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1 << 20  # 15,000 types more, of which each would take 70 bytes
