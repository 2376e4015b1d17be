"""A process that hosts a bus and does nothing else, until it is told to end."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .bus import Bus, serve
from .settings import Settings


def host(
    name: str,
    *,
    settings: Settings | None = None,
    replace: bool = False,
    handover: bool = False,
    say: Callable[[Bus], None] = lambda bus: None,
) -> None:
    """Serve a bus until SIGINT or SIGTERM, then end it; with ``handover``, leave it for the next
    to adopt. ``say`` is called once it can be attached to. Call it in the main thread.

    Raises what `shmbus.serve` raises.
    """
    with _signals() as signalled:
        bus = serve(name, settings=settings, replace=replace)
        try:
            say(bus)
            select.select([signalled], [], [])
        finally:
            bus.close(handover=handover)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that can be read once SIGINT or SIGTERM came; meanwhile they do nothing else,
    so that they come neither between the making of the bus and its end, nor into that."""
    # Not by blocking them: a thread that a library started earlier would get them.
    signalled, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    told = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield signalled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(told)
        os.close(signalled)
        os.close(tell)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that SIGINT and SIGTERM do not tear apart: they come at its end. So a process that
    is started in it is known to whoever has to end it. Nothing changes outside the main thread,
    which no signal interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for interruption in came[:1]:
            signal.raise_signal(interruption)


def announcement(bus: Bus) -> str:
    """One line about what is served."""
    info = bus.info()
    rings = f"rings of {info.ring_bytes // 1024} KiB, up to {info.slots} endpoints"
    began = time.strftime("%H:%M:%S", time.localtime(info.since))
    return f"bus {info.name} is served by process {info.pid} since {began}: {rings}"
