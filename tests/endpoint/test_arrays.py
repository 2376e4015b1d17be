"""Arrays of numpy as payloads."""

from __future__ import annotations

import array
import copy
import ctypes
import mmap
import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

import shmbus
from shmbus.errors import DecodeError, EncodeError
from shmbus.testing import Attach


class Scene(msgspec.Struct):
    image: NDArray[np.uint8]
    name: str
    masks: list[np.ndarray[Any, np.dtype[Any]]] = []


@pytest.fixture
def ends(bus: shmbus.Bus, attach: Attach) -> tuple[shmbus.Endpoint, shmbus.Endpoint]:
    sender, receiver = attach("sender"), attach("receiver")
    receiver.subscribe("plain")
    return sender, receiver


Ends = tuple[shmbus.Endpoint, shmbus.Endpoint]


def sent(ends: Ends, payload: Any, type: str = "plain") -> Any:
    """What arrives."""
    sender, receiver = ends
    sender.publish(type, payload)
    message = receiver.receive(60)
    assert message is not None
    return message.payload


@pytest.mark.smoke
def test_an_array_comes_as_it_was_sent_aligned_and_read_only(ends: Ends) -> None:
    numbers = np.arange(24, dtype=">f4").reshape(2, 3, 4)
    found = sent(ends, numbers)
    assert found.dtype == numbers.dtype
    assert np.array_equal(found, numbers)
    assert found.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        found.flags.writeable = True


LARGE = np.arange(3 << 16).reshape(3, 256, 256)  # 1.5 MiB: by the pool


@pytest.mark.parametrize(
    "payload",
    [np.zeros((0, 3), ">f4"), np.zeros(3, [("name", "S0")])["name"]],
    ids=["no elements", "elements of no bytes"],
)
def test_an_array_without_bytes_comes_as_it_was_sent(ends: Ends, payload: Any) -> None:
    found = sent(ends, payload)
    assert (found.dtype, found.shape) == (payload.dtype, payload.shape)
    assert found.tolist() == payload.tolist()
    with pytest.raises(ValueError, match="WRITEABLE"):
        found.flags.writeable = True


@pytest.mark.parametrize(
    "payload",
    [
        LARGE,
        np.asfortranarray(LARGE),
        LARGE[::2, ::-1],
        LARGE.astype([("at", "u1"), ("value", ">f8")]),
        LARGE.ravel().view("M8[ms]"),
        LARGE.ravel().view((np.void, LARGE.nbytes)).reshape(()),
    ],
    ids=["C", "Fortran", "strided", "structured", "times", "0-d"],
)
def test_a_large_array_comes_as_it_was_sent(ends: Ends, payload: Any) -> None:
    found = sent(ends, payload)
    assert (found.dtype, found.shape) == (payload.dtype, payload.shape)
    assert found.flags.f_contiguous or not payload.flags.f_contiguous
    assert found.tobytes() == payload.tobytes()
    assert found.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        found.flags.writeable = True


def test_arrays_come_as_each_was_sent_however_much_the_one_before_was_like_it(ends: Ends) -> None:
    numbers = np.arange(6.0).reshape(2, 3)
    fields = np.zeros(6, [("a", "f8")])
    for payload in (
        numbers,
        numbers.copy(order="F"),
        numbers + 1,
        numbers.T.copy(),
        numbers.astype("f4"),
        numbers[:, ::2],
        np.zeros(0),
        np.array(1.5),
        fields,
    ):
        for found in (sent(ends, payload), sent(ends, payload)):
            assert (found.dtype, found.shape) == (payload.dtype, payload.shape)
            assert found.tobytes() == payload.tobytes()
            assert found.flags.f_contiguous >= payload.flags.f_contiguous
    fields.dtype.names = ("b",)
    assert sent(ends, fields).dtype.names == ("b",)


def test_ext_codes_of_ones_own_go_along_with_arrays(ends: Ends) -> None:
    for code in (0, 78, 79, 127):
        own = msgspec.msgpack.Ext(code, b"mine")
        found = sent(ends, {"own": own, "array": np.arange(3)})
        assert found["own"] == own
        assert found["array"].tolist() == [0, 1, 2]


