"""A message that does not permit what its receiver does with it."""

from __future__ import annotations

from uuid import UUID

from .groups import UsageError


class NotARequest(UsageError):
    """An event or a command cannot be answered."""

    type: str
    kind: str
    """Event or send."""

    def _explain(self) -> str:
        return (
            f"{self.type!r} came as {self.kind}, which takes no reply. Let its sender use request()"
        )


class AlreadyReplied(UsageError):
    """A request has been answered before."""

    type: str
    correlation_id: UUID | None = None

    def _explain(self) -> str:
        return (
            f"{self.type!r} ({self.correlation_id}) has been answered already. Reply once: by "
            "returning, by reply() or by fail(); call defer() in the handler to answer later"
        )


class CannotNack(UsageError):
    """A message cannot be given back."""

    endpoint: str
    type: str
    reason: str
    remedy: str

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} cannot give {self.type!r} back: {self.reason}. "
            f"{self.remedy}"
        )


class PayloadReleased(UsageError):
    """The payload of a message was let go of before."""

    type: str
    size: int
    """Bytes that it had."""

    def _explain(self) -> str:
        return (
            f"the payload of {self.type!r} ({self.size} bytes) has been released. Read "
            "message.payload before message.release(), and copy what is needed for longer"
        )
