"""Ids of messages that are confirmed, and which of them a receiving link remembers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

NOTED = 480
"""Ids in a note. Those that are not settled are fewer: `HELD`, and as many again for each time that
the sending link was killed, until what it held has come again."""


def identity(source: str, sent_ns: int, group: str) -> bytes:
    """The id of a message among those of one site."""
    name = f"{source}/{group}".encode()
    return sent_ns.to_bytes(8, "big") + hashlib.blake2b(name, digest_size=8).digest()


class Ids:
    """Those of the last messages of one site."""

    def __init__(self, content: bytes = b"") -> None:
        self._there = dict.fromkeys(content[i : i + 16] for i in range(0, len(content) - 15, 16))

    def __contains__(self, id: bytes) -> bool:
        return id in self._there

    def settle(self, ids: Iterable[bytes]) -> None:
        """These do not come again."""
        for id in ids:
            self._there.pop(id, None)

    def add(self, ids: Iterable[bytes]) -> None:
        """These are published."""
        for id in ids:
            self._there[id] = None
        while len(self._there) > NOTED:
            del self._there[next(iter(self._there))]

    def note(self, more: Iterable[bytes]) -> bytes:
        """What is kept of them, once there are these as well."""
        return b"".join([*self._there, *more][-NOTED:])
