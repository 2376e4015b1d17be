"""What the asynchronous tests have in common."""

from __future__ import annotations

from typing import Any, Protocol

import shmbus
from shmbus.aio.attach import Attaching
from shmbus.views import EndpointInfo


class AioAttach(Protocol):
    """The type of the fixture `attach`."""

    def __call__(self, name: str, **options: Any) -> Attaching: ...


def facts(bus: shmbus.BusView, name: str) -> EndpointInfo:
    """What the bus shows of one endpoint."""
    return next(info for info in bus.endpoints() if info.name == name)
