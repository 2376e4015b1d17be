"""Who waits for messages that have no callback: iterations over the endpoint, or over one
subscription, and calls of `receive`."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Gate, Looped

Waiting = deque[asyncio.Future[None]]


class Receivers:
    """Those of one endpoint. They are woken, no more, and take the message themselves: so one that
    is cancelled at that moment takes none along."""

    def __init__(self, looped: Looped, loop: asyncio.AbstractEventLoop) -> None:
        self._looped, self._loop = looped, loop
        self._waiting: Waiting = deque()
        self._of_gates: dict[Gate, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._of_gates)

    @property
    def asks(self) -> bool:
        """Whether somebody waits for any message that no callback gets."""
        return bool(self._waiting)

    @property
    def iterates(self) -> bool:
        """Whether messages of a subscription are to be taken for who iterates over it."""
        return bool(self._of_gates)

    def iterate(self, gate: Gate) -> None:
        """Messages of this subscription are taken for who iterates over it."""
        self._of_gates.setdefault(gate, deque())

    def iterated(self, gate: Gate) -> bool:
        """Whether that is so."""
        return gate in self._of_gates

    def forget(self, gate: Gate) -> None:
        """It is so no more."""
        _wake(self._of_gates.pop(gate, deque()), None)

    def wait(self, gate: Gate | None) -> asyncio.Future[None]:
        """Done when there may be a message: of that subscription, or any without a callback."""
        future = self._loop.create_future()
        (self._waiting if gate is None else self._of_gates[gate]).append(future)
        return future

    def forgo(self, gate: Gate | None, future: asyncio.Future[None]) -> None:
        """Whoever waited by that future waits no more."""
        with suppress(ValueError, KeyError):  # it was woken
            (self._waiting if gate is None else self._of_gates[gate]).remove(future)

    def arrived(self, gate: Gate) -> None:
        """A message of that subscription is there."""
        _wake(self._of_gates.get(gate, deque()), len(gate.waiting))

    def wake(self) -> None:
        """Wake as many as there are messages to take."""
        if self._waiting:
            there = len(self._looped.queue) or int(self._looped.data_waits())
            _wake(self._waiting, there)
        for gate, waiting in self._of_gates.items():
            if waiting:
                _wake(waiting, len(gate.waiting))

    def wake_all(self) -> None:
        """Wake everybody: there will be none, or trouble."""
        for waiting in (self._waiting, *self._of_gates.values()):
            _wake(waiting, None)


def _wake(waiting: Waiting, most: int | None) -> None:
    """Wake so many of them, or all."""
    while waiting and most != 0:
        future = waiting.popleft()
        if not future.done():
            future.set_result(None)
            most = None if most is None else most - 1
