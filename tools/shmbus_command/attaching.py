"""Attaching to a bus, and waiting for it or for receivers before."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shmbus_console.options import seconds_option

from shmbus import BusView, Endpoint, Settings, attach, errors, observe

wait_for_bus = seconds_option("--wait", help="First wait so long at most until the bus runs.")


def running_bus(bus: str | None, wait: float | None = None) -> str:
    """The name of the bus. Raises where it does not run, or not within ``wait`` seconds."""
    end = time.monotonic() + (wait or 0.0)
    while True:
        problem: errors.BusError
        try:
            with observe(bus) as view:
                info = view.info()
            if info.alive:
                return info.name
            problem = errors.BusDown(bus=info.name, reason="its dispatcher is dead", pid=info.pid)
        except errors.NoSuchBus as missing:
            problem = missing
            if missing.bus is None and missing.running:  # several
                raise
        if time.monotonic() >= end:
            raise problem
        time.sleep(0.05)


def attach_now(
    bus: str | None,
    role: str,
    wait: float | None = None,
    *,
    reconnect: bool = False,
    settings: Settings | None = None,
) -> Endpoint:
    """Attach. Unlike `shmbus.attach`, which waits for the bus, fail at once where there is none,
    unless ``wait`` is given."""
    found = running_bus(bus, wait)
    name = f"shmbus-{role}-{os.getpid()}"
    return attach(found, name=name, reconnect=reconnect, settings=settings)


def _received(bus: BusView, type: str, role: str) -> bool:
    """Whether an endpoint has this role for the type, and the dispatcher routes by it."""
    routed = {endpoint.name for endpoint in bus.find(type) if endpoint.routed}
    return any(r.role == role and r.endpoint in routed for r in bus.route(type).receivers)


@contextmanager
def attach_to(
    bus: str | None, role: str, type: str, wanted: str, wait: float | None
) -> Iterator[Endpoint]:
    """An endpoint; with ``wait``, once an endpoint subscribes to the type or handles it."""
    end = time.monotonic() + (wait or 0.0)
    with attach_now(bus, role, wait) as endpoint:
        while wait is not None and not _received(endpoint.bus, type, wanted):
            if time.monotonic() >= end:
                raise errors.WaitTimeout(pattern=type, receivers=1, found=0, seconds=wait)
            time.sleep(0.005)
        yield endpoint
