"""``shmbus.Executor``, with a bus of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import shmbus

from . import WORKERS, Pool
from .futures import pool_of


@contextmanager
def opened() -> Iterator[Pool]:
    with shmbus.Executor(WORKERS) as executor:
        yield pool_of(executor)
