"""A reply that a client gives in parts, as lines that come when it likes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

import msgspec

from .lines import BadLine

AHEAD = 64
"""Parts that may wait for who asked."""

Taken = Callable[[BadLine | None], None]
"""Called when a part is taken, or with why it never will be."""


class _Part(msgspec.Struct):
    payload: object
    taken: Taken


class Giving:
    """The parts of one reply: `add` puts them in, `parts` yields them to the bus as fast as who
    asked takes them."""

    def __init__(self) -> None:
        self._waiting: deque[_Part] = deque()
        self._changed = asyncio.Event()
        self._error: BaseException | None = None
        self.ended = False
        """Whether the client has said all."""

    def add(self, payload: object, taken: Taken) -> None:
        """Raises `BadLine`."""
        if len(self._waiting) >= AHEAD:
            raise BadLine(
                f"{AHEAD} parts wait to be taken",
                "Give each part an id, and write the next when one of them is answered",
            )
        self._waiting.append(_Part(payload, taken))
        self._changed.set()

    def end(self, error: BaseException | None) -> None:
        """All are said; `error` is raised behind them."""
        self.ended, self._error = True, error
        self._changed.set()

    async def parts(self) -> AsyncGenerator[object, None]:
        while True:
            while self._waiting:
                part = self._waiting.popleft()
                problem: BadLine | None = _nobody_waits()
                try:
                    yield part.payload
                    problem = None
                finally:
                    part.taken(problem)
            if self.ended:
                break
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    def break_off(self) -> None:
        """Nobody takes any more of them."""
        self.ended = True
        while self._waiting:
            self._waiting.popleft().taken(_nobody_waits())


def _nobody_waits() -> BadLine:
    return BadLine("nobody waits for this part any more", "Give up the rest of that reply")
