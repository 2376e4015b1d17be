"""The result of attaching: the segments, slot and settings that an Endpoint is made from."""

from __future__ import annotations

import os
import socket
from typing import Literal, NamedTuple

from ringbuf._kernel import Mapping
from shmbus.settings import Settings
from shmbus.shared.grants import Grant
from shmbus.shared.names import SHM, BusNames, Owner
from shmbus.shared.signals import uninterrupted

from .interest_log import InterestWriter
from .payloads import Codec, Types


class DoorConnection:
    """The connection to the door, open while one is attached. Closed once, however often that is
    asked for: its descriptor may be another file's afterwards. Not closed when it is collected:
    a socket object could be, before the endpoint is."""

    def __init__(self) -> None:
        self._descriptor = -1

    def take(self, connection: socket.socket) -> None:
        """Keep the descriptor of this one, whatever a signal's handler raises meanwhile."""
        with uninterrupted():
            self._descriptor = connection.detach()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Seat(NamedTuple):
    """What an Endpoint is made from; the endpoint then owns the log and the door's connection."""

    names: BusNames
    owner: Owner
    name: str
    settings: Settings
    types: Types
    codec: Codec
    reconnect: bool | Literal["always"]
    slot: int
    generation: int
    door: DoorConnection
    log: InterestWriter
    bus: Mapping
    ready: Mapping
    up: Mapping
    down: Mapping
    grant: Grant | None
    """What the endpoint may do, as DOWN has it; None: everything."""
    bus_file: int
    """The inode of the bus's segment: another one in its place is another bus."""

    @property
    def door_path(self) -> bytes:
        """Where the watcher connects to a dispatcher that adopts this endpoint."""
        return bytes(SHM / self.names.door)

    @property
    def bus_path(self) -> bytes:
        """Where the bus's segment is."""
        return bytes(SHM / self.names.bus_segment)
