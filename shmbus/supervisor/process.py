"""What is said of a process that is to run, before it does."""

from __future__ import annotations

from typing import Literal

import msgspec

from shmbus.shared.grants import Grant


class Backoff(msgspec.Struct, frozen=True, kw_only=True):
    """How long a process that ends stays ended before it is started again, and how often."""

    first: float = 0.1
    """Seconds before the second restart in a row; the first is at once. It doubles each time."""
    longest: float = 10.0
    """Seconds at most."""
    limit: int = 10
    """Restarts within ``within`` seconds after which it is given up: it stays ``failed``."""
    within: float = 60.0
    """Seconds; who has run for so long begins anew."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process for `supervise`: what runs, and when it is started, restarted and stopped."""

    name: str
    """Unique among the processes of a bus. An endpoint of that name is expected in it, unless
    ``endpoints`` names others."""
    command: tuple[str, ...] = ()
    """The program and its arguments; or `target`."""
    target: str = ""
    """``module:function``, called in a new interpreter without arguments; or `command`."""
    needs: tuple[str, ...] = ()
    """Patterns that somebody has to handle before it is started."""
    restart: Literal["always", "on-failure", "never"] = "always"
    """When it is started again after it has ended."""
    backoff: Backoff = Backoff()
    """How soon, and how often."""
    group: str | None = None
    """Processes of a group are restarted together: one of them ends, all others are stopped and
    all started in order."""
    start: Literal["now", "first message"] = "now"
    """Whether it is started with the bus, or by the first message for one of ``on``."""
    on: tuple[str, ...] = ()
    """The patterns that it handles, for ``start="first message"``."""
    overdue: Literal["tell", "restart"] = "tell"
    """What follows when a handler of it takes longer than its limit: with ``restart`` it is killed
    and started again."""
    grant: Grant | None = None
    """What its endpoints may do; None: all."""
    endpoints: tuple[str, ...] = ()
    """Names by which it may attach, as patterns of `fnmatch`; none: its own name."""
    environment: dict[str, str] = {}
    """Added to that of the supervisor. SHMBUS_BUS is always there, so `shmbus.attach()` needs no
    name."""
    directory: str | None = None
    """In which it runs; None: in that of the supervisor."""
    stop_timeout: float = 5.0
    """Seconds that it has to end by itself after it was told, and again after SIGTERM."""
