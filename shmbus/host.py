"""Hosting a bus in a process that does nothing else, until a signal ends it. Public."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .bus import Bus, serve
from .settings import Settings
from .shared import shortage
from .shared.signals import awaited, uninterrupted

__all__ = ["host", "summary", "uninterrupted"]


class Option(NamedTuple):
    """A setting of a bus that whoever serves it from a command line may give."""

    setting: str
    """A field of `Settings`."""
    unit: str
    """BYTES, SECONDS or N."""
    help: str

    @property
    def name(self) -> str:
        """On a command line."""
        return "--" + self.setting.replace("_", "-")

    @property
    def type(self) -> type[int] | type[float]:
        """Of its value."""
        return float if self.unit == "SECONDS" else int

    @property
    def default(self) -> Any:
        """What `Settings` has where it is not given; None: that depends on other settings."""
        return getattr(Settings(), self.setting)


OPTIONS = (
    Option(
        "in_bytes",
        "BYTES",
        "Bytes of each endpoint's ring for what it gets; a power of two, like those below. A "
        "message takes at most a quarter of each ring that it passes.",
    ),
    Option("out_bytes", "BYTES", "Bytes of the ring for what it sends."),
    Option("reply_bytes", "BYTES", "Bytes of each of its two rings for replies."),
    Option("max_endpoints", "N", "Endpoints at a time."),
    Option(
        "max_requests",
        "N",
        "Requests of one endpoint in flight at a time; by default 512, or fewer where its rings "
        "for replies hold no more.",
    ),
    Option(
        "block_timeout", "SECONDS", "How long a receiver whose ring is full may delay its senders."
    ),
    Option(
        "stall_after",
        "SECONDS",
        "After how long an endpoint that takes nothing counts as stalled.",
    ),
    Option(
        "prefetch",
        "N",
        "Messages that an endpoint may have untouched and in hand while others could have them.",
    ),
    Option(
        "backlog_bytes",
        "BYTES",
        "Bytes of each backlog, where work waits until somebody is free; by default as --in-bytes.",
    ),
    Option(
        "max_deliveries",
        "N",
        "Times that a group's message is begun, when those who began it die or give it back.",
    ),
)
"""Those of `python -m shmbus` and of `shmbus serve`."""


def host(
    name: str,
    *,
    settings: Settings | None = None,
    replace: bool = False,
    handover: bool = False,
    ready: Callable[[Bus], None] = lambda bus: None,
) -> None:
    """Serve a bus until SIGINT or SIGTERM, then end it; with ``handover``, leave it for the next
    `serve` to adopt. ``ready`` is called once it can be attached to. Call it in the main thread.

    Raises what `shmbus.serve` raises.
    """
    with contextlib.ExitStack() as block:
        with shortage.told(name, "pipe to learn of signals by"):
            signalled = block.enter_context(awaited())
        bus = serve(name, settings=settings, replace=replace)
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
    messages, replies = info.record_limit // 1024, info.reply_limit // 1024
    room = f"messages up to {messages} KiB, replies up to {replies} KiB"
    began = time.strftime("%H:%M:%S", time.localtime(info.since))
    served = f"bus {info.name} is served by process {info.pid} since {began}"
    return f"{served}: up to {info.slots} endpoints, {room}"
