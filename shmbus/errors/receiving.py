"""What an endpoint is to receive, or how, does not go with what it or others receive."""

from __future__ import annotations

from shmbus.limits import GROUPS

from .groups import UsageError


class HandlerConflict(UsageError):
    """One endpoint handles the same pattern twice."""

    endpoint: str
    pattern: str

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} handles {self.pattern!r} already. Remove one of both "
            "handlers, or make one pattern more specific"
        )


class ReceiveConflict(UsageError):
    """An endpoint's messages are received in two ways that exclude each other."""

    endpoint: str
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"endpoint {self.endpoint!r}: {self.reason}. {self.remedy}"


class TooManyGroups(UsageError):
    """One endpoint is a member of too many groups."""

    endpoint: str
    group: str
    limit: int = GROUPS - 1

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r} cannot join group {self.group!r}: it is in {self.limit} "
            "groups. Attach a second endpoint for more"
        )


class GroupConflict(UsageError):
    """An endpoint would be a member of a group whose others have another key, or none."""

    endpoint: str
    group: str
    key: str | None
    """Which it gave."""
    theirs: str | None = None
    """That of the other members."""
    limit: int | None = None
    """There are so many groups with a key, and no more can be; None: that is not it."""

    def _explain(self) -> str:
        if self.limit is not None:
            why = f"there are {self.limit} groups with a key on this bus, and no more can be"
            remedy = "Let members of some of them share a group"
        else:
            why = f"its members have {self._said(self.theirs)}, this one {self._said(self.key)}"
            remedy = "Give all members the same pattern and key, or this one another group"
        return f"endpoint {self.endpoint!r} cannot join group {self.group!r}: {why}. {remedy}"

    @staticmethod
    def _said(key: str | None) -> str:
        return "no key" if key is None else f"the key {key!r}"


class TooManyMailboxes(UsageError):
    """No mailbox is left for a subscription that is to lose what has waited longest."""

    endpoint: str
    pattern: str
    limit: int
    what: str
    """Whose limit that is: endpoint or bus."""

    def _explain(self) -> str:
        remedy = "Let fewer patterns cover more types"
        if self.what == "endpoint":
            remedy += ", or attach a second endpoint for more"
        return (
            f"endpoint {self.endpoint!r} gets no mailbox for {self.pattern!r}: "
            f"{'it' if self.what == 'endpoint' else 'its bus'} has {self.limit} of them. {remedy}"
        )
