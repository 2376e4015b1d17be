"""Whether anybody is there, as the dispatcher tells it: the callback of `on_match` is called at
changes alone, in their order, whatever is told twice, or by several threads at a time."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

from ._kernel import Message


class _State:
    """What was told last, and what the callback knows of it."""

    def __init__(self) -> None:
        self._version = self._receivers = 0
        self._known = False
        self._lock = threading.RLock()

    def note(self, message: Message) -> None:
        """The dispatcher tells how many receivers there are. Of two that overtake each other the
        newest counts."""
        version, receivers = message.payload["version"], message.payload["receivers"]
        with self._lock:
            if version > self._version:
                self._version, self._receivers = version, receivers

    def change(self) -> int | None:
        """How many there are, if the callback is to be told; else None."""
        with self._lock:
            if self._known == bool(self._receivers):
                return None
            self._known = bool(self._receivers)
            return self._receivers


class Matching(_State):
    """Calls a plain function."""

    def __init__(self, callback: Callable[[int], object]) -> None:
        super().__init__()
        self._callback = callback
        self._calling = False

    def __call__(self, message: Message) -> None:
        """One thread calls it; what comes meanwhile is left to that thread."""
        self.note(message)
        while True:
            with self._lock:
                receivers = None if self._calling else self.change()
                if receivers is None:
                    return
                self._calling = True
            try:
                self._callback(receivers)
            finally:
                self._calling = False


class AsynchronousMatching(_State):
    """Awaits a coroutine function; its jobs come one at a time."""

    def __init__(self, callback: Callable[[int], Awaitable[object]]) -> None:
        super().__init__()
        self._callback = callback

    async def __call__(self, message: Message) -> None:
        self.note(message)
        receivers = self.change()
        if receivers is not None:
            await self._callback(receivers)
