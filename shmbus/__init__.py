"""The message bus for the processes of one machine."""

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"shmbus runs on Linux only (futexes, pidfd, /dev/shm); this is {sys.platform}"
    )

import ringbuf  # noqa: F401  (before msgspec: it refuses subinterpreters, which harm that)

from . import errors
from .bus import Bus, serve
from .endpoint._kernel import Message
from .endpoint.attach import attach
from .endpoint.endpoint import Endpoint, Subscription
from .errors import (
    AlreadyReplied,
    AttachError,
    AttachTimeout,
    BusDown,
    BusError,
    BusExists,
    BusFull,
    CorrelationCollision,
    DecodeError,
    DrainTimeout,
    EncodeError,
    EndpointClosed,
    EndpointDied,
    Evicted,
    ForkedEndpoint,
    HandlerConflict,
    InvalidName,
    InvalidPattern,
    InvalidPayloadType,
    InvalidSetting,
    InvalidType,
    LayoutMismatch,
    MessageTooLarge,
    NameTaken,
    NoRoute,
    NoSuchBus,
    NoSuchEndpoint,
    NotARequest,
    NotSupported,
    PayloadError,
    QueueFull,
    ReceiveConflict,
    Refused,
    RemoteError,
    ReplyLost,
    RequestError,
    RequestsFull,
    RequestTimeout,
    RingCorrupt,
    SegmentError,
    TooManyGroups,
    ViewClosed,
    WaitTimeout,
)
from .settings import Batch, Settings
from .shared.messages import Death, Tap
from .shared.patterns import Interest, Receiver, Route
from .views.facts import BusInfo, Counts, EndpointInfo, Ring
from .views.health import EndpointHealth, Health, Latency
from .views.observe import BusView, observe
from .views.registry import buses

__all__ = [
    "AlreadyReplied",
    "AttachError",
    "AttachTimeout",
    "Batch",
    "Bus",
    "BusDown",
    "BusError",
    "BusExists",
    "BusFull",
    "BusInfo",
    "BusView",
    "CorrelationCollision",
    "Counts",
    "Death",
    "DecodeError",
    "DrainTimeout",
    "EncodeError",
    "Endpoint",
    "EndpointClosed",
    "EndpointDied",
    "EndpointHealth",
    "EndpointInfo",
    "Evicted",
    "ForkedEndpoint",
    "HandlerConflict",
    "Health",
    "Interest",
    "InvalidName",
    "InvalidPattern",
    "InvalidPayloadType",
    "InvalidSetting",
    "InvalidType",
    "Latency",
    "LayoutMismatch",
    "Message",
    "MessageTooLarge",
    "NameTaken",
    "NoRoute",
    "NoSuchBus",
    "NoSuchEndpoint",
    "NotARequest",
    "NotSupported",
    "PayloadError",
    "QueueFull",
    "ReceiveConflict",
    "Receiver",
    "Refused",
    "RemoteError",
    "ReplyLost",
    "RequestError",
    "RequestTimeout",
    "RequestsFull",
    "Ring",
    "RingCorrupt",
    "Route",
    "SegmentError",
    "Settings",
    "Subscription",
    "Tap",
    "TooManyGroups",
    "ViewClosed",
    "WaitTimeout",
    "attach",
    "buses",
    "errors",
    "observe",
    "serve",
]
