"""Whether what the peers want is subscribed to, and what they handle is handled."""

from __future__ import annotations

from collections.abc import Callable


class Settling:
    """That of one link."""

    def __init__(self) -> None:
        self.on_settled: list[Callable[[], None]] = []
        """Called when it is."""
        self._open: set[object] = set()

    def begin(self, what: object) -> None:
        """This is to be done for that."""
        self._open.add(what)

    def done(self, what: object) -> None:
        """This is."""
        self._open.discard(what)
        if self._open:
            return
        for settled in self.on_settled:
            settled()
