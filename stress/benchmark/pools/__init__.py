"""Pools of worker processes that all do the same tasks: each file here opens one, with two workers,
as its own documentation shows it. What is optional is imported only where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

WORKERS = 2
"""One for each core of a measurement."""

Task = Callable[[Any], Any]
Way = Callable[[Task, Iterable[Any], int], Iterable[Any]]
"""Results in order of their items, which go to the workers in chunks of so many."""
SUBMIT = "submit"
"""The way that makes a task of each item, whatever the chunk, and then asks for the results."""
Pool = Mapping[str, Way]
"""Its ways, by the name of the method."""
Opened = Callable[[], AbstractContextManager[Pool]]
