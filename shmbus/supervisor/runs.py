"""Which process runs in which session, for who has to know that in another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Runs:
    """By name: the pid of what runs, which is the number of its session."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: dict[str, int] = {}

    @contextmanager
    def starting(self) -> Iterator[dict[str, int]]:
        """A block in which one is started, and written down in what this gives."""
        with self._lock:
            yield self._pids

    def began(self, name: str, pid: int) -> None:
        """It runs."""
        with self._lock:
            self._pids[name] = pid

    def ended(self, name: str, pid: int) -> None:
        """It has ended, and nothing of its session is left."""
        with self._lock:
            if self._pids.get(name) == pid:
                del self._pids[name]

    def settle(self) -> None:
        """Wait until the pid of a process is known that is just being started: it may be at the
        door already."""
        with self._lock:
            pass

    def whose(self, session: int | None) -> str | None:
        """The name of the process that has this session."""
        return next((name for name, pid in list(self._pids.items()) if pid == session), None)
