"""Buses that are joined across machines, or cannot be."""

from __future__ import annotations

from .groups import Disconnected, SetupError, UsageError
from .phrases import duration


class LinkFailed(SetupError):
    """A link could not be started, or cannot go on: its session with other machines."""

    bus: str
    site: str
    reason: str
    remedy: str

    def _explain(self) -> str:
        return f"the link of site {self.site!r} to bus {self.bus!r}: {self.reason}. {self.remedy}"


class SiteTaken(SetupError):
    """Another link that is alive has this site's name."""

    space: str
    site: str
    run: str
    """Which run of a link that is."""
    seconds: float
    """For how long this one waited for the other's end."""

    def _explain(self) -> str:
        return (
            f"space {self.space!r} has a site {self.site!r} already, whose link (run {self.run}) "
            f"did not end within {duration(self.seconds)}. Give this bus another site, or end that "
            "link"
        )


class NoSuchSite(UsageError, LookupError):
    """No site of that name is up in the space."""

    space: str
    site: str
    there: tuple[str, ...] = ()
    """Those that are."""

    def _explain(self) -> str:
        there = ", ".join(self.there) or "none"
        return (
            f"no site {self.site!r} is up in space {self.space!r}; up: {there}. Name one of those, "
            "or start its link"
        )


class LinkClosed(Disconnected):
    """This process closed the link, or it has ended."""

    site: str
    reason: str = ""

    def _explain(self) -> str:
        why = f": {self.reason}" if self.reason else " here"
        return f"the link of site {self.site!r} has been closed{why}. Start it anew: shmbus.link()"
