"""How soon a process that has ended is started again, and when it is given up. No clock of its
own: times are given, in seconds."""

from __future__ import annotations

from collections import deque

from .process import Backoff


class Restarts:
    """The restarts of one process. What was commanded is not among them."""

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.total = 0
        self._in_a_row = 0
        self._when: deque[float] = deque()

    def after(self, now: float, *, ran: float) -> float | None:
        """It has ended now, after having run for so long: seconds until it is to be started again;
        None: it has been too often, and is given up."""
        if ran >= self.backoff.within:
            self.forget()
        while self._when and self._when[0] <= now - self.backoff.within:
            self._when.popleft()
        if len(self._when) >= self.backoff.limit:
            return None
        self._when.append(now)
        self.total += 1
        self._in_a_row += 1
        if self._in_a_row == 1:
            return 0.0
        doubled = min(self._in_a_row - 2, 64)
        return min(self.backoff.first * float(2**doubled), self.backoff.longest)

    def forget(self) -> None:
        """Begin anew: somebody started it, or it has run for long."""
        self._in_a_row = 0
        self._when.clear()
