"""The executor that the next call is likely to want: its workers stay when a call has ended."""

from __future__ import annotations

import os
import threading
from typing import Any

from shmbus.executor.executor import Executor


class Kept:
    """At most one executor, with what it was made from, that nobody uses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: Executor | None = None
        self._made_from: dict[str, Any] = {}
        self._owner = 0
        self._end: threading.Timer | None = None

    def take(self, made_from: dict[str, Any]) -> Executor | None:
        """The executor, if it was made from that; nobody else is given it meanwhile."""
        with self._lock:
            if self._owner != os.getpid() or self._made_from != made_from:
                return None
            return self._out()

    def keep(self, executor: Executor, made_from: dict[str, Any], seconds: float) -> None:
        """For the next call, for so long. What was kept before is ended."""
        with self._lock:
            before = self._out() if self._owner == os.getpid() else None
            self._executor, self._made_from, self._owner = executor, made_from, os.getpid()
            self._end = threading.Timer(seconds, self._expire, [executor])
            self._end.daemon = True
            self._end.start()
        if before is not None:
            before.shutdown(wait=False)

    def end(self) -> None:
        """Its workers, if there is one, and wait for that."""
        with self._lock:
            executor = self._out() if self._owner == os.getpid() else None
        if executor is not None:
            executor.shutdown()

    def _expire(self, executor: Executor) -> None:
        with self._lock:
            if self._executor is not executor:
                return
            self._out()
        executor.shutdown(wait=False)

    def _out(self) -> Executor | None:
        if self._end is not None:
            self._end.cancel()
        executor, self._executor, self._end, self._owner = self._executor, None, None, 0
        return executor


kept = Kept()


def shutdown() -> None:
    """End the workers that are kept for the next call of `Parallel`; that starts new ones.

    The end of the program does that, too.
    """
    kept.end()
