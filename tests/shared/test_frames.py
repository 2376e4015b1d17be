"""Frames: whatever array goes in comes out, and what is no frame is refused."""

from __future__ import annotations

import struct
from typing import Any

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shmbus.endpoint.payloads import FRAMED, PLAIN
from shmbus.errors import DecodeError
from shmbus.shared import frames

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(min_len=1),
    hnp.unicode_string_dtypes(min_len=1),
    hnp.array_dtypes(allow_subarrays=True),
    hnp.nested_dtypes(),
)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Of any dtype and shape, and as views lie: strided, reversed, transposed, broadcast."""
    dtype = draw(DTYPES)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    size = int(np.prod(shape)) * dtype.itemsize
    content = draw(st.binary(min_size=size, max_size=size))
    array: Array = np.ndarray(shape, dtype, bytearray(content)) if size else np.empty(shape, dtype)
    match draw(st.sampled_from("CFsrtb")):
        case "F":
            array = np.asfortranarray(array)
        case "s" if array.ndim:
            array = array[..., ::2]
        case "r" if array.ndim:
            array = array[::-1]
        case "t":
            array = array.swapaxes(0, -1) if array.ndim > 1 else array
        case "b":
            array = np.broadcast_to(array, (3, *array.shape))
    return array


def elements(array: Array) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@pytest.mark.slow
@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(st.lists(arrays(), min_size=1, max_size=3))
def test_arrays_of_any_dtype_and_layout_come_as_they_were(sent: list[Array]) -> None:
    payload = sent[0] if len(sent) == 1 else {"all": sent}
    kind, data = PLAIN.encode(payload)
    assert kind == FRAMED
    found = PLAIN.decode(kind, data)
    for before, after in zip(sent, [found] if len(sent) == 1 else found["all"], strict=True):
        assert after.dtype == before.dtype
        assert after.shape == before.shape
        assert elements(after) == elements(before)
        assert not after.flags.writeable
        assert not after.size or after.ctypes.data % 64 == 0


def head_of(data: bytes) -> bytes:
    """All of a frame of one array that is before the array."""
    return data[: frames.LONE_HEAD + struct.unpack_from("<I", data, 4)[0]]


def seen_by(head: bytes, data: bytes) -> Array | None:
    """The array in a frame, as who looks only at its head sees it."""
    found = frames.lone(head)
    if found is None or found.offset + found.length > len(data):
        return None
    array = np.frombuffer(data[found.offset :][: found.length], found.dtype)
    return array.reshape(found.shape, order=found.order)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(arrays(), st.data())
def test_the_head_of_a_frame_says_where_an_array_lies_that_is_alone(
    sent: Array, draw: st.DataObject
) -> None:
    kind, data = PLAIN.encode(sent)
    assert kind == FRAMED
    data = bytes(data)
    head = head_of(data)
    if sent.size:
        found = seen_by(head, data)
        assert found is not None
        assert (found.dtype, found.shape) == (sent.dtype, sent.shape)
        assert elements(found) == elements(sent)
    place = draw.draw(st.integers(0, len(head) - 1))
    other = bytearray(head)
    other[place] = draw.draw(st.integers(0, 255))
    seen_by(bytes(other), data)  # raises nothing, whatever stands there


def test_an_array_alone_is_as_long_as_its_buffer() -> None:
    head = head_of(bytes(PLAIN.encode(np.arange(8))[1]))
    assert frames.lone(head) is not None
    offset, length = struct.unpack_from("<QQ", head, 8)
    assert length == 64
    shorter = head[:8] + struct.pack("<QQ", offset, 56) + head[24:]
    assert frames.lone(shorter) is None


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype([("a", "u1"), ("b", "f8")], align=True),
        np.dtype({"names": ["b", "a"], "formats": ["<i4", "u1"], "offsets": [4, 4]}),
        np.dtype([(("title", "a"), "<f4"), ("b", [("c", ">i2", (2, 3)), ("d", "M8[ns]")])]),
        np.dtype([("", "V3"), ("x", "m8[25s]")]),
        np.dtype(np.longdouble),
        np.dtype("V5"),
    ],
    ids=["aligned", "overlapping", "titles", "nested", "longdouble", "void"],
)
def test_what_a_dtype_says_of_its_elements_is_kept(dtype: np.dtype[Any]) -> None:
    content = bytes(range(200))[: 3 * dtype.itemsize]
    array: Array = np.ndarray((3,), dtype, content)[::-1]
    found = PLAIN.decode(*PLAIN.encode(array))
    assert (found.dtype, found.dtype.fields) == (dtype, dtype.fields)
    # Also what lies between fields: nothing that was in that memory before goes along.
    bare = [found[::-1].view(f"V{dtype.itemsize}")[i].tobytes() for i in range(3)]
    assert b"".join(bare) == content


def test_nothing_that_was_in_the_memory_before_goes_along() -> None:
    payload = [np.zeros(3, np.uint8), np.zeros((4, 4), [("a", "u1"), ("b", "f8")])[::2, ::2]]
    encoder, within = PLAIN.encoder()
    frame = within.frame(encoder.encode(payload))
    memory = bytearray(b"\xff" * frame.size)
    frame.write_into(memory)
    assert bytes(memory) == frame.tobytes()


FRAMES = [
    PLAIN.encode(payload)[1]
    for payload in (
        np.arange(4),
        {"a": np.zeros((2, 3), order="F"), "b": np.zeros(3, [("x", "i4"), ("y", "U2", 2)])},
        [np.datetime64("2026-01-02"), np.zeros(0)],
    )
]


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(st.sampled_from(FRAMES), st.data())
def test_what_is_no_frame_is_refused_and_nothing_is_read_beyond_it(
    frame: bytes, data: st.DataObject
) -> None:
    broken = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(broken) - 1))
        broken[place] = data.draw(st.integers(0, 255))
    del broken[data.draw(st.integers(0, len(broken))) :]
    try:
        PLAIN.decode(FRAMED, bytes(broken))
    except DecodeError:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        struct.pack("<II", 2 << 24, 0),
        struct.pack("<II", 1 << 24, 1),
        struct.pack("<II", 1 << 24 | 0xFFFFFF, 0),
        struct.pack("<IIQQ", 1 << 24 | 1, 1, 0, 64) + b"\xc0" + bytes(200),
        struct.pack("<IIQQ", 1 << 24 | 1, 1, 64, 2**63) + b"\xc0" + bytes(200),
        struct.pack("<IIQQ", 1 << 24 | 1, 1, 64, 200) + b"\xc0" + bytes(200),
        struct.pack("<IIQQ", 1 << 24 | 1, 1, 65, 8) + b"\xc0" + bytes(200),
    ],
    ids=[
        "empty",
        "short",
        "version",
        "body",
        "buffers",
        "buffer-in-head",
        "large",
        "beyond",
        "unaligned",
    ],
)
def test_a_malformed_head_is_refused(data: bytes) -> None:
    with pytest.raises(frames.Malformed):
        frames.decode(data)
    with pytest.raises(DecodeError):
        PLAIN.decode(FRAMED, data)


def forged(*words: Any, content: bytes = bytes(64)) -> bytes:
    """A frame of one array that says this of itself."""
    ext = msgspec.msgpack.Ext(frames.ARRAY, msgspec.msgpack.encode(words))
    head = frames.Head.of(msgspec.msgpack.encode(ext), [len(content)])
    return frames.Frame(head, [np.frombuffer(content, "u1")]).tobytes()


@pytest.mark.parametrize(
    "words",
    [
        (0, [8], False, "|O"),
        (0, [8], False, {"names": ["a"], "formats": ["|O"], "offsets": [0], "itemsize": 8}),
        (0, [1], False, ["|O", [8]]),
        (0, [9], False, "<f8"),
        (0, [2**62, 4], False, "<f8"),
        (0, [-8], False, "<f8"),
        (1, [8], False, "<f8"),
        (0, [1] * 100, False, "<f8"),
        (0, [8], False, "nonsense"),
        (0, [8], False, 7),
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused(words: Any) -> None:
    with pytest.raises(DecodeError):
        PLAIN.decode(FRAMED, forged(*words))
    with pytest.raises(frames.Malformed):
        frames.decode(forged(*words))
    assert PLAIN.decode(FRAMED, forged(0, [8], False, "<f8")).tolist() == [0] * 8
