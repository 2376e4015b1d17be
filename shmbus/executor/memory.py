"""How large arguments and results may be on the bus that an executor serves for itself: as all of
/dev/shm, since a process that calls `submit` has no settings to raise. Of these, as many can be
looked at without a copy as any endpoint can: programs keep results by the hundred."""

from __future__ import annotations

import os

from shmbus.limits import SHARES
from shmbus.settings import Settings
from shmbus.shared import names

_LARGEST = 1 << 40
"""Bytes of a pool that settings take."""


def settings() -> Settings:
    """Of such a bus. A pool's limit costs addresses and no memory."""
    system = os.statvfs(names.SHM)
    size = min(max(system.f_blocks * system.f_frsize, 1 << 20), _LARGEST)
    return Settings(pool_bytes=size, pool_total_bytes=size, loans=SHARES)
