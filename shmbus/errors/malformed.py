"""Names, types, patterns and settings that cannot be used."""

from __future__ import annotations

from shmbus.limits import MAX_NAME, MAX_SITE, MAX_TYPE

from .groups import UsageError
from .phrases import named_by


class InvalidName(UsageError, ValueError):
    """A name of a bus, endpoint, group, site or space that cannot be used."""

    name: str
    what: str = "endpoint"
    """Whose name: bus, endpoint, group, site or space."""
    reason: str
    variable: str = ""
    """The environment variable that gave it, if one did."""

    def _explain(self) -> str:
        most = MAX_SITE if self.what in ("site", "space") else MAX_NAME
        return (
            f"{self.name!r} cannot name a{'n' if self.what[0] in 'aeiou' else ''} {self.what}: "
            f"{self.reason}. Use 1 to {most} of A-Z a-z 0-9 '_' '-' '.'"
            f"{named_by(self.variable)}"
        )


class InvalidType(UsageError, ValueError):
    """A message type that cannot be published, sent or requested."""

    type: str
    reason: str

    def _explain(self) -> str:
        return (
            f"{self.type!r} is not a message type: {self.reason}. Use tokens of A-Z a-z 0-9 _ - "
            f"between dots, at most {MAX_TYPE} bytes, as in 'buffer.12.changed'"
        )


class InvalidPattern(UsageError, ValueError):
    """A pattern that cannot be subscribed to or handled."""

    pattern: str
    reason: str

    def _explain(self) -> str:
        return (
            f"{self.pattern!r} is not a pattern: {self.reason}. Use a message type in which a "
            "token may be '*' (any one token) and the last may be '>' (one or more), as in "
            "'buffer.*.changed' or 'buffer.>'"
        )


class InvalidSetting(UsageError, ValueError):
    """A setting out of its range."""

    setting: str
    value: object
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"{self.setting}={self.value!r}: {self.reason}. {self.remedy}"
