"""Calls that stand behind one that takes long are taken back, for a worker that is free.

The bus gives a worker some calls ahead where they are short, and one of them may turn out long; it
may even wait for one behind it. The worker is halted meanwhile, and told before it gets on: so what
is taken back is begun by nobody else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from shmbus import errors
from shmbus.endpoint._kernel import until
from shmbus.shared._kernel import monotonic_ns

from .stopping import Halted

if TYPE_CHECKING:
    from .line import Line, Sent

LONG = 10_000_000
"""Nanoseconds after which a call is looked for."""

MOST = 160_000_000
"""Nanoseconds between two looks, where nothing was found."""

TOLD = 0.2
"""Seconds for which the dispatcher is waited for, with the worker halted."""


class Recalling:
    """Those of one executor. `ready`: how many workers can take calls."""

    def __init__(self, line: Line, ready: Callable[[], int]) -> None:
        self._line, self._ready = line, ready
        self._next, self._pause = 0, LONG

    def look(self) -> None:
        """Take back what stands behind others, if it is time to look."""
        now = monotonic_ns()
        if now < self._next:
            return
        old = [s for s in list(self._line.under_way) if s.since < now - LONG and s._begun]
        found = len(old) > 1 and self._take_back(old)
        self._pause = LONG if found or len(old) < 2 else min(2 * self._pause, MOST)
        self._next = now + self._pause

    def _take_back(self, old: list[Sent]) -> bool:
        busy: set[int] = set()
        behind: defaultdict[int, list[Sent]] = defaultdict(list)
        for sent in old:
            _, pid, begun = sent._holder()
            if pid is not None and begun:
                busy.add(pid)
            elif pid is not None:
                behind[pid].append(sent)
        found = [pid for pid in behind if pid in busy]
        if not found or len(busy) >= self._ready():
            return False
        for pid in found:
            self._recall(pid, behind[pid])
        self._line.come()
        return True

    def _recall(self, pid: int, behind: list[Sent]) -> None:
        with Halted(pid):
            for sent in reversed(behind):
                if sent._holder()[1:] == (pid, False):
                    sent.cancel()
            try:  # what is asked after them is answered after they were passed on
                self._line.requests.query(self._line.type, until(TOLD, None))
            except errors.BusError:
                pass
