"""MessagePack values that follow one another without anything between, as they come."""

from __future__ import annotations

from collections.abc import Iterator

_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}
_FIXED |= {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
"""Bytes that follow the first, by it."""

_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_SIZED |= {0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
"""Bytes of the length that follows, and how many bytes there are beside that many."""

_NESTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Bytes of the count that follows, and the values for each."""


class Values:
    """Cuts what it is fed into whole values."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._at = 0  # up to where they were looked at
        self._missing = 1  # values, nested ones included, until the first of them is whole

    @property
    def rest(self) -> int:
        """Bytes of a value that is not whole."""
        return len(self._bytes)

    def feed(self, more: bytes) -> Iterator[bytes]:
        """The values that are whole with these bytes. Raises ``ValueError`` where there is none."""
        self._bytes += more
        while (step := self._step()) is not None:
            length, nested = step
            self._at += length
            self._missing += nested - 1
            if not self._missing:
                yield bytes(self._bytes[: self._at])
                del self._bytes[: self._at]
                self._at, self._missing = 0, 1

    def _step(self) -> tuple[int, int] | None:
        """Of the next value, its bytes and how many values are in it; None: it is not there yet."""
        there = len(self._bytes) - self._at
        if not there:
            return None
        first = self._bytes[self._at]
        length, nested = 1, 0
        if first in _SIZED or first in _NESTED:
            wide, each = _SIZED.get(first) or _NESTED[first]
            if there < 1 + wide:
                return None
            count = int.from_bytes(self._bytes[self._at + 1 : self._at + 1 + wide], "big")
            length += wide
            if first in _SIZED:
                length += count + each
            else:
                nested = count * each
        elif first in _FIXED:
            length += _FIXED[first]
        elif 0x80 <= first <= 0x8F:
            nested = 2 * (first & 0x0F)
        elif 0x90 <= first <= 0x9F:
            nested = first & 0x0F
        elif 0xA0 <= first <= 0xBF:
            length += first & 0x1F
        elif first == 0xC1:
            raise ValueError("no value begins with the byte c1")
        return None if there < length else (length, nested)
