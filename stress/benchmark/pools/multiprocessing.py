"""``multiprocessing.Pool``."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from . import SUBMIT, WORKERS, Pool, Task


@contextmanager
def opened() -> Iterator[Pool]:
    with multiprocessing.Pool(WORKERS) as pool:

        def submit(task: Task, items: Iterable[Any], chunk: int) -> Iterable[Any]:
            results = [pool.apply_async(task, (item,)) for item in items]
            return [result.get() for result in results]

        yield {SUBMIT: submit, "imap": pool.imap, "map": pool.map}
