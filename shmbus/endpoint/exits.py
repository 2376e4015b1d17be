"""The ends of processes: endpoints are closed at the exit, and given up in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from typing import TYPE_CHECKING

from ._kernel import after_fork

if TYPE_CHECKING:
    from .ending import Ending

live: weakref.WeakSet[Ending] = weakref.WeakSet()
"""Of the endpoints that are attached."""


def _at_exit() -> None:
    """Close endpoints while threads can still take the GIL."""
    for ending in list(live):
        if ending.forked():
            continue
        with contextlib.suppress(Exception):
            ending.close()


def _after_fork() -> None:
    after_fork()
    for ending in list(live):
        ending.forget_in_child()
    live.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
