"""What a supervisor says of its processes."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal[
    "waiting", "asleep", "running", "restarting", "stopping", "stopped", "ended", "failed"
]
"""Of a process."""


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A process under a supervisor, at one moment."""

    name: str
    """Its name."""
    state: State
    """waiting (for what it needs), asleep (until the first message), running, restarting (it has
    ended, and is started again soon), stopping, stopped (somebody stopped it), ended (by itself,
    and for good), or failed (given up)."""
    since: float
    """When that began, in seconds since 1970."""
    reason: str = ""
    """What it waits for; what it does not handle though it should; why it is started again or has
    failed."""
    pid: int | None = None
    """While it runs."""
    adopted: bool = False
    """Whether it was started by a supervisor before this one."""
    attached: tuple[str, ...] = ()
    """Its endpoints on the bus, while it runs."""
    restarts: int = 0
    """How often it was started again because it had ended."""
    code: int | None = None
    """With which it ended last; None: not yet, by a signal, or not known, since a supervisor before
    this one had started it."""
    signal: str = ""
    """Which ended it last, such as SIGKILL; empty: none, or not known."""
    ended: str = ""
    """How it ended last, in words; empty: not yet."""


class ProcessEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What has happened to a process: the payload of ``supervisor.process`` events."""

    name: str
    """The process."""
    what: Literal["started", "adopted", "exited", "failed", "stopped"]
    """exited: it has ended, and what follows is told by the next one; failed: it is given up;
    stopped: it has ended as it was told to."""
    pid: int | None = None
    """Which it has, or had."""
    code: int | None = None
    """With which it exited, as far as that is known."""
    signal: str = ""
    """Which ended it."""
    reason: str = ""
    """Why, in words."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line that a process has written to its standard output or error."""

    name: str
    """The process."""
    number: int
    """Counted from 1, for each process and supervisor."""
    time: float
    """When it was read, in seconds since 1970."""
    text: str
    """Without the line break. What is no UTF-8 is replaced; a line of more than 16 KiB comes in
    parts."""
