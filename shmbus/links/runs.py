"""A run: events of one type from one endpoint, as they go from one link to another.

A frame of the lane of events has one, in front of the payloads.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from .wire import Reader

_Text = Annotated[str, msgspec.Meta(max_length=48)]


class Run(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Events of one type from one endpoint, one behind the other."""

    source: Annotated[str, msgspec.Meta(min_length=1, max_length=48)]
    format: Annotated[int, msgspec.Meta(ge=0, le=3)]
    """Of all payloads: an index of `wire.FORMATS`."""
    targets: Annotated[tuple[_Text, ...], msgspec.Meta(min_length=1, max_length=64)]
    """The groups of which one member gets each; empty: those who subscribe outside of groups."""
    way: Annotated[int, msgspec.Meta(ge=0, le=7)]
    """Whether they are kept, urgent, or were kept."""
    table: bytes
    """When each was sent, and how long its payload is: see `events_in`."""


RETAIN, URGENT, KEPT = 1, 2, 4
"""Bits of `Run.way`."""

read = Reader(Run).read
"""The body of such a frame. Raises `Garbage`."""
