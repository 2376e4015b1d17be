"""A payload that cannot be encoded or decoded."""

from __future__ import annotations

from .groups import NotAccepted, PeerFailed, UsageError
from .phrases import at, of_size


class EncodeError(NotAccepted):
    """A payload cannot be encoded; raised where it was to be sent."""

    type: str
    reason: str
    size: int | None = None
    """Bytes, where known."""
    index: int | None = None
    """Which message of a batch."""

    def _explain(self) -> str:
        return (
            f"{at(self.index)}payload{of_size(self.size)} of {self.type!r} cannot be encoded: "
            f"{self.reason}. Send bytes, plain values or msgspec Structs; for other types attach "
            "with encode="
        )


class DecodeError(PeerFailed):
    """A payload is not what its receiver expects; raised at the receiver. Where a handler raises
    it, its requester gets it as a `RemoteError`."""

    type: str
    reason: str
    size: int | None = None
    """Bytes, where known."""

    def _explain(self) -> str:
        return (
            f"payload{of_size(self.size)} of {self.type!r} cannot be decoded: {self.reason}. Make "
            "sender and receiver agree: the annotation, payload_type= or attach(types=...)"
        )


class InvalidPayloadType(UsageError, TypeError):
    """A payload type that msgspec cannot decode to."""

    payload_type: str
    reason: str

    def _explain(self) -> str:
        return (
            f"no payload can be decoded to {self.payload_type}: {self.reason}. Use a msgspec "
            "Struct, a dataclass, or plain types such as dict[str, int]"
        )
