"""The message bus for the processes of one machine."""

import sys
from typing import TYPE_CHECKING, Any

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"shmbus runs on Linux only (futexes, pidfd, /dev/shm); this is {sys.platform}"
    )

import ringbuf  # noqa: F401  (before msgspec: it refuses subinterpreters, which harm that)

from .shared import green

if _reason := green.replaced():
    raise ImportError(f"shmbus cannot run here: {_reason}. {green.REMEDY}")

from . import errors, events, fields, supervisor, views
from .bus import Bus, serve
from .endpoint._kernel import Loan, Message
from .endpoint.attach import attach
from .endpoint.deadlines import deadline, within
from .endpoint.endpoint import Endpoint
from .endpoint.retry import Retry
from .endpoint.subscribing import Subscription
from .errors import (
    AttachTimeout,
    BusDown,
    BusError,
    Disconnected,
    EndpointDied,
    Forbidden,
    HandlerTimeout,
    NoRoute,
    NotAccepted,
    PeerFailed,
    PoolBroken,
    QueueFull,
    RemoteError,
    RequestTimeout,
    SetupError,
    TaskTimeout,
    UsageError,
    WorkerDied,
)
from .queues.queue import JoinableQueue, Queue
from .settings import BatchLimits, Settings
from .shared.grants import Candidate, Grant
from .shared.messages import Death, Tap
from .supervisor.process import Backoff, Process
from .supervisor.supervisor import Supervisor, supervise
from .views.discovery import buses
from .views.observe import BusView, observe

if TYPE_CHECKING:
    from .executor.executor import Executor
    from .links.config import LinkConfig
    from .links.link import Link, link

__all__ = [
    "AttachTimeout",
    "Backoff",
    "BatchLimits",
    "Bus",
    "BusDown",
    "BusError",
    "BusView",
    "Candidate",
    "Death",
    "Disconnected",
    "Endpoint",
    "EndpointDied",
    "Executor",
    "Forbidden",
    "Grant",
    "HandlerTimeout",
    "JoinableQueue",
    "Link",
    "LinkConfig",
    "Loan",
    "Message",
    "NoRoute",
    "NotAccepted",
    "PeerFailed",
    "PoolBroken",
    "Process",
    "Queue",
    "QueueFull",
    "RemoteError",
    "RequestTimeout",
    "Retry",
    "Settings",
    "SetupError",
    "Subscription",
    "Supervisor",
    "Tap",
    "TaskTimeout",
    "UsageError",
    "WorkerDied",
    "attach",
    "buses",
    "deadline",
    "errors",
    "events",
    "link",
    "observe",
    "serve",
    "supervise",
    "supervisor",
    "views",
    "within",
]

_OF_LINKS = ("Link", "LinkConfig", "link")


def __getattr__(name: str) -> Any:
    """What takes long to import is for those who use it: links take an event loop, an executor
    takes `multiprocessing`."""
    if name == "Executor":
        from .executor.executor import Executor

        globals().update(Executor=Executor)
        return Executor
    if name not in _OF_LINKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import links
    from .links.link import link

    fields.explain(links)
    globals().update(Link=links.Link, LinkConfig=links.LinkConfig, link=link)
    return globals()[name]


fields.explain(sys.modules[__name__], errors, events, supervisor, views)
