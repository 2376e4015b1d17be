"""What is confirmed: which interests, and what links say to each other of each message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from shmbus.shared.patterns import covers

from .config import LinkConfig
from .tables import Wanted
from .wire import Reader

if TYPE_CHECKING:
    from .peer import Peer

HELD = 60
"""Messages that are held for a site at a time, and so done in one round trip. An endpoint holds 64:
the oldest of more would be let go, and lost with it."""

_Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=48)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Sure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message, in front of its payload."""

    source: _Name
    sent_ns: _Count
    group: Annotated[str, msgspec.Meta(max_length=48)]
    """Of whose members one gets it. Empty: it is a command."""
    flags: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    """Of its payload."""
    settled: tuple[_Id, ...] = ()
    """What is not sent again."""
    asked: bool = False
    """It is only asked whether it is published there; the payload is left out."""


class Receipt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of messages."""

    published: tuple[_Id, ...] = ()
    refused: tuple[tuple[_Id, str], ...] = ()
    """Those that nobody is there for any more, with the reason."""
    unknown: tuple[_Id, ...] = ()
    """Those that were asked about, and have not been published."""


read_sure, read_receipt = Reader(Sure).read, Reader(Receipt).read
"""The bodies of frames. Raise `Garbage`."""


def confirms(config: LinkConfig, wanted: Wanted) -> bool:
    """Whether this interest of another site, in the names of this bus, is served here, and not with
    what is sent at most once. With a key a group's order counts for more."""
    if wanted.role == "subscribe" and (wanted.group is None or wanted.key is not None):
        return False
    return config.confirms(wanted.pattern)


def groups_held(config: LinkConfig, peer: Peer, there: str) -> frozenset[str]:
    """The groups of a peer for which events of this type are confirmed, named as in the space."""
    return frozenset(
        wanted.group
        for wanted in peer.table.wants()
        if wanted.group is not None and covers(wanted.pattern, there)
        for pattern in peer.rules.offered(wanted.pattern)
        if confirms(config, msgspec.structs.replace(wanted, pattern=pattern))
    )
