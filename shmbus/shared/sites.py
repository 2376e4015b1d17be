"""Sites and endpoints that a link knows of: the notes in its interest log, for observers alone.

A link writes a note for each site, its own included, and one for each endpoint of another site
that it has heard of; whoever observes the bus reads them there, without the help of any process.
It writes ``_note(note.key, encode(note))``, and again when something in it has changed, and
``_note(note.key, None)`` once it no longer knows of that. A key is `SiteNote.key`, ``site/paris``,
or `EndpointNote.key`, ``endpoint/paris/camera``: no name has a ``/``. It stands in no log: the link
alone needs it, to find its note again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from shmbus.errors import InvalidName, InvalidPattern, InvalidSetting

from . import keys, names
from .methods import MethodInfo
from .patterns import Interest, check_pattern

MOST = 1 << 20
"""Bytes of a note; the schemas of methods are left out of a longer one."""

SiteState = Literal["here", "up", "down", "left", "refused"]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class SiteNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="site"):
    """A site as a link sees it."""

    site: str
    """Its name."""
    space: str
    """The name of what it is joined to."""
    run: str
    """Of its link there: 16 hex digits, others each time that link starts; empty: not known."""
    state: SiteState
    """here: the link's own; up: messages cross; down: its link cannot be reached; left: it has
    ended in good order; refused: it is there, and `reason` says why nothing crosses."""
    since: _Seconds
    """Since when it is in this state: seconds since the epoch."""
    reason: str = ""
    """Why nothing crosses, as of another version of what links say to each other."""
    round_trip: _Seconds | None = None
    """Seconds from here to there and back, lately; None: not measured yet."""
    clock_offset_ns: int | None = None
    """What is to be added to CLOCK_MONOTONIC here for that there; None: not measured yet."""
    clock_error_ns: _Count | None = None
    """By how much that may be wrong."""
    sent: _Count = 0
    """Messages that went there."""
    sent_bytes: _Count = 0
    """Bytes of their payloads."""
    received: _Count = 0
    """Messages that came from there."""
    received_bytes: _Count = 0
    """Bytes of their payloads."""
    lost_to: _Count = 0
    """Messages that should have gone there and were lost."""
    lost_from: _Count = 0
    """Messages that should have come from there and were lost, as far as it told."""
    waiting_bytes: _Count = 0
    """Bytes that wait here to be sent there."""
    garbage: _Count = 0
    """What came from there, or in its name, and is nothing that a link sends."""

    @property
    def key(self) -> str:
        """Under which the link writes it."""
        return f"site/{self.site}"


class Wish(msgspec.Struct, frozen=True, array_like=True):
    """An interest of an endpoint of another site, in the names that its types have on this bus."""

    pattern: str
    """Of the types that it wants."""
    role: Literal["subscribe", "handle"] = "subscribe"
    """How it wants them."""
    group: str | None = None
    """The queue group that it is a member of."""
    key: str | None = None
    """Of a group's: the pattern with the tokens of the key in braces."""
    history: _Count = 0
    """How many values of each type that were kept it wanted first."""
    method: MethodInfo | None = None
    """Of a handler that is a method of a service: what it takes and returns."""


class EndpointNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="endpoint"):
    """An endpoint of another site, as that announced it."""

    name: str
    """Its name there."""
    site: str
    """The name of its site."""
    pid: _Count
    """Its process there."""
    host: str = ""
    """The name of the machine on which that runs."""
    since: _Seconds = 0.0
    """When the link heard of it: seconds since the epoch; 0: not known."""
    interests: tuple[Wish, ...] = ()
    """Of what it wants that which the rules of both sites let through."""

    @property
    def key(self) -> str:
        """Under which the link writes it."""
        return f"endpoint/{self.site}/{self.name}"

    @property
    def full_name(self) -> str:
        """By which this bus knows it: ``camera@paris``."""
        return f"{self.name}@{self.site}"

    def as_interests(self) -> tuple[Interest, ...]:
        """What it wants, as if it were on this bus."""
        return tuple(
            Interest(
                endpoint=self.full_name,
                pattern=wish.pattern,
                role=wish.role,
                group=wish.group,
                key=wish.key,
                history=wish.history,
                method=wish.method,
            )
            for wish in self.interests
        )


Note = SiteNote | EndpointNote
_DECODER = msgspec.msgpack.Decoder(Note)


def encode(note: Note) -> bytes:
    """The bytes that stand for it in a log."""
    found = msgspec.msgpack.encode(note)
    if len(found) > MOST and isinstance(note, EndpointNote):
        interests = tuple(map(_without_schemas, note.interests))
        found = msgspec.msgpack.encode(msgspec.structs.replace(note, interests=interests))
    return found


def _without_schemas(wish: Wish) -> Wish:
    if wish.method is None:
        return wish
    method = msgspec.structs.replace(wish.method, arguments={}, result={})
    return msgspec.structs.replace(wish, method=method)


def decode(found: bytes) -> Note:
    """What these bytes stand for. Raises ``ValueError`` where no link writes such."""
    try:
        note = _DECODER.decode(found)
        names.check_site(note.site)
        if isinstance(note, EndpointNote):
            names.check_endpoint(note.name)
            _check(note.interests)
        else:
            names.check_space(note.space)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ValueError(str(problem)) from None
    except (InvalidName, InvalidPattern, InvalidSetting) as problem:
        raise ValueError(str(problem)) from None
    return note


def _check(interests: Iterable[Wish]) -> None:
    for wish in interests:
        check_pattern(wish.pattern)
        if wish.pattern.startswith("$"):
            raise ValueError(f"{wish.pattern} is the bus's own")
        if wish.group is not None:
            names.check_group(wish.group)
        if wish.key is not None:
            keys.mask_of(wish.key, wish.pattern)
