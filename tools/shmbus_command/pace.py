"""The pace at which messages are sent."""

from __future__ import annotations

import time


class Pace:
    """So many a second, without bursts to catch up."""

    def __init__(self, rate: float | None) -> None:
        self._gap = 1 / rate if rate else 0.0
        self._next = time.monotonic()

    def wait(self) -> None:
        if self._gap:
            time.sleep(max(self._next - time.monotonic(), 0.0))
            self._next = max(self._next + self._gap, time.monotonic())
