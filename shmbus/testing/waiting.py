"""Waiting for a condition, instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from shmbus.shared._kernel import monotonic

TIMEOUT = 60.0
"""Seconds that any wait here takes at most: long, because only a failure waits so long."""

T = TypeVar("T")


def eventually(condition: Callable[[], T | None], what: str = "", *, timeout: float = TIMEOUT) -> T:
    """Wait until `condition()` is true, and return what it gave. Fails the test after `timeout`
    seconds."""
    end = monotonic() + timeout
    pause = 0.0005
    while True:
        result = condition()
        if result:
            return result
        if monotonic() >= end:
            what = what or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"not within {timeout:g} s: {what}; it is still {result!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
