"""The numbered frames of one peer: what came, what is missing, and what the peer is told of that.

No input or output: the frames' numbers go in, acknowledgements come out.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated

import msgspec

EVERY = 64 << 10
"""Bytes after which the peer is told, at the latest."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Ack(msgspec.Struct, array_like=True, frozen=True):
    """All frames up to `seq` were taken, but those missing, from one to another."""

    seq: _Number
    missing: tuple[tuple[_Number, _Number], ...] = ()


class Arrivals:
    """Those of one run of a peer."""

    def __init__(self) -> None:
        self.seq = 0
        """Of the last frame that came."""
        self._held: deque[int] = deque()
        self._told = 0
        self._missing: list[tuple[int, int]] = []
        self._bytes = 0  # since the peer was told

    def come(self, seq: int, size: int) -> bool:
        """A frame of this number is here, of so many bytes. False: it was here before, or is too
        late."""
        if seq <= self.seq:
            return False
        if seq > self.seq + 1:
            self._missing.append((self.seq + 1, seq - 1))
        self.seq = seq
        self._bytes += size
        return True

    def end(self, seq: int) -> bool:
        """All frames up to this one have left before what says so: whether some did not come."""
        if seq <= self.seq:
            return False
        self._missing.append((self.seq + 1, seq))
        self.seq = seq
        return True

    def hold(self) -> int:
        """The frame that came last is not done with: its number, for `release`."""
        self._held.append(self.seq)
        return self.seq

    def release(self, seq: int) -> None:
        """Now it is."""
        self._held.remove(seq)

    @property
    def due(self) -> bool:
        """Whether the peer is to be told at once; else some time later."""
        return self._bytes >= EVERY or bool(self._missing)

    def ack(self) -> Ack | None:
        """What to tell; None: nothing is new."""
        taken = self._held[0] - 1 if self._held else self.seq
        if taken <= self._told:
            return None
        known = tuple(gap for gap in self._missing if gap[1] <= taken)
        self._missing = self._missing[len(known) :]
        self._told, self._bytes = taken, 0
        return Ack(taken, known)
