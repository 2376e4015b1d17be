"""``joblib.Parallel``, whose tasks go in batches; its processes stay while it is entered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor

from . import WORKERS, Pool, Task


@contextmanager
def opened(backend: str = "loky") -> Iterator[Pool]:
    with joblib.Parallel(n_jobs=WORKERS, backend=backend) as parallel:

        def mapped(task: Task, items: Iterable[Any], chunk: int) -> Iterable[Any]:
            parallel.batch_size = chunk
            results: list[Any] = parallel(joblib.delayed(task)(item) for item in items)
            return results

        yield {"Parallel": mapped}
    if backend == "loky":  # which keeps its processes
        get_reusable_executor().shutdown(wait=True)
