"""What the bus itself publishes: the events on `$bus.>`, with their payloads.

A payload is a map, as of any event; subscribe with ``payload_type=`` one of these to get it as an
object. The dispatcher packs them in C (dispatcher/native/emit.h); a test compares both. Those of
links, `$bus.link.>`, a link publishes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from shmbus.shared import keys

__all__ = [
    "EVENTS",
    "EndpointDown",
    "EndpointForbidden",
    "EndpointOverdue",
    "EndpointResumed",
    "EndpointStalled",
    "EndpointUp",
    "GroupMember",
    "GroupRebalanced",
    "LinkDown",
    "LinkUp",
    "Lost",
    "RoutesChanged",
    "Undeliverable",
]


class EndpointUp(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint has attached."""

    name: str
    """Its name."""
    pid: int
    """Its process."""
    generation: int
    """A number that no other endpoint of this bus has or had."""


class EndpointDown(EndpointUp, frozen=True, kw_only=True):
    """An endpoint has ended, in good order or not."""

    reason: str
    """Why, as far as it is known, in one of the words of `shmbus.Death.reason`."""


class EndpointStalled(EndpointUp, frozen=True, kw_only=True):
    """An endpoint takes no messages any more. It keeps those that it has; new ones
    for its groups and handlers go to other members and handlers, where there are any."""

    reason: str
    """By what: its process is stopped, or messages wait and none is in hand."""


class EndpointResumed(EndpointUp, frozen=True, kw_only=True):
    """An endpoint that was stalled takes messages again."""

    reason: str
    """By what: its process was continued, or it made progress."""


class EndpointOverdue(EndpointUp, frozen=True, kw_only=True):
    """A handler or callback has taken longer than its limit (`handle(limit=...)`,
    `subscribe(limit=...)`). Published once for each message, at the moment when that is so."""

    type: str
    """Of the message."""
    kind: Literal["event", "send", "request"]
    """Of the message: a request has ended with `HandlerTimeout`, an event or a command goes on."""
    source: str
    """The endpoint that sent it; of another site as ``camera@paris``."""
    limit: float
    """Seconds that it may take."""
    seconds: float
    """For how long it has run."""


class EndpointForbidden(EndpointUp, frozen=True, kw_only=True):
    """An endpoint tried what its grant does not cover (`Forbidden`), and got a refusal. It is
    published with the first try, then once a second at most, and within about a second of the
    last."""

    right: Literal["publish", "subscribe", "handle", "request"]
    """What it lacked last. Commands need the right to request."""
    type: str
    """The message type for which, or the pattern."""
    count: int
    """How often it has tried such by now."""


class Lost(EndpointUp, frozen=True, kw_only=True):
    """An endpoint does not get events that it subscribes to, and has not chosen so. It is published
    with the first loss, then once a second at most for each reason, and within about a second of
    the last loss: then ``count`` is their sum. Where a group's backlog was full, ``name`` is
    ``backlog of GROUP`` and ``pid`` 0."""

    reason: Literal["slow", "too_large", "abandoned"]
    """Why: its ring, or because of what it did not take the pool of a sender, stayed full for the
    whole ``block_timeout``, the event is larger than its ring takes, or its sender was quarantined
    in the midst of it."""
    count: int
    """How many messages it has lost for this reason by now."""
    type: str
    """Of the event that was lost last; empty where it is not known any more, because many others
    have lost since."""
    source: str
    """The endpoint that published it, likewise; of another site as ``camera@paris``."""
    size: int
    """Bytes of its payload."""
    limit: int
    """Bytes of the largest payload of this type that the endpoint's ring takes."""


class GroupMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member of a group."""

    name: str
    """Its endpoint."""
    generation: int
    """The endpoint's: a number that no other endpoint of this bus has or had."""


class GroupRebalanced(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a group with a key change, and some keys have other owners from now on. A
    former owner has this event behind the last message of each key that it loses, and nobody else
    gets one of those before that is done. After a dispatcher's death it may come twice."""

    group: str
    """Its name."""
    pattern: str
    """What all members subscribe to."""
    tokens: int
    """Which tokens of a type are its key: a bit for each, the lowest for the first."""
    reason: Literal["joined", "left", "died"]
    """What has happened: members joined, left in good order, or at least one of them died."""
    members: tuple[GroupMember, ...]
    """All that the group has from now on."""

    @property
    def key(self) -> str:
        """The pattern with the tokens of the key in braces: ``order.{*}.>``."""
        return keys.text_of(self.pattern, self.tokens)

    def owner(self, type: str) -> str | None:
        """The member that owns the key of this type from now on; None where there is no member."""
        found = keys.owner(type, self.tokens, [m.generation for m in self.members])
        return next((m.name for m in self.members if m.generation == found), None)


class RoutesChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody subscribes or handles something, or does not any more. It is published once for all
    that changes at a time, and only who subscribes to ``$bus.routes`` by this very name gets it:
    all others would hear of each other. ``overflow="latest"`` fits."""

    version: int
    """Of the routes: a number that only rises."""


class Undeliverable(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: a message that no endpoint will handle."""

    type: str
    """Of the message."""
    kind: Literal["event", "send", "request"]
    """Of the message: an event here is one of a group's."""
    source: str
    """The endpoint that sent it."""
    reason: str
    """Why it will not be handled; of one that its receivers gave back, what the last of them said;
    of one whose callback raised, by whom and what."""
    attempt: int
    """1, and one more for each receiver that had begun it and died, or gave it back."""
    format: Literal["msgpack", "raw", "framed", "none"]
    """How its payload is encoded: MessagePack, bytes as they were given, MessagePack with arrays
    behind it, or there is none."""
    size: int
    """Bytes of its payload."""
    payload: bytes
    """The encoded payload, or as many of its first bytes as the rings of all subscribers take."""


class LinkUp(msgspec.Struct, frozen=True, kw_only=True):
    """Another site can be reached: what links of this bus and of that one let through crosses from
    now on."""

    site: str
    """Its name."""
    run: str
    """Of its link there: 16 hex digits, others each time that link starts."""
    link: str
    """The endpoint of this bus that reaches it: ``@link`` unless it was named otherwise."""
    space: str
    """The name of what both are joined to."""
    round_trip: float | None = None
    """Seconds from here to there and back; None: not measured yet."""


class LinkDown(LinkUp, frozen=True, kw_only=True):
    """Another site cannot be reached any more. Requests under way there have ended with
    `EndpointDied`; what is published for it from now on is not kept for it."""

    reason: str
    """Why, in words: its link has ended, it is not heard of any more, or this one ends."""


EVENTS: dict[str, type[msgspec.Struct]] = {
    "$bus.endpoint.up": EndpointUp,
    "$bus.endpoint.down": EndpointDown,
    "$bus.endpoint.stalled": EndpointStalled,
    "$bus.endpoint.resumed": EndpointResumed,
    "$bus.endpoint.overdue": EndpointOverdue,
    "$bus.endpoint.forbidden": EndpointForbidden,
    "$bus.group.rebalanced": GroupRebalanced,
    "$bus.link.up": LinkUp,
    "$bus.link.down": LinkDown,
    "$bus.lost": Lost,
    "$bus.routes": RoutesChanged,
    "$bus.undeliverable": Undeliverable,
}
"""By the type under which each is published."""
