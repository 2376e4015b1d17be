"""The groups by which errors are caught, where all of a group are treated alike.

`DrainTimeout` is in none: no peer failed, and the endpoint is closed as it should be. Nor is
`Forbidden`, which any call may meet, attach as well as publish.
"""

from __future__ import annotations

from .error import BusError


class NotAccepted(BusError):
    """A message was not accepted: no endpoint will get it."""


class PeerFailed(BusError):
    """What another endpoint had to do was not done, or not in time."""


class RequestError(PeerFailed):
    """A request ended without a reply."""

    type: str


class Disconnected(BusError):
    """An endpoint or a view is not connected to its bus any more."""


class SetupError(BusError):
    """A bus could not be attached to, served or observed."""


class AttachError(SetupError):
    """The bus could not be attached to."""

    bus: str | None


class UsageError(BusError):
    """The bus was used in a way that cannot work."""
