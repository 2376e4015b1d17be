"""Frames: what one link sends to another.

A frame is one sample of zenoh's: its key says whose it is, in which lane and of which type, its
attachment is a `Head`, its payload what the lane says. All of it comes from another machine, so
nothing is used before it has been checked.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Generic, TypeVar

import msgspec

from shmbus.shared.layout import RecordFlag

EVENT, SEND, REQUEST, REPLY, CONTROL = "event", "send", "request", "reply", "control"
CONFIRMED = "confirmed"
"""The lanes."""

HELLO, BYE = "hello", "bye"
"""In the control lane: what a link's bus wants, and that the link ends in good order."""


FORMATS = ("msgpack", "raw", "none", "framed")
"""Of payloads; a frame has the index."""
FLAGS_OF = (0, int(RecordFlag.RAW), int(RecordFlag.NONE), int(RecordFlag.FRAMED))
"""Of each format, as a record has them."""
FORMAT_BITS = sum(FLAGS_OF)
FORMAT_OF = {flags: index for index, flags in enumerate(FLAGS_OF)}


class Head(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What every frame begins with."""

    run: str
    """Of the link that sends it."""
    to: str
    """The run that it is for. One that is for another is stale."""
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """Of the frames from one run to another: 1, 2, ... 0: outside of their order, and not
    confirmed."""
    body: msgspec.Raw = msgspec.Raw(b"\xc0")
    """What the lane says."""


class Garbage(Exception):
    """A frame that no link sends."""


_encode = msgspec.msgpack.Encoder().encode
_head = msgspec.msgpack.Decoder(Head).decode

T = TypeVar("T", bound=msgspec.Struct)


def new_run() -> str:
    """16 hex digits, new for each start of a link."""
    return secrets.token_hex(8)


def packed(body: object) -> bytes:
    """A lane's part of the head."""
    return _encode(body)


def head(run: str, to: str, seq: int, body: bytes) -> bytes:
    """The attachment of a frame."""
    return _encode(Head(run, to, seq, msgspec.Raw(body)))


def read_head(attachment: bytes) -> Head:
    """Of a frame. Raises `Garbage`."""
    try:
        return _head(attachment)
    except msgspec.MsgspecError as why:
        raise Garbage(f"head: {why}") from None


class Reader(Generic[T]):
    """Reads the bodies of one lane."""

    def __init__(self, body: type[T]) -> None:
        self._decoder = msgspec.msgpack.Decoder(body)

    def read(self, body: msgspec.Raw) -> T:
        """Raises `Garbage`."""
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as why:
            raise Garbage(f"body: {why}") from None
