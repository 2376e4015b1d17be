"""One direction to one peer: frames, in order, numbered."""

from __future__ import annotations

from collections.abc import Callable

from shmbus.shared.frames import Bytes

from . import keys, wire

Put = Callable[[str, bytes, Bytes], None]


class Channel:
    """What this link sends to one run of another."""

    def __init__(self, outbox: keys.Outbox, run: str, to: str, put: Put) -> None:
        self._outbox, self._run, self._to, self._put = outbox, run, to, put
        self._seq = 0

    def tell(self, what: str, body: object) -> None:
        """A frame of the control lane, which nothing waits before."""
        head = wire.head(self._run, self._to, 0, wire.packed(body))
        self._put(self._outbox.key(wire.CONTROL, what), head, b"")

    def send(self, lane: str, type: str, body: bytes, payload: Bytes) -> None:
        """A frame of another lane."""
        self._seq += 1
        head = wire.head(self._run, self._to, self._seq, body)
        self._put(self._outbox.key(lane, type), head, payload)
