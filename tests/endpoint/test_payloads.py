"""Payloads: what goes in comes out, as the wanted type, or as a clear error."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import logging
import re
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmbus.endpoint import payloads
from shmbus.endpoint.payloads import MSGPACK, NONE, PLAIN, RAW, annotated_type
from shmbus.errors import DecodeError, EncodeError, InvalidPattern, InvalidPayloadType

if TYPE_CHECKING:
    from collections.abc import Callable

    from somewhere_else import Absent  # type: ignore[import-not-found]

T = TypeVar("T")

encode, decode = PLAIN.encode, PLAIN.decode


class Message(Generic[T]):
    """Stands for the bus's own."""


class Query(msgspec.Struct):
    text: str
    limit: int = 10


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain)
def test_plain_values_come_back_as_they_were(value: object) -> None:
    assert decode(*encode(value)) == value


@pytest.mark.smoke
@given(st.binary())
def test_bytes_travel_as_they_are(data: bytes) -> None:
    for payload in (data, bytearray(data), memoryview(data)):
        kind, sent = encode(payload)
        assert kind == RAW
        assert bytes(sent) == data
        received = decode(kind, memoryview(sent))
        assert type(received) is bytes
        assert received == data


def test_a_view_of_any_shape_becomes_its_bytes() -> None:
    view = memoryview(bytes(range(12)))
    assert bytes(encode(view[::2])[1]) == bytes(range(0, 12, 2))
    numbers = memoryview(bytes(range(12))).cast("I")
    sent = encode(numbers)[1]
    assert len(sent) == 12
    assert bytes(sent) == bytes(range(12))


def test_nothing_travels_as_nothing() -> None:
    assert encode(None) == (NONE, b"")
    assert decode(NONE, b"") is None
    assert decode(NONE, b"", Query | None) is None


@pytest.mark.smoke
def test_a_struct_arrives_as_the_type_asked_for() -> None:
    kind, data = encode(Query("foo"))
    assert kind == MSGPACK
    assert decode(kind, data, Query) == Query("foo", 10)
    assert decode(kind, data) == {"text": "foo", "limit": 10}
    assert decode(kind, memoryview(bytes(data)), dict[str, Any]) == {"text": "foo", "limit": 10}


@dataclasses.dataclass
class Point:
    x: int
    at: datetime.datetime
    who: uuid.UUID


def test_dataclasses_dates_and_uuids_work() -> None:
    point = Point(3, datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC), uuid.UUID(int=9))
    assert decode(*encode(point), Point) == point


@pytest.mark.parametrize("payload_type", [bytes, Any, object, bytes | None])
def test_raw_bytes_satisfy_whoever_asks_for_bytes(payload_type: Any) -> None:
    assert decode(RAW, b"abc", payload_type) == b"abc"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "TypeError"),
        (1 << 70, "OverflowError"),
        ("\ud800", "UnicodeEncodeError"),
        ({"a": [lambda: 0]}, "function"),
    ],
)
def test_what_cannot_be_encoded_is_told_by_type_and_reason(value: object, reason: str) -> None:
    with pytest.raises(EncodeError, match=r"'a\.b'") as caught:
        encode(value, type="a.b")
    assert caught.value.type == "a.b"
    assert re.search(reason, caught.value.reason)


def test_what_goes_round_in_circles_cannot_be_encoded() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(EncodeError, match="RecursionError"):
        encode(value, type="a.b")


@pytest.mark.parametrize(
    ("kind", "data", "payload_type", "reason"),
    [
        (MSGPACK, b"\x80", Query, "missing required field `text`"),
        (MSGPACK, b"\x93", None, "truncated"),
        (MSGPACK, b"\xdd\xff\xff\xff\xff", None, "truncated"),
        (MSGPACK, b"\xa2\xff\xff", None, "(?i)utf-8"),
        (MSGPACK, b"\x91" * 100_000, None, "RecursionError"),
        (RAW, b"abc", Query, "got `bytes`"),
        (NONE, b"", Query, "got `null`"),
        (3, b"abc", None, "unknown kind 3"),
    ],
)
def test_what_cannot_be_decoded_is_told_by_type_size_and_reason(
    kind: int, data: bytes, payload_type: Any, reason: str
) -> None:
    with pytest.raises(DecodeError, match=r"'a\.b'") as caught:
        decode(kind, data, payload_type, type="a.b")
    assert (caught.value.type, caught.value.size) == ("a.b", len(data))
    assert re.search(reason, caught.value.reason)


