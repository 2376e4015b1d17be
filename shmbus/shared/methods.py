"""Methods that endpoints offer to others: what a description in an interest log says of one.

An endpoint writes it beside its handler of the method; whoever observes the bus reads it there,
without the help of any process.
"""

from __future__ import annotations

from typing import Any

import msgspec

Schema = dict[str, Any]

MOST = 1 << 16
"""Bytes of a description; the schemas of a longer one are left out."""


class MethodInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A method of a service, as the endpoint that offers it describes it."""

    service: str
    """The prefix under which it is offered."""
    name: str
    """The method's."""
    interface: str
    """The class whose method it is."""
    summary: str = ""
    """The first line of its docstring."""
    arguments: Schema = {}
    """JSON schema of an object with its arguments by name, those that have defaults with them."""
    result: Schema = {}
    """JSON schema of what it returns, or of each part of that."""
    asynchronous: bool = False
    """Whether it runs as a task of an event loop."""
    streams: bool = False
    """Whether it yields: what it returns comes in parts."""

    def __hash__(self) -> int:  # schemas have none
        return hash((self.service, self.name))

    @property
    def type(self) -> str:
        """Of the requests that call it: ``calc.add``."""
        return f"{self.service}.{self.name}"


def encode(info: MethodInfo) -> bytes:
    """The bytes that describe it in a log."""
    found = msgspec.json.encode(info)
    if len(found) > MOST:
        found = msgspec.json.encode(msgspec.structs.replace(info, arguments={}, result={}))
    return found


def decode(description: bytes) -> MethodInfo | None:
    """What these bytes describe; None where they are none of ours."""
    try:
        return msgspec.json.decode(description, type=MethodInfo)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
