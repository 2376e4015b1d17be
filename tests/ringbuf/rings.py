"""Rings of 1,024 bytes, as the tests use them."""

import itertools
import os
import time

from ringbuf import Producer, RingFull, Segment

CAPACITY = 1024
LARGEST = 248
"""Bytes of the largest record."""


def fill(producer: Producer) -> int:
    """Push until nothing more fits; return how many."""
    for count in itertools.count():
        try:
            producer.push(b"x" * 24)
        except RingFull:
            return count
    raise AssertionError


def until_parked(name: str, epoch: int) -> None:
    """Return once the side with that epoch word sleeps."""
    with Segment.attach(name) as segment:
        deadline = time.monotonic() + 30
        while not segment.memory.load(epoch) & 1:
            assert time.monotonic() < deadline
            os.sched_yield()


def span(at: int, size: int) -> int:
    """Bytes that a record takes, as ring.h explains it."""
    record = (8 + size + 7) // 8 * 8
    rest = CAPACITY - at % CAPACITY
    return record if record <= rest else rest + record
