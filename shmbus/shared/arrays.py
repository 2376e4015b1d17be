"""Arrays among the values of payloads: what travels as one, and what a receiver gets that names a
type of numpy."""

from __future__ import annotations

import ctypes
import typing
from typing import Any

import numpy as np

from .dtypes import NotCarried

_NUMBERS = "biufc"  # kinds of dtypes

_CONCRETE: dict[Any, Any] = {
    np.integer: np.int64,
    np.signedinteger: np.int64,
    np.unsignedinteger: np.uint64,
    np.inexact: np.float64,
    np.floating: np.float64,
    np.complexfloating: np.complex128,
}
"""What numbers become where a type is named that stands for several."""


def carried(value: Any) -> Any:
    """What travels in place of a value that MessagePack has no word for: an array or a scalar of
    numpy, or a plain value. NotImplemented: nothing does. Raises `NotCarried`."""
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise NotCarried(
                "a masked array would lose its mask: send array.filled(), or [array.data, "
                "array.mask]"
            )
        return value.view(np.ndarray)
    if isinstance(value, np.generic):
        return _plain(value)
    if isinstance(value, ctypes.Structure | ctypes.Union | ctypes.Array):  # of views numpy warns
        buffer: Any = value
        return np.ndarray((), np.dtype(type(value)), buffer)
    try:
        view = memoryview(value)
    except TypeError:
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else NotImplemented
    return np.asarray(view)


def _plain(scalar: np.generic) -> Any:
    """Numbers and texts of Python instead of numpy's; what Python has not stays as it is."""
    kind = scalar.dtype.kind
    if kind in "biuSU" or (kind == "f" and scalar.dtype.itemsize <= 8):
        return scalar.item()
    return scalar


def is_of_numpy(wanted: Any) -> bool:
    """Whether a type that a receiver names is an array's or a scalar's."""
    kind = typing.get_origin(wanted) or wanted
    return isinstance(kind, type) and issubclass(kind, np.ndarray | np.generic)


def title(wanted: Any) -> str:
    """A type of numpy for people: ``array of float32``."""
    kind = typing.get_origin(wanted) or wanted
    if issubclass(kind, np.generic):
        return str(kind.__name__)
    named = _dtype_of(wanted)
    return f"array of {named.__name__}" if named is not None else "array"


def fitted(wanted: Any, value: Any) -> Any:
    """What came, as the type of numpy that is wanted. Where it does not fit, it is returned as it
    came or ValueError is raised."""
    kind = typing.get_origin(wanted) or wanted
    if issubclass(kind, np.generic):
        return _scalar(kind, value)
    if isinstance(value, list):
        value = _of_numbers(value, wanted)
    if isinstance(value, np.ndarray):
        _check(value, wanted)
    return value


def _dtype_of(wanted: Any) -> Any:
    """The scalar type that `NDArray[...]` names; None: any."""
    found = typing.get_args((typing.get_args(wanted) or (None, None))[-1])
    named = (typing.get_origin(found[0]) or found[0]) if found else None
    return named if isinstance(named, type) and issubclass(named, np.generic) else None


def _check(array: np.ndarray[Any, np.dtype[Any]], wanted: Any) -> None:
    named = _dtype_of(wanted)
    if named is not None and not issubclass(array.dtype.type, named):
        raise ValueError(f"expected an array of {named.__name__}, got one of dtype {array.dtype}")
    shape = typing.get_args((typing.get_args(wanted) or (None,))[0])
    if shape and Ellipsis not in shape and len(shape) != array.ndim:
        raise ValueError(f"expected an array of {len(shape)} dimensions, got shape {array.shape}")


def _of_numbers(values: list[Any], wanted: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of numbers in lists, as JSON and others than Python send them."""
    array = np.asarray(values)
    if array.size and array.dtype.kind not in _NUMBERS:
        raise ValueError(f"expected an array, got a list that makes one of dtype {array.dtype}")
    named = _dtype_of(wanted)
    if named is None or np.issubdtype(array.dtype, named):
        return array
    made = array.astype(_CONCRETE.get(named, named))
    if not np.array_equal(made, array) and made.dtype.kind not in "fc":
        raise ValueError(f"expected an array of {named.__name__}, got other numbers")
    return made


def _scalar(wanted: Any, value: Any) -> Any:
    """A number or text as numpy's type for it. Numbers that it does not hold are refused."""
    if isinstance(value, np.generic) or not isinstance(value, bool | int | float | str | bytes):
        return value
    found = np.asarray(value)[()]
    if isinstance(found, wanted) or isinstance(value, bool):
        return found
    wanted = _CONCRETE.get(wanted, wanted)
    if isinstance(value, int) and issubclass(wanted, np.integer):
        limits = np.iinfo(wanted)
        if not limits.min <= value <= limits.max:
            raise ValueError(f"{value} is not a number of {wanted.__name__}")
        return wanted(value)
    try:
        with np.errstate(over="ignore"):
            made = np.asarray(value).astype(wanted, casting="same_kind")[()]
    except TypeError:
        return value
    if (isinstance(value, int) and made != value) or (
        isinstance(value, float) and np.isfinite(value) and not np.isfinite(made)
    ):
        raise ValueError(f"{value} is not a number of {wanted.__name__}")
    return made
