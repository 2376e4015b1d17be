"""What has become of messages that an endpoint of a command sent."""

from __future__ import annotations

import time

from shmbus import Endpoint
from shmbus.views import EndpointInfo

_PAUSE = 0.002


def forwarded(endpoint: Endpoint, timeout: float) -> EndpointInfo | None:
    """The endpoint's counts once the dispatcher has forwarded all that it sent, or after
    ``timeout`` seconds; None where it is not on the bus any more."""
    end = time.monotonic() + timeout
    while True:
        mine = next((e for e in endpoint.bus.endpoints() if e.name == endpoint.name), None)
        if mine is None or not mine.unforwarded or time.monotonic() >= end:
            return mine
        time.sleep(_PAUSE)
