"""What two links say to each other of a request, each in the lane that is named.

An `Ask` begins an exchange, under a number that the asking link gives and never gives again. Then
come, from the other side, an `Answer`, or parts and their `End`, or `Failed`; and from the asking
side `Credit` for more parts, or `Withdrawn`, which ends it, too. What an exchange that is over
still gets is passed over.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from .wire import Garbage

REPLY, PARTS, ALL = 0, 1, 2
"""What is asked for: one reply, one that may come in parts, or those of all who handle it."""

WINDOW = 1 << 18
"""Bytes of parts that may be under way to a link whose requester has not taken those before."""
PART = 256
"""Bytes that a part counts beside its payload, so that there are not too many small ones."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Flags = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=48)]


class Ask(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=0):
    """A request. Behind it comes its payload."""

    number: _Count
    source: _Name
    """Who makes it."""
    sent_ns: _Count
    """When, by the clock there."""
    flags: _Flags
    """Of its payload."""
    want: Annotated[int, msgspec.Meta(ge=REPLY, le=ALL)]
    left_ns: _Count
    """For so long its requester waits; 0: for ever."""
    attempt: Annotated[int, msgspec.Meta(ge=1, le=0xFFFF)]


class Withdrawn(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Nobody waits for it any more."""

    number: _Count


class Credit(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Parts may be sent while those before them have fewer bytes than this, from the beginning on;
    see `part_bytes`. An `Ask` grants `WINDOW`."""

    number: _Count
    bytes: _Count


class Answer(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=0):
    """A whole reply, in front of its payload; of who was to ask all, what became of each."""

    number: _Count
    source: _Name
    sent_ns: _Count
    flags: _Flags


class Part(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """A part of a reply, in front of its payload."""

    number: _Count
    source: _Name
    sent_ns: _Count
    flags: _Flags
    index: _Count
    """0, 1, ..."""


class End(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Those were all parts."""

    number: _Count
    parts: _Count
    """How many."""


class Failed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """An error, in front of its account, instead of a reply or of more parts."""

    number: _Count


Asked = Ask | Withdrawn | Credit
"""What goes in the lane of requests."""
Answered = Answer | Part | End | Failed
"""What comes back in that of replies."""

_asked: msgspec.msgpack.Decoder[Asked] = msgspec.msgpack.Decoder(Asked)
_answered: msgspec.msgpack.Decoder[Answered] = msgspec.msgpack.Decoder(Answered)


def read_asked(body: msgspec.Raw) -> Asked:
    """Raises `Garbage`."""
    try:
        return _asked.decode(body)
    except msgspec.MsgspecError as why:
        raise Garbage(f"request: {why}") from None


def read_answered(body: msgspec.Raw) -> Answered:
    """Raises `Garbage`."""
    try:
        return _answered.decode(body)
    except msgspec.MsgspecError as why:
        raise Garbage(f"reply: {why}") from None


def number_in(body: msgspec.Raw) -> int:
    """Of the exchange that a garbled reply is of; 0: that cannot be read either."""
    try:
        _, number, *_ = msgspec.msgpack.decode(body, type=list[Any])
    except (msgspec.MsgspecError, ValueError):
        return 0
    return number if isinstance(number, int) else 0


def part_bytes(size: int) -> int:
    """What a part of so many bytes takes of its credit."""
    return size + PART
