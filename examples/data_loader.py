"""A data loader in the manner of PyTorch's, without torch: worker processes make the batches ahead
of who trains, and the arrays of a batch come through shared memory, without a copy.

A worker is killed in the first epoch; its batch is made by another one, and nothing is missing.

    python examples/data_loader.py
"""

import os
import signal
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

import shmbus


class Dataset(Protocol):
    """Samples by their number: an image, and what it shows."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]: ...


class Noise:
    """Images as they might come from files: three colors, 64 x 64."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        image = np.random.default_rng(number).integers(0, 256, (3, 64, 64), dtype=np.uint8)
        return image, number % 10


class Batch(NamedTuple):
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    worker: int


class DataLoader:
    """Batches of a data set, each epoch in an order of its own, which the seed decides."""

    def __init__(
        self, dataset: Dataset, batch_size: int, *, workers: int, prefetch: int = 4, seed: int = 0
    ) -> None:
        self.dataset, self.batch_size, self.prefetch = dataset, batch_size, prefetch
        self.random = np.random.default_rng(seed)
        # A batch whose worker dies is begun again, twice at most.
        self.executor = shmbus.Executor(workers, initializer=_open, initargs=(dataset,), retries=2)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = self.random.permutation(len(self.dataset))
        batches = (order[at : at + self.batch_size] for at in range(0, len(order), self.batch_size))
        return self.executor.map(_collate, batches, window=self.prefetch)

    def close(self) -> None:
        self.executor.shutdown()


# In a worker -------------------------------------------------------------------------------------

opened: Dataset


def _open(dataset: Dataset) -> None:
    global opened
    opened = dataset


def _collate(numbers: NDArray[np.int64]) -> Batch:
    images, labels = zip(*(opened[int(number)] for number in numbers), strict=True)
    return Batch(np.stack(images), np.array(labels), os.getpid())


# In the program ----------------------------------------------------------------------------------


def checksums(loader: DataLoader, kill_at: int = -1) -> list[int]:
    """Of the batches of an epoch; a worker is killed at one of them."""
    found = []
    for number, batch in enumerate(loader):
        assert not batch.images.flags.writeable  # the worker's memory, in place
        found.append(zlib.crc32(batch.images.data))
        if number == kill_at:
            os.kill(batch.worker, signal.SIGKILL)  # as the OOM killer would
    return found


def main() -> None:
    two = DataLoader(Noise(), 32, workers=2)
    first, second = checksums(two, kill_at=5), checksums(two)
    two.close()
    print(f"{len(first)} of {len(two)} batches, although a worker was killed")
    print("the second epoch has another order:", second != first)

    one = DataLoader(Noise(), 32, workers=1)
    print("one worker, the same batches in the same order:", checksums(one) == first)
    one.close()


if __name__ == "__main__":
    main()
