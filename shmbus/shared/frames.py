"""Frames: payloads with arrays in them. The bytes of the arrays lie behind the MessagePack,
aligned, so that who receives a frame looks at them where they are.

    u32    version (the high 8 bits), and how many buffers (the others)
    u32    bytes of the body
    u64 offset, u64 length    of each buffer; offsets count from the frame's first byte
    body   MessagePack, in which an array is an Ext that names buffer, shape, order and dtype
    ...    the buffers, each at a multiple of 64

A frame comes from another process: it is checked before anything of it is used, and what of it
is read twice is copied first.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ._kernel import aligned
from .dtypes import described, dtype_of

ALIGNMENT = 64
"""Bytes: a line of the cache, and what the vector instructions of today want at most."""
ARRAY, SCALAR = -78, -79
"""Codes of Ext. MessagePack gives those below 0 to no application."""

_VERSION = 1
_COUNT = (1 << 24) - 1
_HEAD = struct.Struct("<II")
_PLACE = struct.Struct("<QQ")
_DIMENSIONS = 32  # that every numpy takes
_EXTS = frozenset(b"\xc7\xc8\xc9\xd4\xd5\xd6\xd7\xd8")  # first bytes of an Ext
SHORT = 512
"""Bytes: of a head that is kept; of most arrays it is less than a hundred."""
LONE = _VERSION << 24 | 1
"""The first word of a frame with one buffer."""
LONE_HEAD = _HEAD.size + _PLACE.size

Order = Literal["C", "F"]
Bytes = bytes | bytearray | memoryview
Array = np.ndarray[Any, np.dtype[Any]]


class Malformed(ValueError):
    """What came is no frame."""


class _Array(msgspec.Struct, array_like=True):
    """What an Ext says of an array."""

    buffer: Annotated[int, msgspec.Meta(ge=0)]
    shape: tuple[Annotated[int, msgspec.Meta(ge=0)], ...]
    fortran: bool
    dtype: msgspec.Raw


class _Scalar(msgspec.Struct, array_like=True):
    """What an Ext says of a scalar that MessagePack has no word for."""

    dtype: msgspec.Raw
    content: bytes


_encode = msgspec.msgpack.Encoder().encode
_array = msgspec.msgpack.Decoder(_Array).decode
_scalar = msgspec.msgpack.Decoder(_Scalar).decode
_plain = msgspec.msgpack.Decoder().decode


# Sending ------------------------------------------------------------------------------------------


class Arrays:
    """What of one payload MessagePack has no word for, while that is encoded."""

    __slots__ = ("_arrays", "exts")

    exts: list[msgspec.msgpack.Ext]
    """What stands for it, always in this list: if there is any, the payload is to be a frame."""

    def __init__(self) -> None:
        self._arrays: list[Array] = []
        self.exts = []

    def ext(self, value: Array | np.generic) -> msgspec.msgpack.Ext:
        """What stands for it in the body. Raises `dtypes.NotCarried`."""
        if isinstance(value, np.generic):
            words = _Scalar(described(value.dtype), value.tobytes())
            found = msgspec.msgpack.Ext(SCALAR, _encode(words))
        else:
            fortran = value.flags.f_contiguous and not value.flags.c_contiguous
            found = _ext(len(self._arrays), value.shape, value.dtype, fortran)
            self._arrays.append(value.T if fortran else value)
        self.exts.append(found)
        return found

    def frame(self, body: Bytes) -> Frame:
        """That of the payload, once it is encoded; this is for the next then."""
        found = self._arrays
        self.clear()
        return Frame(Head.of(body, [array.nbytes for array in found]), found)

    def clear(self) -> None:
        self._arrays = []
        self.exts.clear()


class Frame:
    """A payload with arrays, to be sent: `write_into` puts all `size` bytes of it where they are to
    be, and copies each array once, from wherever its elements are."""

    __slots__ = ("_arrays", "_head", "size")

    size: int

    def __init__(self, head: Head, arrays: Sequence[Array]) -> None:
        """`arrays`: written in C order."""
        self._head, self._arrays, self.size = head, arrays, head.size

    def write_into(self, buffer: Any) -> None:
        """`buffer`: anything writable of at least `size` bytes."""
        memory = np.frombuffer(buffer, np.uint8)
        end = len(self._head.content)
        memory[:end] = np.frombuffer(self._head.content, np.uint8)
        for array, offset in zip(self._arrays, self._head.offsets, strict=True):
            if offset > end:
                memory[end:offset] = 0  # nothing that was there before goes along
            end = offset + array.nbytes
            if array.nbytes:
                _copy(array, memory[offset:end])

    def tobytes(self) -> bytes:
        """All of it."""
        whole = bytearray(self.size)
        self.write_into(whole)
        return bytes(whole)


class Blank:
    """A frame of one array that its user fills in place: `head` and then the elements."""

    __slots__ = ("_dtype", "_order", "_shape", "head", "size")

    head: bytes
    size: int

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], order: Order = "C") -> None:
        """Raises `dtypes.NotCarried`."""
        self._shape, self._dtype, self._order = shape, dtype, order
        head = head_of(shape, dtype, order == "F")
        self.head, self.size = head.content, head.size

    def array(self, buffer: Any) -> Array:
        """The elements, where the frame is in `buffer`, of `size` bytes."""
        return np.ndarray(self._shape, self._dtype, buffer, len(self.head), None, self._order)


class Head(NamedTuple):
    """All of a frame up to its first buffer."""

    content: bytes
    offsets: Sequence[int]
    """Of the buffers."""
    size: int
    """Of the frame."""

    @classmethod
    def of(cls, body: Bytes, lengths: Sequence[int]) -> Head:
        """`lengths`: of the buffers."""
        if len(lengths) > _COUNT:
            raise ValueError(f"{len(lengths)} arrays are more than a message may have, {_COUNT}")
        end = begin = _HEAD.size + _PLACE.size * len(lengths) + len(body)
        table, offsets = [_HEAD.pack(_VERSION << 24 | len(lengths), len(body))], []
        for length in lengths:
            offset = (end + ALIGNMENT - 1) & -ALIGNMENT
            table.append(_PLACE.pack(offset, length))
            offsets.append(offset)
            end = offset + length
        padding = bytes(offsets[0] - begin) if offsets else b""
        return cls(b"".join((*table, body, padding)), offsets, end)


@functools.lru_cache(maxsize=256)
def head_of(shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool) -> Head:
    """Of an array that is the payload. Raises `dtypes.NotCarried`."""
    body = _encode(_ext(0, shape, dtype, fortran))
    return Head.of(body, [math.prod(shape) * dtype.itemsize])


def _ext(
    buffer: int, shape: tuple[int, ...], dtype: np.dtype[Any], fortran: bool
) -> msgspec.msgpack.Ext:
    words = _Array(buffer, shape, fortran, described(dtype))
    return msgspec.msgpack.Ext(ARRAY, _encode(words))


def _copy(array: Array, memory: NDArray[np.uint8]) -> None:
    """Its elements as bytes, those between fields included, in C order."""
    if array.flags.c_contiguous:
        memory[:] = array.reshape(-1).view(np.uint8)
        return
    item = np.dtype((np.void, array.dtype.itemsize))
    np.copyto(memory.view(item).reshape(array.shape), array.view(np.ndarray).view(item))


# Receiving ----------------------------------------------------------------------------------------

_reading: ContextVar[Received] = ContextVar("_reading")


class Laid(NamedTuple):
    """An array in a frame: what it is, and where."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Order
    offset: int
    length: int