def test_arrays_lie_within_structs_lists_and_dicts(ends: Ends) -> None:
    ends[1].subscribe("scene", payload_type=Scene)
    scene = Scene(np.eye(3, dtype=np.uint8), "eye", [np.zeros(2), np.ones((2, 1), order="F")])
    found = sent(ends, scene, "scene")
    assert isinstance(found, Scene)
    assert np.array_equal(found.image, scene.image)
    assert [mask.tolist() for mask in found.masks] == [[0, 0], [[1], [1]]]
    found = sent(ends, {"images": [scene.image], "n": np.int64(3)})
    assert found["n"] == 3
    assert np.array_equal(found["images"][0], scene.image)


def test_objects_in_an_array_are_refused_with_the_remedy(ends: Ends) -> None:
    with pytest.raises(EncodeError, match=r"tolist\(\)"):
        ends[0].publish("plain", np.array([None, {}]))


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy is older than 2.0")
def test_texts_that_lie_elsewhere_are_refused_with_the_remedy(ends: Ends) -> None:
    with pytest.raises(EncodeError, match=r"texts elsewhere: .*astype\('U'\)"):
        ends[0].publish("plain", np.array(["a"], np.dtypes.StringDType()))


def test_an_array_of_another_dtype_than_the_receiver_names_is_refused(ends: Ends) -> None:
    ends[1].subscribe("floats", payload_type=NDArray[np.float32])
    assert sent(ends, np.zeros(2, np.float32), "floats").tolist() == [0, 0]
    ends[0].publish("floats", np.zeros(2))
    message = ends[1].receive(60)
    assert message is not None
    with pytest.raises(DecodeError, match="float32"):
        message.payload  # noqa: B018


def test_a_view_is_read_only_when_message_and_endpoint_are_gone(
    bus: shmbus.Bus, attach: Attach
) -> None:
    with bus.attach("reader") as reader:
        reader.subscribe("x")
        attach("sender").publish("x", [np.arange(1000), 1])
        message = reader.receive(60)
        assert message is not None
        part = message.payload[0][::10]
    del message
    assert part.tolist() == list(range(0, 1000, 10))
    assert not part.flags.writeable


def test_copies_and_pickles_of_what_came_are_ordinary_arrays(ends: Ends) -> None:
    found = sent(ends, np.arange(3))
    for made in (found.copy(), copy.copy(found), copy.deepcopy(found)):
        made[0] = 7
    for protocol in range(2, 6):
        again = pickle.loads(pickle.dumps(found, protocol))
        assert again.tolist() == [0, 1, 2]
        assert again.flags.writeable == (protocol < 5)  # numpy's own: from 5 on that is kept, too
    assert found.tolist() == [0, 1, 2]


class Tensor:
    """What torch, jax and others have of an array: DLPack alone."""

    def __init__(self, array: np.ndarray[Any, np.dtype[Any]]) -> None:
        self.array = array

    def __dlpack__(self, **wanted: Any) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@pytest.mark.parametrize(
    "payload",
    [
        array.array("h", [1, 2, 3]),
        (ctypes.c_int16 * 3)(1, 2, 3),
        Tensor(np.array([1, 2, 3], np.int16)),
        np.array([1, 2, 3], np.int16).view(np.recarray),
    ],
    ids=["array", "ctypes", "dlpack", "subclass"],
)
def test_what_gives_its_elements_away_comes_as_an_array(ends: Ends, payload: Any) -> None:
    for found in (sent(ends, payload), sent(ends, {"in": payload})["in"]):
        assert type(found) is np.ndarray
        assert found.dtype == np.int16
        assert found.ravel().tolist() == [1, 2, 3]


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint8), ("y", ctypes.c_double))


def test_structures_of_ctypes_come_as_arrays_of_these_fields(ends: Ends) -> None:
    found = sent(ends, (Point * 2)(Point(1, 0.5), Point(2, 1.5)))
    assert found.dtype == np.dtype(Point)
    assert found.tolist() == [(1, 0.5), (2, 1.5)]
    assert sent(ends, [Point(3, 2.5)])[0].tolist() == (3, 2.5)


