"""Calls that wait for space in a ring, or for an entry in the table of requests: one behind the
other, so that none is passed by. Those that wait for memory of the pool have a line of their own,
beside which others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from shmbus import errors

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Looped


NO_LINE = -1
"""In place of a line's number: the call waits in none."""


class Line:
    """One of an endpoint's. `number`: which, for `looped`; `arm` has the loop watch for space."""

    def __init__(
        self,
        looped: Looped,
        number: int,
        loop: asyncio.AbstractEventLoop,
        arm: Callable[[], None],
    ) -> None:
        self._looped, self._number, self._loop, self._arm = looped, number, loop, arm
        self._lock = asyncio.Lock()  # whoever has it is the first
        self._length = 0
        self._room: asyncio.Future[None] | None = None

    async def wait(
        self,
        attempt: Callable[[int], int],
        timeout: float | None,
        elapsed: Callable[[], errors.BusError],
    ) -> None:
        """Wait behind others until `attempt`, given this line's number, returns `NO_LINE`. Raises
        what it raises, and `elapsed()` after `timeout` seconds."""
        self._length += 1
        self._looped.set_waiting(self._number, True)
        try:
            async with asyncio.timeout(timeout) as limit, self._lock:
                while attempt(self._number) != NO_LINE:
                    await self._await_room()
        except TimeoutError:
            if not limit.expired():
                raise
            raise elapsed() from None
        finally:
            self._length -= 1
            self._looped.set_waiting(self._number, self._length > 0)

    async def _await_room(self) -> None:
        self._room = self._loop.create_future()
        self._arm()
        try:
            await self._room
        finally:
            self._room = None

    def wake(self) -> None:
        """There may be room: the first tries again."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
