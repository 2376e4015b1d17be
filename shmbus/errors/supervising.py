"""Processes that cannot be supervised, or are not any more."""

from __future__ import annotations

from .groups import Disconnected, UsageError


class InvalidProcess(UsageError, ValueError):
    """A process that cannot be supervised."""

    process: str
    """Its name."""
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"process {self.process!r} cannot be supervised: {self.reason}. {self.remedy}"


class NoSuchProcess(UsageError, LookupError):
    """The supervisor has no process of that name."""

    bus: str
    process: str
    there: tuple[str, ...] = ()
    """Those that it has."""

    def _explain(self) -> str:
        there = ", ".join(self.there) or "none"
        return (
            f"the supervisor of bus {self.bus!r} has no process {self.process!r}; it has: {there}. "
            "Name one of those"
        )


class SupervisorClosed(Disconnected):
    """This process closed the supervisor."""

    bus: str

    def _explain(self) -> str:
        return (
            f"the supervisor of bus {self.bus!r} has been closed here, and its processes with it. "
            "Start them anew: shmbus.supervise()"
        )
