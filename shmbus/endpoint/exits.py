"""The ends of processes: endpoints are closed at the exit, and given up in a forked child.

A call of one of the sets here is one step for other threads, for handlers of signals and for what
the garbage collector runs. Any of these could find a lock taken.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

from ._kernel import after_fork

Made = TypeVar("Made")

_PATIENCE = 5.0
"""Seconds that the exit waits for a thread that is just making something."""


class Closable(Protocol):
    """What this module calls of an attached endpoint."""

    def forked(self) -> bool:
        """Whether this is a child of the process that attached."""

    def close(self) -> None:
        """Leave the bus."""

    def forget_in_child(self) -> None:
        """In a forked child: close the copies of what only the parent may have open."""


class Undo(contextlib.ExitStack):
    """What undoes an attach that is under way. Leaving its block does, and so does the exit, which
    ends other threads wherever they are; what both do is done twice, which harms nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._making = threading.Lock()
        self._steps: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        self.callback(_attaching.discard, self)  # the last of all
        _attaching.add(self)
        return self

    def by(self, step: Callable[[], object]) -> None:
        """This is part of it."""
        self.callback(step)
        self._steps.append(step)

    def make(self, make: Callable[[], Made], remove: Callable[[], object]) -> Made:
        """Make something that outlives the process, and that `remove` undoes. Ends the thread where
        another runs the exit: it would not remove that any more."""
        self.by(remove)
        with self._making:
            if _exiting not in (None, threading.get_ident()):
                raise SystemExit
            return make()

    def keep(self) -> None:
        """Undo nothing: it is attached."""
        self.pop_all()
        _attaching.discard(self)

    def at_exit(self) -> None:
        """Undo it for a thread that may go on no more."""
        made = self._making.acquire(timeout=_PATIENCE)
        for step in self._steps[::-1]:
            with contextlib.suppress(Exception):
                step()
        if made:
            self._making.release()


_live: set[weakref.ref[Closable]] = set()
"""The attached endpoints of this process."""

_attaching: set[Undo] = set()
"""The attaches that are under way."""

_exiting: int | None = None
"""The thread that runs the exit."""


def attached(endpoint: Closable) -> None:
    """Close it at the exit."""
    _live.add(weakref.ref(endpoint, _live.discard))


def left(endpoint: Closable) -> None:
    """It is closed."""
    _live.discard(weakref.ref(endpoint))


def _at_exit() -> None:
    """Close endpoints while threads can still take the GIL."""
    global _exiting
    _exiting = threading.get_ident()  # from here on nothing more is made
    for undo in _attaching.copy():
        undo.at_exit()
    for reference in _live.copy():
        endpoint = reference()
        with contextlib.suppress(Exception):
            if endpoint is not None and not endpoint.forked():
                endpoint.close()


def _after_fork() -> None:
    global _exiting
    _exiting = None
    after_fork()
    for reference in _live.copy():
        if (endpoint := reference()) is not None:
            endpoint.forget_in_child()
    _live.clear()
    _attaching.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
