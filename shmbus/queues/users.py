"""This process as a user of queues: what it has of them, keeps for its children, and leaves.

A queue counts its users. Each object of it in a process is one; so is a child from the moment in
which it is forked, or the queue is pickled for it: a row is pledged to it before. The pledge is
the parent's until it knows the child that it has started; then it ends with that child.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import context, popen_fork, util
from typing import Any

from shmbus.errors import BusError

from ._kernel import QueueCore

_LAST = -100  # among multiprocessing's finalizers: after it has joined its children

_here: weakref.WeakSet[QueueCore[Any]] = weakref.WeakSet()
"""The queues of this process."""

_pledged: list[tuple[QueueCore[Any], int]] = []
"""While it forks: the row that it keeps of each for the child."""


def keep(queue: QueueCore[Any]) -> None:
    """This process has it from now on, until it is closed or goes."""
    _here.add(queue)


def being_made() -> Callable[[], int | None] | None:
    """Says which child it is for which something is pickled just now: its pid, 0 if it has ended,
    None until that is known; None in its place where it never will be."""
    child = context.get_spawning_popen()
    if not isinstance(child, popen_fork.Popen):
        return None
    known = weakref.ref(child)

    def pid() -> int | None:
        child = known()
        if child is None:  # its parent knows that it has ended, or it was never made
            return 0
        if not hasattr(child, "pid"):
            return None
        return child.pid if child.poll() is None else 0

    return pid


def used() -> set[str]:
    """The names of the queues that this process uses."""
    return {queue.name for queue in list(_here) if not queue.closed}


def _leave_all() -> None:
    """At the end of this process, whose children have ended."""
    for queue in list(_here):
        queue._leave(at_exit=True)


def _leave_at_exit() -> None:
    util.Finalize(None, _leave_all, exitpriority=_LAST)


def _before_fork() -> None:
    for queue in list(_here):
        with suppress(BusError):  # closed; or one that the child meets itself, when it uses it
            _pledged.append((queue, queue._keep_row()))


def _in_child() -> None:
    for queue, row in _pledged:
        with suppress(BusError):
            queue._use(row)
    _pledged.clear()
    _leave_at_exit()


os.register_at_fork(before=_before_fork, after_in_parent=_pledged.clear, after_in_child=_in_child)
util.register_after_fork(_here, lambda _: _leave_at_exit())  # it clears its finalizers in children
_leave_at_exit()
