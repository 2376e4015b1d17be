"""Other sites and the endpoints there, as a link of this bus notes them.

A note is made into what a view returns when it is read, not each time that somebody looks: there
may be many thousands.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from shmbus.shared.sites import EndpointNote, Note, SiteNote

from .facts import Counts, EndpointInfo, Losses, Ring, SiteInfo

_RINGS = "incoming incoming_replies incoming_urgent outgoing outgoing_replies"
_COUNTED = (
    "untouched unforwarded in_hand overruns held prefetch receivers pending pending_limit "
    "forwarded lost redelivered undeliverable unrouted orphans expired withdrawn streaming "
    "handler_errors decode_errors timeouts let_go nacked"
)
_UNKNOWN: dict[str, Any] = {
    **dict.fromkeys(_COUNTED.split(), 0),
    **dict.fromkeys(_RINGS.split(), Ring(depth=0, capacity=0, high=0)),
}


class Noted:
    """What one link notes."""

    def __init__(self, link: str) -> None:
        self._link = link
        self._sites: dict[int, SiteInfo] = {}
        self._endpoints: dict[int, EndpointInfo] = {}

    def put(self, identifier: int, note: Note | None) -> None:
        """It writes this note under that id, or (None) removes the one that is there."""
        self._sites.pop(identifier, None)
        self._endpoints.pop(identifier, None)
        if isinstance(note, SiteNote):
            self._sites[identifier] = _site(note, self._link)
        elif note is not None:
            self._endpoints[identifier] = _endpoint(note)

    def sites(self) -> list[SiteInfo]:
        """The sites that it knows, its own included."""
        return list(self._sites.values())

    def endpoints(self) -> list[EndpointInfo]:
        """The endpoints of other sites."""
        return list(self._endpoints.values())


def _site(note: SiteNote, link: str) -> SiteInfo:
    facts = asdict(note)
    return SiteInfo(name=facts.pop("site"), link=link, **facts)


def _endpoint(note: EndpointNote) -> EndpointInfo:
    interests = note.as_interests()
    return EndpointInfo(
        name=note.full_name,
        site=note.site,
        host=note.host,
        pid=note.pid,
        slot=-1,
        generation=0,
        state="attached",
        reason="",
        stalled=False,
        stopped=False,
        slow=False,
        since=note.since,
        last_progress=None,
        patterns=tuple(dict.fromkeys(i.pattern for i in interests)),
        groups=tuple(dict.fromkeys(i.group for i in interests if i.group is not None)),
        interests=interests,
        routed=True,
        oldest=None,
        oldest_unforwarded=None,
        in_hand_seconds=0.0,
        overdue=(),
        looped=False,
        sent=Counts(),
        received=Counts(),
        lost_by=Losses(),
        **_UNKNOWN,
    )
