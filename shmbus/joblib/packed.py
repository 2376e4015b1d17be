"""A task or a result as the executor pickles it: by cloudpickle, which takes lambdas, closures and
what `__main__` defines, with the memory of arrays beside it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
from joblib import _memmapping_reducer

from shmbus.executor.wire import Failure

from .large import LargeArrays, Mapped, is_temporary

BESIDE = 64 * 1024
"""Bytes from which a buffer goes beside the pickle, so that it is not copied into that."""


class Packed:
    """Stands for a value where that is pickled: what is unpickled is the value itself.

    Arrays come writable, from one copy, but those that are `large`.
    """

    def __init__(self, value: object, large: LargeArrays | None = None, what: str = "") -> None:
        self.value, self.large, self.what = value, large, what
        self.mapped: list[Mapped] = []
        """What the value has of large arrays: they are there while this is."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., object], tuple[object, ...]]:
        buffers: list[pickle.PickleBuffer] = []

        def inside(buffer: pickle.PickleBuffer) -> bool:
            if small := buffer.raw().nbytes < BESIDE:
                return small
            buffers.append(buffer)
            return False

        stream = io.BytesIO()
        pickler = _Pickler(stream, self, inside if protocol >= 5 else None)
        try:
            pickler.dump(self.value)
        except Exception as error:
            if not self.what:
                raise
            raise pickle.PicklingError(f"Could not pickle {self.what}.") from error
        return unpacked, (stream.getvalue(), *buffers)


def call(batch: Callable[[], object]) -> Packed:
    """A task: one batch of calls."""
    try:
        return Packed(batch())
    except BaseException as error:
        return Packed(Failure(error))  # of a class, maybe, that only cloudpickle takes


def unpacked(pickled: bytes, *buffers: Any) -> object:
    """What `Packed` stood for."""
    return pickle.loads(pickled, buffers=[bytearray(buffer) for buffer in buffers])


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, stream: io.BytesIO, packed: Packed, inside: Any) -> None:
        super().__init__(stream, protocol=5, buffer_callback=inside)
        self.packed = packed

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray) and type(obj) in (np.ndarray, np.memmap):
            backing = _memmapping_reducer._get_backing_memmap(obj)
            if isinstance(backing, np.memmap):
                if is_temporary(backing):
                    return np.asarray(obj).__reduce_ex__(5)
                # A file of the user's is opened at the other end, too, which may write to it.
                return _memmapping_reducer._reduce_memmap_backed(obj, backing)
            large = self.packed.large
            if large is not None and (mapped := large.mapped(obj)) is not None:
                self.packed.mapped.append(mapped)
                return mapped.reduced()
        return super().reducer_override(obj)