class _Told(NamedTuple):
    """What a frame says of itself, in all that comes before its first array."""

    places: list[tuple[int, int]]
    body: bytes
    lone: Laid | None
    """The array that is the payload, if one is and is not empty."""


@functools.lru_cache(maxsize=256)
def _told(head: bytes) -> _Told:
    """Mostly the frame before said the same. Raises `Malformed`."""
    word, length = _HEAD.unpack_from(head)
    begin = _HEAD.size + _PLACE.size * (word & _COUNT)
    if begin + length != len(head):
        raise Malformed("its frame says that there is more of it")
    places = list(_PLACE.iter_unpack(head[_HEAD.size : begin]))
    if any(offset % ALIGNMENT or offset < len(head) for offset, _ in places):
        raise Malformed("an array is not where its frame says")
    body = head[begin:]
    return _Told(places, body, _lone(body, places) if word == LONE else None)


def _lone(body: bytes, places: list[tuple[int, int]]) -> Laid | None:
    if body[:1] and body[0] not in _EXTS:
        return None
    try:
        ext = _plain(body)
        laid = _laid(_array(ext.data), places)
    except Exception:  # then it raises where it is decoded
        return None
    ordinary = not laid.dtype.subdtype and len(laid.shape) <= _DIMENSIONS
    return laid if ext.code == ARRAY and laid.length and ordinary else None


