"""Values of a pool as payloads: pickle, which is spoken among the processes of one pool alone.

Large buffers, such as those of arrays, go beside the pickle (PEP 574): as arrays of bytes in one
frame, which is written once, into the sender's pool, and read where it lies there.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

BESIDE = 64 << 10
"""Bytes from which on a buffer goes beside the pickle. Smaller ones are copied, and can be written
to at the receiver."""

_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
"""Types of which pickle alone knows all, and which have no large buffers beside them."""

_KEPT = 256
"""Functions whose pickles are kept, and that are kept for their pickles."""

_pickles: dict[Callable[..., Any], bytes] = {}
_functions: dict[bytes, Callable[..., Any]] = {}

_TAUGHT: dict[type, Any] = getattr(ForkingPickler, "_extra_reducers", {})


class _Pickler(pickle.Pickler):
    """Knows what `multiprocessing` has been taught, too: pickle alone refuses some of that, such as
    sockets, and of others, such as connections, copies a descriptor's number."""

    dispatch_table: ClassVar[dict[type, Any]] = {  # type: ignore[misc]  # typeshed: of instances
        **copyreg.dispatch_table,
        **_TAUGHT,
    }
    known = len(copyreg.dispatch_table) + len(_TAUGHT)


def pack(value: object) -> Any:
    """The payload that stands for a value. Raises what pickling it raises."""
    if type(value) in _PLAIN:
        return pickle.dumps(value, 5)
    beside: list[NDArray[np.uint8]] = []

    def within(buffer: pickle.PickleBuffer) -> bool:
        """Whether this one is to be in the pickle."""
        try:
            memory = buffer.raw()
        except BufferError:  # it has gaps
            return True
        if memory.nbytes < BESIDE:
            return True
        beside.append(np.frombuffer(memory, np.uint8))
        return False

    known = len(copyreg.dispatch_table) + len(_TAUGHT)
    if known != _Pickler.known:  # something was imported meanwhile that pickles in its own way
        _Pickler.dispatch_table = {**copyreg.dispatch_table, **_TAUGHT}
        _Pickler.known = known
    file = io.BytesIO()
    _Pickler(file, 5, buffer_callback=within).dump(value)
    pickled = file.getvalue()
    return [pickled, *beside] if beside else pickled


def pack_call(function: Any, args: tuple[Any, ...], *rest: Any) -> Any:
    """Like `pack`, of a tuple that begins with a function and its arguments."""
    try:
        function = _pickles[function]
    except (KeyError, TypeError):  # it is not known, or has no hash
        if _is_named(function):
            _keep(_pickles, function, pickle.dumps(function, 5))
            function = _pickles[function]
    for argument in args:
        if type(argument) not in _PLAIN:
            return pack((function, args, *rest))
    if rest[0]:  # by keyword
        return pack((function, args, *rest))
    return pickle.dumps((function, args, *rest), 5)


def unpack_call(payload: Any) -> Any:
    """What `pack_call` was given."""
    call = unpack(payload)
    pickled = call[0]
    if type(pickled) is not bytes:
        return call
    function = _functions.get(pickled)
    if function is None:
        function = pickle.loads(pickled)
        _keep(_functions, pickled, function)
    return (function, *call[1:])


def _is_named(function: object) -> bool:
    """Whether its pickle is its name, and so always the same."""
    if type(function) is BuiltinFunctionType:
        return isinstance(function.__self__, ModuleType)
    return type(function) is FunctionType


def _keep(known: dict[Any, Any], key: object, value: object) -> None:
    if len(known) >= _KEPT:
        known.clear()
    known[key] = value


def unpack(payload: Any) -> Any:
    """The value that a payload stands for. Of what came beside the pickle it has views, which keep
    the memory and cannot be written to. Raises what unpickling it raises."""
    if type(payload) is list:
        pickled, *beside = payload
        return pickle.loads(pickled, buffers=beside)
    return pickle.loads(payload)
