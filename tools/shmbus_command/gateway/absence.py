"""When the other end of a socket has gone, also where nothing is read from it or written to it."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable


class Absence:
    """Calls `tell` once, when the socket's other end is closed for reading as well as for writing.

    The loop watches an epoll of its own, which looks for that alone: to the socket itself the loop
    cannot say so, and at the end of what it sends a socket stays readable. That it sends no more is
    not enough: a client may have said all, and still read."""

    def __init__(self, descriptor: int, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._watched: select.epoll | None = select.epoll()
        self._watched.register(descriptor, 0)  # EPOLLHUP and EPOLLERR are always told
        self._loop.add_reader(self._watched.fileno(), self._seen)

    def _seen(self) -> None:
        self.close()
        self._tell()

    def close(self) -> None:
        """Look no more. Harmless if done before."""
        if self._watched is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.remove_reader(self._watched.fileno())
            self._watched.close()
            self._watched = None
