"""``torch.multiprocessing``: tensors in shared memory, handed over by its queue.

A queue of the standard library is one of torch's once that is imported, which is done at both ends
alone: the process that forks them stays without torch's threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Queue
from typing import TYPE_CHECKING

import numpy as np

from benchmark.roles.frames import Send, Take, Use

from . import DEPTH

if TYPE_CHECKING:
    import torch


def tensors() -> Queue[torch.Tensor]:
    return Queue(DEPTH)


@contextmanager
def sending(queue: Queue[torch.Tensor]) -> Iterator[Send]:
    import torch.multiprocessing

    def send(nbytes: int, write: Use) -> None:
        tensor = torch.empty(nbytes // 8, dtype=torch.int64).share_memory_()
        write(tensor.numpy().view(np.uint64))
        queue.put(tensor)

    yield send


@contextmanager
def taking(queue: Queue[torch.Tensor]) -> Iterator[Take]:
    import torch.multiprocessing  # noqa: F401

    def take(read: Use) -> None:
        read(queue.get().numpy().view(np.uint64))

    yield take