def test_a_mapped_file_comes_as_its_bytes_and_can_be_closed(ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "bytes"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        found = sent(ends, mapped)
    assert found.tobytes() == path.read_bytes()


def test_bytes_stay_bytes_and_come_as_a_view_where_that_is_named(ends: Ends) -> None:
    ends[1].subscribe("view", payload_type=memoryview)
    for payload in (b"raw", bytearray(b"raw"), memoryview(b"raw")):
        assert sent(ends, payload) == b"raw"
        view = sent(ends, payload, "view")
        assert (view, view.readonly, type(view)) == (b"raw", True, memoryview)


@pytest.mark.parametrize(
    "wanted",
    [float, np.float64, np.floating, np.generic, np.float16],
    ids=lambda kind: kind.__name__,
)
def test_a_number_of_numpy_comes_as_a_number_of_the_type_that_is_named(
    ends: Ends, wanted: Any
) -> None:
    ends[1].subscribe("number", payload_type=wanted)
    assert type(sent(ends, np.float32(0.5))) is float
    found = sent(ends, np.float32(0.5), "number")
    assert found == 0.5
    assert isinstance(found, wanted)


@pytest.mark.parametrize(
    ("wanted", "payload"),
    [
        (np.uint8, 255),
        (np.int8, -1),
        (np.float32, 3),
        (np.float32, float("inf")),
        (np.bool_, True),
        (np.str_, "a"),
        (np.unsignedinteger, 5),
        (np.floating, 5),
    ],
)
def test_plain_numbers_and_text_come_as_the_type_of_numpy_that_is_named(
    ends: Ends, wanted: Any, payload: Any
) -> None:
    ends[1].subscribe("number", payload_type=wanted)
    found = sent(ends, payload, "number")
    assert isinstance(found, wanted)
    assert found == payload


@pytest.mark.parametrize(
    ("wanted", "payload"),
    [
        (np.int8, 300),
        (np.uint8, -1),
        (np.int8, 0.5),
        (np.int8, "1"),
        (np.int8, True),
        (np.int8, [1]),
        (np.float32, 1e300),
        (np.unsignedinteger, -5),
    ],
)
def test_what_is_no_number_of_the_type_that_is_named_is_refused(
    ends: Ends, wanted: Any, payload: Any
) -> None:
    ends[1].subscribe("number", payload_type=wanted)
    with pytest.raises(DecodeError):
        sent(ends, payload, "number")


def test_lists_of_numbers_come_as_an_array_where_one_is_named(ends: Ends) -> None:
    ends[1].subscribe("any", payload_type=np.ndarray)
    ends[1].subscribe("floats", payload_type=NDArray[np.float32])
    ends[1].subscribe("bytes", payload_type=NDArray[np.uint8])
    ends[1].subscribe("real", payload_type=NDArray[np.floating[Any]])
    ends[1].subscribe("whole", payload_type=NDArray[np.integer[Any]])
    assert sent(ends, [1, 2], "real").dtype == np.float64
    assert sent(ends, [1.0, 2.0], "whole").dtype == np.int64
    assert sent(ends, [[1, 2], [3, 4]], "any").tolist() == [[1, 2], [3, 4]]
    assert sent(ends, [1, 2], "floats").dtype == np.float32
    for refused, type in (
        ([1, 256], "bytes"),
        ([0.5], "bytes"),
        (["a"], "any"),
        ([[1], []], "any"),
    ):
        with pytest.raises(DecodeError):
            sent(ends, refused, type)


def test_the_dimensions_that_are_named_are_checked(ends: Ends) -> None:
    image = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    ends[1].subscribe("image", payload_type=image)
    assert sent(ends, np.eye(2, dtype=np.uint8), "image").shape == (2, 2)
    with pytest.raises(DecodeError, match="2 dimensions"):
        sent(ends, np.zeros(4, np.uint8), "image")


def test_a_mask_is_not_lost_in_silence(ends: Ends) -> None:
    with pytest.raises(EncodeError, match=r"filled\(\)"):
        ends[0].publish("plain", np.ma.array([1, 2], mask=[False, True]))


def test_hooks_of_ones_own_come_before_ours(bus: shmbus.Bus, attach: Attach) -> None:
    def encode(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == np.uint8:
            return ["mine", value.tolist()]
        if isinstance(value, np.ndarray) and value.dtype == np.float64:
            return value.astype(np.float16)
        raise NotImplementedError(f"{type(value)} is none of mine")

    def decode(wanted: Any, came: Any) -> Any:
        if isinstance(came, list) and came[0] == "mine":
            return np.array(came[1]) * 10
        raise NotImplementedError(f"{wanted} is none of mine")

    endpoint = attach("e", encode=encode, decode=decode)
    endpoint.subscribe("a", payload_type=np.ndarray)
    found = []
    for payload in (np.array([1, 2], np.uint8), np.array([3, 4], np.int16), [5, 6]):
        endpoint.publish("a", payload)
        message = endpoint.receive(60)
        assert message is not None
        found.append(message.payload.tolist())
    assert found == [[10, 20], [3, 4], [5, 6]]
    endpoint.publish("a", np.zeros(2))
    message = endpoint.receive(60)
    assert message is not None
    assert message.payload.dtype == np.float16
    with pytest.raises(EncodeError, match="none of mine"):
        endpoint.publish("a", object())


def test_a_hook_is_asked_once_for_each_value_and_may_send_too(
    bus: shmbus.Bus, attach: Attach
) -> None:
    class Own(int):
        """What MessagePack has no word for."""

    asked = []

    def encode(value: Any) -> Any:
        if isinstance(value, Own):
            asked.append(int(value))
            endpoint.publish("from.hook", [np.arange(2), Own(1)] if value == 2 else np.arange(3))
            return np.float64(value)
        raise NotImplementedError

    endpoint = attach("e", encode=encode)
    endpoint.subscribe(">")
    endpoint.publish("a", [Own(1), np.zeros(2), Own(2), np.ones(3), Own(3)])
    found: dict[str, list[Any]] = {}
    for _ in range(5):
        message = endpoint.receive(60)
        assert message is not None
        found.setdefault(message.type, []).append(message.payload)
    assert asked == [1, 2, 1, 3]
    first, zeros, second, ones, third = found["a"][0]
    assert [first, second, third] == [1.0, 2.0, 3.0]
    assert {type(number) for number in (first, second, third)} == {float}
    assert (zeros.tolist(), ones.tolist()) == ([0, 0], [1, 1, 1])
    nested = [each for each in found["from.hook"] if isinstance(each, list)]
    assert [each[0].tolist() for each in nested] == [[0, 1]]
    with pytest.raises(EncodeError):
        endpoint.publish("a", [np.zeros(2), object()])
    endpoint.publish("a", 5)
    message = endpoint.receive(60)
    assert message is not None
    assert message.payload == 5


@pytest.mark.parametrize("wanted", [list[float], float, memoryview, bytes])
def test_who_does_not_want_an_array_is_told_what_came_and_what_to_name(
    bus: shmbus.Bus, attach: Attach, wanted: Any
) -> None:
    endpoint = attach("one")
    endpoint.subscribe("a", payload_type=wanted)
    endpoint.publish("a", np.zeros(3))
    message = endpoint.receive(60)
    assert message is not None
    with pytest.raises(DecodeError, match=r"an array of float64, shape \(3,\).*NDArray"):
        message.payload  # noqa: B018


def test_an_array_goes_through_requests_replies_parts_and_retained_values(
    bus: shmbus.Bus, attach: Attach
) -> None:
    server, asker = attach("server"), attach("asker")

    @server.handle("double", payload_type=NDArray[np.int64])
    def double(message: Any) -> Any:
        return message.payload * 2

    @server.handle("rows")
    def rows(message: Any) -> Any:
        yield from message.payload

    server.start()
    asked = np.arange(6).reshape(2, 3)
    assert asker.request("double", asked).payload.tolist() == (asked * 2).tolist()
    assert [part.payload.tolist() for part in asker.stream("rows", asked)] == asked.tolist()
    asker.publish("kept", asked, retain=True)
    late = attach("late")
    late.subscribe("kept", history=1)
    message = late.receive(60)
    assert message is not None
    assert message.payload.tolist() == asked.tolist()
