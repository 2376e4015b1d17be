"""``concurrent.futures.ProcessPoolExecutor``, and whatever is used like it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from . import SUBMIT, WORKERS, Pool, Task


def pool_of(executor: Executor) -> Pool:
    def submit(task: Task, items: Iterable[Any], chunk: int) -> Iterable[Any]:
        futures = [executor.submit(task, item) for item in items]
        return [future.result() for future in futures]

    def mapped(task: Task, items: Iterable[Any], chunk: int) -> Iterable[Any]:
        return executor.map(task, items, chunksize=chunk)

    return {SUBMIT: submit, "map": mapped}


@contextmanager
def opened() -> Iterator[Pool]:
    with ProcessPoolExecutor(WORKERS) as executor:
        yield pool_of(executor)
