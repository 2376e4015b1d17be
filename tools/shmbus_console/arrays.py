"""Arrays of numpy in what commands print."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

_WHOLE = 1024
"""Elements: in JSON, a larger array is told in short."""
_FIRST = 8
"""Elements of one that is told in short."""

_AS_TEXT = "cmM"
"""Kinds of dtypes of which JSON has no numbers."""


def is_array(value: object) -> bool:
    """Whether it is an array."""
    return isinstance(value, np.ndarray)


def listed(value: Any) -> Any:
    """What stands in JSON for what that has not: lists for an array, its dtype, its shape and its
    first elements for a large one, and text for the rest."""
    if isinstance(value, np.generic):
        return _elements(np.asarray(value))
    if not isinstance(value, np.ndarray):
        return repr(value)
    if value.size <= _WHOLE:
        return _elements(value)
    return {"dtype": value.dtype.str, "shape": value.shape, "first": _elements(_first(value))}


def whole(value: Any) -> Any:
    """The same for programs, which get all of a large array: the bytes of its elements, in C
    order."""
    if not isinstance(value, np.ndarray) or value.size <= _WHOLE:
        return listed(value)
    return {
        "dtype": np.lib.format.dtype_to_descr(value.dtype),
        "shape": value.shape,
        "base64": base64.b64encode(value.tobytes()).decode(),
    }


def brief(value: Any) -> str:
    """The same for people: ``float32 (480, 640): 0.5 0.25 ..``."""
    if not isinstance(value, np.ndarray):
        return str(value) if isinstance(value, np.generic) else repr(value)
    words = " ".join(map(str, _elements(_first(value))))
    more = " .." if value.size > _FIRST else ""
    return f"{value.dtype} {value.shape}: {words}{more}"


def _first(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    return array.flat[:_FIRST]


def _elements(array: np.ndarray[Any, np.dtype[Any]]) -> Any:
    """In lists, or one alone."""
    if array.dtype.kind == "S":
        return np.char.decode(array, "ascii", "backslashreplace").tolist()
    return (array.astype("U") if array.dtype.kind in _AS_TEXT else array).tolist()
