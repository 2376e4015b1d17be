"""Processes that lost their parent, and become children of this one: reaped when they end.

As a container's first process, `shmbus up` gets each orphan there is. Elsewhere it asks for those
that its processes leave, as a "child subreaper", so that it is the same in both places.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PAUSE = 0.005  # seconds between two looks at what is to end


def adopt() -> None:
    """Have orphans below this process become its children."""
    with contextlib.suppress(OSError, AttributeError):  # as the first process it gets them anyway
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Orphans:
    """Reaps them. Who has started a child waits for it, and needs to learn how it ended; so one
    that ended is reaped here when nobody else has within ``patience`` seconds, and never one of
    ``others``."""

    def __init__(self, others: Callable[[], Collection[int]], patience: float = 1.0) -> None:
        self._others, self._patience = others, patience
        self._seen: dict[int, float] = {}  # by pid, when it was first seen to have ended

    def reap(self) -> list[int]:
        """Reap those that are due; returns them. Call it now and then."""
        now = time.monotonic()
        ended = set(filter(_has_ended, children()))
        self._seen = {pid: self._seen.get(pid, now) for pid in ended.difference(self._others())}
        due = [pid for pid, since in self._seen.items() if now - since >= self._patience]
        return [pid for pid in due if _reap(pid)]

    def end(self) -> None:
        """End those that are left, and what they leave: by SIGTERM, and by SIGKILL what has not
        ended within ``patience`` seconds. Takes twice that at most."""
        self._signal(signal.SIGTERM, once=True)
        self._signal(signal.SIGKILL, once=False)

    def _signal(self, number: signal.Signals, *, once: bool) -> None:
        end, sent = time.monotonic() + self._patience, set[int]()
        while (left := set(children()).difference(self._others())) and time.monotonic() < end:
            for pid in left:
                if not _reap(pid) and not (once and pid in sent):
                    with contextlib.suppress(PermissionError):  # it runs as somebody else
                        os.kill(pid, number)  # not reaped, so no other process has that pid
                    sent.add(pid)
            time.sleep(_PAUSE)


def children() -> list[int]:
    """The children of this process."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has ended
            found += map(int, (task / "children").read_text().split())
    return found


def _has_ended(pid: int) -> bool:
    try:
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, pid, options) is not None
    except ChildProcessError:
        return False


def _reap(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False