def _laid(words: _Array, places: list[tuple[int, int]]) -> Laid:
    """The array of which an Ext says this. Raises `Malformed`, and what `dtype_of` does."""
    dtype = dtype_of(bytes(words.dtype))
    if words.buffer >= len(places):
        raise Malformed("an array is in none of its buffers")
    offset, length = places[words.buffer]
    if length != math.prod(words.shape) * dtype.itemsize:
        raise Malformed(f"{length} bytes are no array of shape {words.shape} and {dtype}")
    return Laid(dtype, words.shape, "F" if words.fortran else "C", offset, length)


def lone(head: bytes) -> Laid | None:
    """The array that is the payload, by all of its frame that comes before it. None: it may be
    something else, and `Received` finds out."""
    try:
        return _told(head).lone
    except Malformed:
        return None


class Received:
    """A frame that came. Its arrays are read-only, and look at the bytes where they are if those
    are aligned, as they are in a pool; else at a copy of them, all at one."""

    __slots__ = ("_data", "_memory", "_skipped", "_told")

    def __init__(self, data: Any) -> None:
        """`data`: bytes, or whatever has the buffer protocol; its arrays keep it. Raises
        `Malformed`."""
        with memoryview(data) as view:
            size = view.nbytes
            if size < _HEAD.size:
                raise Malformed("it is too short for a frame")
            word, length = _HEAD.unpack_from(view)
            version, count = word >> 24, word & _COUNT
            if version != _VERSION:
                raise Malformed(f"it is a frame of version {version}, which is not known here")
            end = _HEAD.size + _PLACE.size * count + length
            if end > size:
                raise Malformed("its frame says that there is more of it")
            head = bytes(view[:end])
        self._told = _told(head) if end <= SHORT else _told.__wrapped__(head)
        for offset, length in self._told.places:
            if offset + length > size:
                raise Malformed("an array is not where its frame says")
        self._data = data
        self._memory: NDArray[np.uint8] | None = None
        self._skipped = 0

    def decode(self, decoder: Any) -> Any:
        """What `decoder`, made with `unpack` as ext_hook, makes of it."""
        token = _reading.set(self)
        try:
            return decoder(self._told.body)
        finally:
            _reading.reset(token)

    def unpack(self, code: int, data: memoryview) -> Any:
        """What an Ext of the body stands for."""
        if code == ARRAY:
            return self._array(_laid(_array(data), self._told.places))
        scalar = _scalar(data)
        dtype = dtype_of(bytes(scalar.dtype))
        return np.ndarray((), dtype, scalar.content)[()]

    def _array(self, laid: Laid) -> Array:
        if not laid.length:
            return np.ndarray(laid.shape, laid.dtype, b"", order=laid.order)
        if self._memory is None:
            # Without what is before the first buffer; malformed ones need not begin there.
            self._skipped = self._told.places[0][0]
            where = aligned(self._data, self._skipped, ALIGNMENT)
            self._memory = np.frombuffer(where[0], np.uint8, where[2], where[1])
        offset = laid.offset - self._skipped
        return np.ndarray(laid.shape, laid.dtype, self._memory, offset, order=laid.order)


def unpack(code: int, data: memoryview) -> Any:
    """The ext_hook of decoders: arrays within a frame, and what it was elsewhere."""
    frame = _reading.get(None)
    if frame is None or code not in (ARRAY, SCALAR):
        return msgspec.msgpack.Ext(code, bytes(data))
    return frame.unpack(code, data)


_decode = msgspec.msgpack.Decoder(ext_hook=unpack).decode


def decode(data: Any) -> Any:
    """The plain values of a frame, with its arrays. Raises `Malformed`."""
    try:
        return Received(data).decode(_decode)
    except Exception as why:  # numpy, msgspec and what the words of a dtype lack raise many
        raise Malformed(f"it is no frame: {type(why).__name__}: {why}") from why
