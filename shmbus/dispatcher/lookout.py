"""Deaths as psutil reports them, for endpoints without a pidfd.

Linux before 5.3 has none, and some sandboxes forbid them. There the liveness thread reads only the
flags of the tasks; this is a second check, of what any Linux shows of a process. It costs some
40 µs per endpoint and look.
"""

from __future__ import annotations

import psutil

from shmbus.shared import processes
from shmbus.shared._kernel import monotonic
from shmbus.shared.names import Owner

_ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class Lookout:
    """The processes to look at, by slot. For the control thread alone."""

    PACE = 0.05
    """Seconds from one look to the next."""

    def __init__(self) -> None:
        self._watched: dict[int, Owner] = {}
        self._looked = 0.0

    def add(self, slot: int, owner: Owner) -> None:
        """Look at this process from now on."""
        self._watched[slot] = owner

    def discard(self, slot: int) -> None:
        self._watched.pop(slot, None)

    def __bool__(self) -> bool:
        return bool(self._watched)

    def ended(self) -> list[int]:
        """The slots whose process has ended, each once; looks every `PACE` seconds at most."""
        now = monotonic()
        if now - self._looked < self.PACE:
            return []
        self._looked = now
        gone = [slot for slot, owner in self._watched.items() if not _alive(owner)]
        for slot in gone:
            del self._watched[slot]
        return gone


def _alive(owner: Owner) -> bool:
    """False for a zombie, unless other threads than its first still run."""
    try:
        process = psutil.Process(owner.pid)
        if processes.start_time(owner.pid) not in (owner.start, 0):
            return False  # another process has its pid now
        if process.status() not in _ENDED:
            return True
        return any(_runs(thread.id) for thread in process.threads())
    except psutil.NoSuchProcess:  # or /proc hides it
        return processes.there(owner.pid)
    except (psutil.Error, OSError):  # unknown: taken for alive
        return True


def _runs(thread: int) -> bool:
    try:
        return bool(psutil.Process(thread).status() not in _ENDED)
    except psutil.NoSuchProcess:  # this thread has ended; others may run
        return False
