"""The ends of processes: endpoints are closed at the exit, and given up in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from typing import Protocol

from ._kernel import after_fork


class Closable(Protocol):
    """What this module calls of an attached endpoint."""

    def forked(self) -> bool:
        """Whether this is a child of the process that attached."""

    def close(self) -> None:
        """Leave the bus."""

    def forget_in_child(self) -> None:
        """In a forked child: close the copies of what only the parent may have open."""


live: weakref.WeakSet[Closable] = weakref.WeakSet()
"""The attached endpoints of this process."""

attaching: weakref.WeakSet[contextlib.ExitStack] = weakref.WeakSet()
"""What undoes the attaches that are under way: the exit ends other threads in their midst."""


def _at_exit() -> None:
    """Close endpoints while threads can still take the GIL."""
    for undo in list(attaching):
        with contextlib.suppress(Exception):
            undo.close()
    for endpoint in list(live):
        if endpoint.forked():
            continue
        with contextlib.suppress(Exception):
            endpoint.close()


def _after_fork() -> None:
    after_fork()
    for endpoint in list(live):
        endpoint.forget_in_child()
    live.clear()
    attaching.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
