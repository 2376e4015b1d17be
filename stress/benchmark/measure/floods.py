"""As many messages as one sender can send: rates, and what each costs. Times are microseconds."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, process_time_ns
from typing import NamedTuple


class Flood(NamedTuple):
    """How many messages one sender sends; the first tenth warms up and is not measured."""

    messages: int

    @property
    def warm(self) -> int:
        return self.messages // 10


def receive_rate(flood: Flood, take: Callable[[int], None]) -> float:
    """Messages per second, where ``take(n)`` brings n of them to Python."""
    take(flood.warm)
    start = perf_counter_ns()
    take(flood.messages - flood.warm)
    return (flood.messages - flood.warm) * 1e9 / (perf_counter_ns() - start)


def sender_cpu(flood: Flood, send: Callable[[int], None]) -> float:
    """CPU of the sending process per message, where ``send(n)`` sends n of them."""
    send(flood.warm)
    start = process_time_ns()
    send(flood.messages - flood.warm)
    return (process_time_ns() - start) / 1e3 / (flood.messages - flood.warm)


SPELL = 5000


def sender_turns(
    flood: Flood, one: Callable[[int], None], other: Callable[[int], None]
) -> tuple[float, float]:
    """Messages per second of two ways to send, which take turns in spells too short for the
    machine to change meanwhile. Each is first as often as the other."""
    spells = (flood.messages - flood.warm) // SPELL
    one(flood.messages - spells * SPELL)
    took, count = [0, 0], [0, 0]
    for turn in range(spells):
        which = (0, 1, 1, 0)[turn % 4]
        start = perf_counter_ns()
        (one, other)[which](SPELL)
        took[which] += perf_counter_ns() - start
        count[which] += SPELL
    return count[0] * 1e9 / took[0], count[1] * 1e9 / took[1]
