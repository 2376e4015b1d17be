"""A class that is served through a bus, and its callers: they do not agree."""

from __future__ import annotations

from .groups import UsageError
from .payloads import DecodeError
from .phrases import of_size
from .requests import RemoteError


class InvalidService(UsageError, TypeError):
    """A class or a method that cannot be offered to others, or called through a bus."""

    service: str
    """The prefix under which it was to be offered or called."""
    method: str | None = None
    reason: str
    remedy: str

    def _explain(self) -> str:
        what = self.service if self.method is None else f"{self.service}.{self.method}"
        return f"{what} cannot be offered or called: {self.reason}. {self.remedy}"


class InvalidArguments(RemoteError):
    """A service refused a call, because its arguments are not of the types that it expects."""

    def _explain(self) -> str:
        return (
            f"{self.type}: {self.message} (refused by endpoint {self.endpoint!r}). Make the caller "
            "and its class agree with the service (shmbus describe), or restart the older of both"
        )


class InvalidResult(DecodeError):
    """What a service returned is not of the type that the caller's class names."""

    endpoint: str
    """That served it."""

    def _explain(self) -> str:
        return (
            f"{self.type}: {self.reason} (payload{of_size(self.size)} from endpoint "
            f"{self.endpoint!r}). Make the service and the caller's class agree, or restart the "
            "older of both"
        )
