"""Waiting for the end of other endpoints, as their rows in BUS show it.

The rows are polled, because the bus's events can be lost. No thread runs while nothing is waited
for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from shmbus.shared import _kernel
from shmbus.shared.layout import RowState
from shmbus.shared.messages import Death, reason_word

from .background import Background
from .flag import Flag

if TYPE_CHECKING:
    from ringbuf._kernel import Mapping

log = logging.getLogger("shmbus")

POLL = 0.02
"""Seconds between two looks."""

Callback = Callable[[Death], None]


class _Watched(NamedTuple):
    """Whose death is waited for; `slot` is None where it was not attached in the first place."""

    name: str
    callback: Callback
    slot: int | None
    generation: int
    pid: int | None


class DeathWatch:
    """Calls back once for each endpoint that ends, in a thread of its own, with no lock held.

    `rows` is the mapping of BUS, `label` the endpoint for which it watches, and `done` is set when
    that one closes.
    """

    def __init__(self, label: str, rows: Mapping, done: Flag) -> None:
        self._label, self._rows, self._done = label, rows, done
        self._lock = threading.RLock()  # a signal's handler may call `add` in the midst of it
        self._keys = count()
        self._watched: dict[int, _Watched] = {}
        self._thread = Background(label, "deaths", self._watch)

    def add(self, name: str, callback: Callback) -> Callable[[], object]:
        """Wait for the end of the endpoint that has this name now; returns what
        cancels that. Raises `NoThread`."""
        row = _kernel.find_row(self._rows, name)
        with self._lock:
            key = next(self._keys)
            self._watched[key] = (
                _Watched(name, callback, row.slot, row.generation, row.pid)
                if row
                else _Watched(name, callback, None, 0, None)
            )
            try:
                self._thread.ensure()
            except BaseException:
                del self._watched[key]
                raise
        return lambda: self._forget(key)

    def _forget(self, key: int) -> bool:
        with self._lock:
            return self._watched.pop(key, None) is not None

    def _watch(self) -> None:
        while True:
            with self._lock:
                watched = list(self._watched.items())
                if not watched:
                    self._thread.leave()
                    return
            for key, one in watched:
                reason = self._end_of(one)
                if self._done.is_set():  # after the look: the rows are given back at the end
                    return
                if reason is None or not self._forget(key):
                    continue
                try:
                    one.callback(Death(name=one.name, pid=one.pid, reason=reason))
                except BaseException:  # sys.exit() included: others are waited for, too
                    log.exception("endpoint %r: on_death(%r) raised", self._label, one.name)
            if self._done.wait(POLL):
                return

    def _end_of(self, one: _Watched) -> str | None:
        """Why it is gone, or None while it is there."""
        if one.slot is None:
            return "absent"
        row = _kernel.read_row(self._rows, one.slot)
        if row is None:  # just being written
            return None
        if row.generation != one.generation:
            return "died"  # the slot has a new holder, and the reason was overwritten
        if row.state in (RowState.LIVE, RowState.LEAVING):
            return None
        return reason_word(row.reason)
