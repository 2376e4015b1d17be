"""What the system does not give, or cannot do."""

from __future__ import annotations

from .groups import SetupError


class SegmentError(SetupError):
    """A shared-memory segment, or a doorbell, could not be made, reserved or trusted. Raised from
    ringbuf's own error."""

    name: str
    reason: str
    remedy: str
    size: int | None = None
    """Bytes asked for."""
    free: int | None = None
    """Bytes free in /dev/shm."""

    def _explain(self) -> str:
        size = "" if self.size is None else f" ({self.size} bytes)"
        free = "" if self.free is None else f", {self.free} bytes are free"
        return f"segment {self.name!r}{size}: {self.reason}{free}. {self.remedy}"


class NoResource(SetupError):
    """The system gives this process no more descriptors, memory or address space."""

    bus: str | None
    what: str
    """What could not be had."""
    reason: str
    remedy: str

    def _explain(self) -> str:
        bus = "" if self.bus is None else f"bus {self.bus!r}: "
        return f"{bus}no {self.what} could be had: {self.reason}. {self.remedy}"


class NotSupported(SetupError):
    """This platform, interpreter or build cannot do it."""

    feature: str
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"{self.feature} is not supported: {self.reason}. {self.remedy}"


class NoThread(SetupError, RuntimeError):
    """The system gives this process no further thread."""

    endpoint: str | None = None
    task: str
    """What the thread was for."""
    reason: str
    bus: str | None = None
    """Whose dispatcher's, where it is no endpoint's."""

    def _explain(self) -> str:
        bus = "" if self.bus is None else f"bus {self.bus!r}: "
        endpoint = "" if self.endpoint is None else f"endpoint {self.endpoint!r}: "
        return (
            f"{bus}{endpoint}no thread could be started for its {self.task}: "
            f"{self.reason}. Raise the limit of threads (ulimit -u, pids.max of the container) or "
            "of memory (ulimit -v), then call again"
        )
