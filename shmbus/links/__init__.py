"""Buses joined across machines: what commands need of that. Programs have `shmbus.link`.

Within the package, modules import from the module that defines a name.
"""

from .config import LinkConfig
from .keeper import Keep, Keeper
from .link import Link
from .on_bus import Pinged, ask_ping, ask_status
from .rules import Rename, meet
from .status import LinkStatus, PeerStatus

__all__ = [
    "Keep",
    "Keeper",
    "Link",
    "LinkConfig",
    "LinkStatus",
    "PeerStatus",
    "Pinged",
    "Rename",
    "ask_ping",
    "ask_status",
    "meet",
]