@given(st.integers(0, 3), st.binary(), st.sampled_from([None, Query, int, bytes, list[Query]]))
def test_garbage_is_a_value_or_a_decode_error(kind: int, data: bytes, payload_type: Any) -> None:
    with contextlib.suppress(DecodeError):
        decode(kind, data, payload_type)


class Picky(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise KeyError("below zero")


def test_a_types_own_check_that_fails_is_a_decode_error() -> None:
    with pytest.raises(DecodeError, match="below zero"):
        decode(*encode({"n": -1}), Picky)


def test_a_type_that_cannot_be_decoded_to_is_refused_before_any_message_comes() -> None:
    def nonsense() -> None: ...

    with pytest.raises(InvalidPayloadType, match="nonsense"):
        PLAIN.decoder(nonsense)
    with pytest.raises(InvalidPayloadType):
        payloads.check_types({"a.b": nonsense})
    with pytest.raises(InvalidPayloadType):
        decode(MSGPACK, b"\x01", nonsense)


def test_a_type_that_cannot_be_hashed_is_decoded_all_the_same() -> None:
    odd = Annotated[int, ["not", "hashable"]]
    assert decode(*encode(3), odd) == 3


def test_the_decoder_of_a_type_is_made_once() -> None:
    assert PLAIN.decoder(Query).__self__ is PLAIN.decoder(Query).__self__  # type: ignore[attr-defined]


def test_registered_types_are_checked() -> None:
    assert payloads.check_types(None) == {}
    assert payloads.check_types({"a.*": Query}) == {"a.*": Query}
    with pytest.raises(InvalidPattern):
        payloads.check_types({"a..b": int})


# Annotations (strings all of them, as this file asks for)


def typed(message: Message[Query]) -> None: ...
def bare(message: Query) -> None: ...
def plainly(message: Message) -> None: ...  # type: ignore[type-arg]
def anything(message: Message[Any]) -> None: ...
def generic(message: Message[T]) -> None: ...
def other(message: int) -> None: ...
def unannotated(message): ...  # type: ignore[no-untyped-def]
def nothing() -> None: ...
def containers(message: Message[list[Query]]) -> None: ...
def careless(message: Message[Query], other: Absent = None) -> Absent: ...


class Service:
    def handle(self, message: Message[Query]) -> None: ...

    def __call__(self, message: Message[Query]) -> None: ...

    @staticmethod
    def static(message: Message[Query]) -> None: ...

    @classmethod
    def of_class(cls, message: Message[Query]) -> None: ...


def wrapped(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def inner(*args: Any) -> None:
        return function(*args)

    return inner


def configured(setting: int, message: Message[Query]) -> None: ...


@pytest.mark.parametrize(
    "function",
    [
        typed,
        bare,
        careless,
        Service().handle,
        Service(),
        Service.static,
        Service.of_class,
        wrapped(typed),
        functools.partial(configured, 3),
    ],
)
def test_the_annotation_of_a_callback_names_its_payload_type(function: Callable[..., Any]) -> None:
    assert annotated_type(function) is Query


def test_any_type_can_be_named() -> None:
    assert annotated_type(containers) == list[Query]


@pytest.mark.parametrize(
    "function", [plainly, anything, generic, other, unannotated, nothing, print, dict, int]
)
def test_without_a_type_in_the_annotation_values_come_plain(function: Callable[..., Any]) -> None:
    assert annotated_type(function) is None


def test_a_struct_of_the_enclosing_function_is_found_where_the_callback_uses_it() -> None:
    class Local(msgspec.Struct):
        n: int

    def callback(message: Message[Local]) -> object:
        return Local

    assert annotated_type(callback) is Local


def test_names_imported_for_type_checkers_can_be_supplied() -> None:
    def callback(message: Absent) -> None: ...

    assert annotated_type(callback, {"Absent": Message[Query]}) is Query


def test_an_annotation_that_cannot_be_resolved_is_logged_and_harmless(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def callback(message: Message[Absent]) -> None: ...

    with caplog.at_level(logging.WARNING, logger="shmbus"):
        assert annotated_type(callback) is None
    assert "Absent" in caplog.text
    assert "payload_type=" in caplog.text
