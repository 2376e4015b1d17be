"""Types of array elements, in words that MessagePack has: what numpy itself writes for a plain one,
such as ``"<f4"``, and for one with fields their names, types, places and titles.

Elements are bytes that mean the same in every process. So Python objects are none, nor are
types that only their library knows, as bfloat16: numpy has no word for those.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import numpy as np

Description = str | list[Any] | dict[str, Any]


class NotCarried(ValueError):
    """An array of which the bytes alone are not the value."""


def describe(dtype: np.dtype[Any]) -> Description:
    """The type in words. Raises `NotCarried`."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [describe(base), shape]
    if dtype.names is not None and dtype.fields is not None:
        fields = [dtype.fields[name] for name in dtype.names]
        words: dict[str, Any] = {
            "names": dtype.names,
            "formats": [describe(field[0]) for field in fields],
            "offsets": [field[1] for field in fields],
            "itemsize": dtype.itemsize,
        }
        if any(len(field) > 2 for field in fields):
            words["titles"] = [field[2] if len(field) > 2 else None for field in fields]
        return words
    if dtype.kind == "T":
        raise NotCarried(
            f"an array of dtype {dtype} has its texts elsewhere: send array.tolist(), or "
            "array.astype('U')"
        )
    if dtype.hasobject or dtype.kind not in "biufcmMSUV":
        raise NotCarried(
            f"an array of dtype {dtype} has Python objects in it: send array.tolist(), or an array "
            "of numbers or of fixed-width text, such as array.astype('U')"
        )
    if dtype.kind == "V" and not issubclass(dtype.type, np.void):
        raise NotCarried(
            f"dtype {dtype} is not one of numpy's own: send array.view('u{dtype.itemsize}'), or "
            "array.astype(np.float32)"
        )
    return dtype.str


@functools.lru_cache(maxsize=256)
def described(dtype: np.dtype[Any]) -> msgspec.Raw:
    """The words of `describe` as MessagePack."""
    return msgspec.Raw(msgspec.msgpack.encode(describe(dtype)))


@functools.lru_cache(maxsize=256)
def dtype_of(words: bytes) -> np.dtype[Any]:
    """The type that these words, of `described`, name. They come from another process: raises what
    numpy or msgspec does where they name none."""
    dtype = _of_words(msgspec.msgpack.decode(words))
    if dtype.hasobject:
        raise ValueError(f"dtype {dtype} has Python objects in it")
    return dtype


def _of_words(words: Any) -> np.dtype[Any]:
    made: Any = words
    if isinstance(words, list):
        base, shape = words
        made = (_of_words(base), tuple(shape))
    elif isinstance(words, dict):
        made = {**words, "formats": [_of_words(one) for one in words["formats"]]}
    elif not isinstance(words, str):
        raise ValueError(f"{words!r} is no dtype")
    found: np.dtype[Any] = np.dtype(made)
    return found
