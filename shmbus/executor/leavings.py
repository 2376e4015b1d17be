"""What executors that were killed have left in /dev/shm: the buses that they served for themselves,
which nobody will serve again. The next executor removes them."""

from __future__ import annotations

import logging
import os
import re
import secrets
from contextlib import suppress

from shmbus.shared import names, processes
from shmbus.views.leavings import find_leavings, free_leaving

log = logging.getLogger("shmbus")

_MADE_UP = re.compile(r"pool-p([0-9]+)-[0-9a-f]{8}\Z")


def made_up() -> str:
    """A name for a pool that was given none."""
    return f"p{os.getpid()}-{secrets.token_hex(4)}"


def own_bus(pool: str) -> str:
    """The name of the bus that the executor of this pool serves for itself."""
    return f"pool-{pool}"


def remove_dead() -> None:
    """Remove what is provably not used any more of buses of executors with made-up names."""
    with suppress(OSError):
        for bus in {entry.bus for _, entry in names.entries() if entry.uid == os.geteuid()}:
            found = _MADE_UP.match(bus)
            if found and not processes.there(int(found[1])):
                for leaving in find_leavings(bus):
                    if leaving.removable and free_leaving(leaving):
                        log.info("removed bus %r, which a killed executor left", bus)
