"""What a test leaves in /dev/shm."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from shmbus.shared import names
from shmbus.shared.names import SHM
from shmbus.views import discovery

from .waiting import eventually


def in_shm(bus: str) -> list[str]:
    """What this user's bus of that name has in /dev/shm: segments, semaphores, lock and door."""
    prefix = names.names_of(bus).prefix
    return sorted(file for file in os.listdir(SHM) if file.removeprefix("sem.").startswith(prefix))


@contextlib.contextmanager
def no_leavings(bus: str, *, timeout: float = 10.0) -> Iterator[None]:
    """Fail if something of this bus is still in /dev/shm, `timeout` seconds after the block's end.
    It is removed then, so that the next test starts clean."""
    yield
    with contextlib.suppress(AssertionError):
        eventually(lambda: not in_shm(bus), timeout=timeout)
    fail_for(in_shm(bus), f"bus {bus!r} left in /dev/shm")


def fail_for(left: Iterable[str], what: str) -> None:
    left = list(left)
    for file in left:
        with contextlib.suppress(FileNotFoundError):
            (SHM / file).unlink()
    if left:
        raise AssertionError("\n    ".join([f"{what}:", *left]))


def of_this_process() -> set[str]:
    """What this process itself has in /dev/shm: its endpoints, and the buses that it serves."""
    served = {bus.name for bus in discovery.buses() if bus.pid == os.getpid()}
    return {
        path.name
        for path, entry in names.entries()
        if entry.uid == os.geteuid()
        and (entry.bus in served if entry.owner is None else entry.owner.pid == os.getpid())
    }
