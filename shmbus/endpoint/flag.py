"""A flag that is set once, and that threads wait for."""

from __future__ import annotations

import contextlib
import threading


class Flag:
    """Like `threading.Event`, but nobody can leave a lock taken that `set` needs: in the Python
    code of an Event, an exception from a signal's handler can."""

    def __init__(self) -> None:
        self._set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether it has been set."""
        return self._set

    def set(self) -> None:
        """Set it, and let go on who waits. Never waits. Harmless if done before."""
        self._set = True
        with contextlib.suppress(RuntimeError):  # it is open
            self._gate.release()

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, for `timeout` seconds at most; whether it is set."""
        if not self._set and self._gate.acquire(timeout=timeout):
            self.set()  # open for the next who waits
        return self._set
