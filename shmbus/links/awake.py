"""Staying awake: while requests follow each other closely, the link's loop does not sleep between
them.

Going to sleep and being woken takes several times as long as handling what has come, at each of
the processes on the way. So the loop goes on for a moment after each part of a request, giving up
the CPU at each look, if those have lately come within that moment. It is what waiters at a bell do,
by the same rules (ringbuf/native/bell.h) and a longer moment, since a request comes back over the
network.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from shmbus.shared._kernel import monotonic_ns

MOMENT = 10
"""Times the longest spin of the bus. None where that does not spin."""

MOST, ENOUGH, FAR = 24, 12, 10
"""Of credit: the most; for how much the loop stays awake; what a long wait costs. A short one
earns 1."""

ASLEEP = 2
"""A wait that was slept through was short if it took at most so many moments."""

LATE = 200_000
"""Nanoseconds after which giving up the CPU was late: something else uses it."""
REST, LONGEST_REST = 1_000_000, 100_000_000
"""Nanoseconds of sleep for that: at first, and at most, if it is so each time."""


class Awake:
    """Whether one loop is, between the parts of its requests."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spin_ns: int,
        now: Callable[[], int] = monotonic_ns,
        give_way: Callable[[], object] = os.sched_yield,
    ) -> None:
        """`spin_ns`: nanoseconds of the longest spin of the bus."""
        self._loop, self._now, self._give_way = loop, now, give_way
        self._moment = MOMENT * spin_ns
        self._credit = MOST if spin_ns else 0
        self._last = -(1 << 63)  # when a part of a request was handled
        self._stays = self._stayed = False  # now; at any time since then
        self._rests_until = self._rest = 0

    def handled(self) -> None:
        """A part of a request was: the next may come soon."""
        now = self._now()
        short = self._moment if self._stayed else ASLEEP * self._moment
        if now - self._last <= short:
            self._credit = min(self._credit + 1, MOST)
        else:
            self._credit = max(self._credit - FAR, 0)
        self._last, self._stayed = now, self._stays
        if self._moment and not self._stays and self._credit >= ENOUGH and now >= self._rests_until:
            self._stays = self._stayed = True
            self._loop.call_soon(self._stay)

    def _stay(self) -> None:
        """Once round the loop."""
        before = self._now()
        self._stays = before - self._last <= self._moment
        if not self._stays:
            return
        self._give_way()
        after = self._now()
        if after - before > LATE and self._is_hog(before, after):
            self._stays = False
            return
        self._loop.call_soon(self._stay)

    def _is_hog(self, before: int, after: int) -> bool:
        """Whether it was late again, shortly after it was the last time."""
        again = before < self._rests_until + 32 * (after - before)
        self._rest = min(max(REST, 2 * self._rest), LONGEST_REST) if again else 0
        self._rests_until = after + self._rest
        return again
