"""What a supervisor knows of one process: its state, its run, and what is to follow."""

from __future__ import annotations

import time
from typing import Literal

from shmbus.shared._kernel import monotonic
from shmbus.shared.exits import Exit

from .child import Child
from .process import Process
from .restarts import Restarts
from .stand_in import StandIn
from .status import ProcessStatus, State

Then = Literal["stopped", "waiting", "restarting", "failed", "gone"]
"""What a process is to be once it has been stopped; gone: not under this supervisor any more."""


class Unit:
    """One process. Only the supervisor's thread changes it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.state: State = "waiting"
        self.since, self.at = time.time(), monotonic()
        """When its state began, by both clocks."""
        self.reason = ""
        self.child: Child | None = None
        self.stand_in: StandIn | None = None
        self.exit = Exit()
        self.ended = ""
        """How it ended last, in words."""
        self.restarts = Restarts(process.backoff)
        self.due = 0.0
        """When it is started again, or when the next step of its stop is due, by the monotonic
        clock."""
        self.steps = 0
        """Of its stop: how many were taken."""
        self.then: Then = "stopped"
        """What follows its stop."""
        self.why = ""
        """The reason of that."""
        self.awake = not self.activated
        """Whether it is to run; False: not until there is a message."""
        self.overdue = False
        """Whether it is killed because a handler took too long."""

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def activated(self) -> bool:
        """Whether the first message starts it."""
        return self.process.start == "first message"

    @property
    def kept(self) -> bool:
        """Whether the kernel keeps it, though it was killed: nobody waits for it any more, and
        none is started in its place before it has ended."""
        return self.state == "failed" and self.child is not None

    def set(self, state: State, reason: str = "") -> None:
        """Change its state."""
        if (state, reason) != (self.state, self.reason):
            if state != self.state:
                self.since, self.at = time.time(), monotonic()
            self.state, self.reason = state, reason

    def status(self) -> ProcessStatus:
        """What is told of it, without its endpoints."""
        child = self.child
        return ProcessStatus(
            name=self.name,
            state=self.state,
            since=self.since,
            reason=self.reason,
            pid=None if child is None else child.pid,
            adopted=child is not None and child.adopted,
            restarts=self.restarts.total,
            code=self.exit.code,
            signal=self.exit.signal,
            ended=self.ended,
        )
