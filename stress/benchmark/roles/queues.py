"""The ends of a queue, made by the process that forks them; each function is a role (stage.py).

A queue is used alike, whoever made it: by its methods' names.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from time import monotonic_ns
from typing import Any, NamedTuple

from benchmark.measure.floods import Flood
from benchmark.stage import Stage

BATCH = 100

Put = Callable[[Any, int], None]
"""Puts the same thing so many times."""
Take = Callable[[int], None]
"""Takes so many things."""
Ends = tuple[Put, Take]


class Span(NamedTuple):
    """When measuring began and ended, by the clock that all processes have."""

    start: int
    end: int


def one_by_one(queue: Any) -> Ends:
    def send(payload: Any, count: int) -> None:
        put = queue.put
        for _ in repeat(None, count):
            put(payload)

    def take(count: int) -> None:
        get = queue.get
        for _ in repeat(None, count):
            get()

    return send, take


def by_get_many(get_many: Callable[[int], list[Any]]) -> Take:
    """`get_many(most)` waits until there is something."""

    def take(count: int) -> None:
        while count > 0:
            count -= len(get_many(min(BATCH, count)))

    return take


def producer(stage: Stage, put: Put, payload: Any, flood: Flood) -> None:
    stage.ready()
    put(payload, flood.messages)
    stage.report(None)
    stage.wait_until_stopped()  # what it has put may need it still


def consumer(stage: Stage, take: Take, flood: Flood) -> Span:
    stage.ready()
    take(flood.warm)
    start = monotonic_ns()
    take(flood.messages - flood.warm)
    return Span(start, monotonic_ns())
