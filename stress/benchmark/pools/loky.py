"""loky's executor, the one that joblib uses by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loky import ProcessPoolExecutor

from . import WORKERS, Pool
from .futures import pool_of


@contextmanager
def opened() -> Iterator[Pool]:
    with ProcessPoolExecutor(WORKERS) as executor:
        yield pool_of(executor)
