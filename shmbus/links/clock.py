"""What a link knows of a peer's clock: by how much it is ahead of the one here, how well that is
known, and how far away the peer is.

CLOCK_MONOTONIC begins anew with each machine, so a time that was stamped there says nothing here.
A ping has four times: it left here, came there, was answered there, and its answer came here. If
both ways took as long, the peer's clock is ahead by the mean of the two differences; however the
time was divided between them, that is wrong by half of the round trip at the most. Of the last
pings the one that is known best counts: the quickest, but what is older is known less well, since
two clocks drift apart.

Knows nothing of how pings travel; each time is given as an argument.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, NamedTuple

import msgspec

KEPT = 8
"""Pings of which the one that is known best counts."""
BURST = 4
"""Pings one behind the other when a peer has come: the first one is slow more often than not."""
BUSY, IDLE = 1_000_000_000, 10_000_000_000
"""Nanoseconds between two pings while messages come, and while none do."""
DRIFT = 10_000
"""Two clocks drift apart by one nanosecond in so many, at the most: 100 ppm. Crystals are better
than 50 ppm, and a clock that is being adjusted is one that deviated."""
BOOT = 2_000_000_000
"""Nanoseconds that a machine takes at least to be started again, with what sent something there."""
UNKNOWN = 2**63 - 1
"""Nanoseconds, as an error: nothing was measured."""


_Time = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""Of a peer's clock: what lies between two of them is a 64-bit number, too."""


class Ping(msgspec.Struct, array_like=True, frozen=True, tag="ping"):
    """What time is it there?"""

    left_ns: _Time


class Pong(msgspec.Struct, array_like=True, frozen=True, tag="pong"):
    """The answer, with the time at which the ping was sent, by the clock of who did."""

    left_ns: _Time
    came_ns: _Time
    answered_ns: _Time


class Measured(NamedTuple):
    """What one ping has found."""

    ahead_ns: int
    round_trip_ns: int
    at_ns: int

    def error_ns(self, now: int) -> int:
        """By how much `ahead_ns` may be wrong by now, either way."""
        return (self.round_trip_ns + 1) // 2 + max(0, now - self.at_ns) // DRIFT


class Clock:
    """That of one peer."""

    def __init__(self) -> None:
        self._measured: deque[Measured] = deque(maxlen=KEPT)
        self._best: Measured | None = None
        self._under_way: deque[int] = deque(maxlen=KEPT)
        self._last = -IDLE  # when a ping was sent
        self._pongs = 0

    def ping(self, now: int) -> Ping:
        """One that is sent now."""
        self._last = now
        self._under_way.append(now)
        return Ping(now)

    def take(self, pong: Pong, now: int) -> int | None:
        """An answer has come: its round trip, ns; None where it answers none of the last pings, or
        says what cannot be."""
        round_trip = now - pong.left_ns - (pong.answered_ns - pong.came_ns)
        if pong.left_ns not in self._under_way or not 0 <= round_trip <= now - pong.left_ns:
            return None
        self._under_way.remove(pong.left_ns)
        self._pongs += 1
        ahead = (pong.came_ns - pong.left_ns + pong.answered_ns - now) // 2
        self._measured.append(Measured(ahead, round_trip, now))
        # All get older alike, so the one that is known best stays that until another comes.
        self._best = min(self._measured, key=lambda each: each.error_ns(now))
        return round_trip

    def due(self, now: int, *, idle: bool = False) -> bool:
        """Whether it is time for another ping. `idle`: no message has come."""
        if self._pongs < BURST and not self._under_way:
            return True
        return now - self._last >= (IDLE if idle else BUSY)

    @property
    def known(self) -> Measured | None:
        """What is known best; None: nothing yet."""
        return self._best

    @property
    def round_trip_ns(self) -> int:
        """Of the quickest of the last pings; UNKNOWN before the first."""
        return min((each.round_trip_ns for each in self._measured), default=UNKNOWN)

    def here(self, there_ns: int, now: int) -> tuple[int, int]:
        """What the clock here showed when the peer's showed `there_ns`, and by how much that may be
        wrong, either way (ns). Something that has come is not from the future. `now` and UNKNOWN
        where nothing was measured."""
        best = self._best
        if best is None:
            return now, UNKNOWN
        return max(0, min(there_ns - best.ahead_ns, now)), best.error_ns(now)

    def began_anew_since(self, there_ns: int, here_ns: int, now: int) -> bool:
        """Whether the peer's machine has been started again since its clock showed `there_ns`,
        which was at `here_ns`: its clock is not as far ahead any more. Where it is further ahead,
        this machine has slept, whose own clock stood still."""
        best = self._best
        if best is None:
            return False
        drift = max(0, now - here_ns) // DRIFT
        return there_ns - here_ns - best.ahead_ns > BOOT + best.error_ns(now) + drift


def answered(ping: Ping, came_ns: int, now: int) -> Pong:
    """The answer to a ping that came at `came_ns` and is answered now."""
    return Pong(ping.left_ns, came_ns, now)
