"""Hosting a bus in a process that does nothing else, until a signal ends it. Public."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable

from .bus import Bus, serve
from .settings import Settings, sized
from .shared import shortage
from .shared.grants import Grants
from .shared.signals import awaited, uninterrupted

__all__ = ["awaited", "host", "summary", "uninterrupted"]


def host(
    name: str,
    *,
    settings: Settings | None = None,
    replace: bool = False,
    handover: bool = False,
    grants: Grants | None = None,
    ready: Callable[[Bus], None] = lambda bus: None,
) -> None:
    """Serve a bus until SIGINT or SIGTERM, then end it; with ``handover``, leave it for the next
    `serve` to adopt. ``ready`` is called once it can be attached to. Call it in the main thread.

    Raises what `shmbus.serve` raises.
    """
    with contextlib.ExitStack() as block:
        with shortage.told(name, "pipe to learn of signals by"):
            signalled = block.enter_context(awaited())
        bus = serve(name, settings=settings, replace=replace, grants=grants)
        try:
            ready(bus)
            come = select.poll()  # select() takes no descriptor above 1023
            come.register(signalled, select.POLLIN)
            come.poll()
        finally:
            bus.close(handover=handover)


def summary(bus: Bus) -> str:
    """One line about what is served."""
    info = bus.info()
    room = f"payloads up to {sized(info.payload_limit)}"
    began = time.strftime("%H:%M:%S", time.localtime(info.since))
    served = f"bus {info.name} is served by process {info.pid} since {began}"
    return f"{served}: up to {info.slots} endpoints, {room}"
