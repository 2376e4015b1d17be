"""The message bus for the processes of one machine."""

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"shmbus runs on Linux only (futexes, pidfd, /dev/shm); this is {sys.platform}"
    )

from .bus import Bus, serve
from .endpoint import Endpoint, Subscription, attach
from .messages import Death, Message
from .observe import BusView, observe
from .registry import BusInfo, EndpointInfo, buses
from .settings import Batch, Settings

__all__ = [
    "Batch",
    "Bus",
    "BusInfo",
    "BusView",
    "Death",
    "Endpoint",
    "EndpointInfo",
    "Message",
    "Settings",
    "Subscription",
    "attach",
    "buses",
    "observe",
    "serve",
]
