"""Every error of the bus, in one tree under `BusError`.

Each class takes its facts by keyword and keeps them as attributes (endpoint, type, limit, setting,
seconds, ...); the message is built from them, names them, and ends with what to do. All of them can
be pickled.
"""

from .attaching import (
    AttachTimeout,
    BusExists,
    BusFull,
    LayoutMismatch,
    NameTaken,
    NoSuchBus,
    Refused,
)
from .ending import BusDown, DrainTimeout, EndpointClosed, Evicted, RingCorrupt, ViewClosed
from .endpoints import ForkedEndpoint, NoSuchEndpoint, WrongLoop
from .error import BusError
from .executing import PoolBroken, TaskTimeout, WorkerDied
from .gathering import TooFewReplies, WaitTimeout, Withdrawn
from .grants import Forbidden
from .groups import (
    AttachError,
    Disconnected,
    NotAccepted,
    PeerFailed,
    RequestError,
    SetupError,
    UsageError,
)
from .links import LinkClosed, LinkFailed, NoSuchSite, SiteTaken
from .malformed import InvalidName, InvalidPattern, InvalidSetting, InvalidType
from .messages import AlreadyReplied, CannotNack, NotARequest, PayloadReleased
from .payloads import DecodeError, EncodeError, InvalidPayloadType
from .queues import QueueClosed, QueueGone
from .receiving import (
    GroupConflict,
    HandlerConflict,
    ReceiveConflict,
    TooManyGroups,
    TooManyMailboxes,
)
from .requests import (
    CorrelationCollision,
    EndpointDied,
    HandlerTimeout,
    NoRoute,
    RemoteError,
    ReplyLost,
    RequestTimeout,
)
from .sending import GONE, KEPT, LENT, MessageTooLarge, QueueFull, RequestsFull
from .services import InvalidArguments, InvalidResult, InvalidService
from .supervising import InvalidProcess, NoSuchProcess, SupervisorClosed
from .system import NoResource, NoThread, NotSupported, SegmentError
from .wording import Wording

__all__ = [
    "GONE",
    "KEPT",
    "LENT",
    "AlreadyReplied",
    "AttachError",
    "AttachTimeout",
    "BusDown",
    "BusError",
    "BusExists",
    "BusFull",
    "CannotNack",
    "CorrelationCollision",
    "DecodeError",
    "Disconnected",
    "DrainTimeout",
    "EncodeError",
    "EndpointClosed",
    "EndpointDied",
    "Evicted",
    "Forbidden",
    "ForkedEndpoint",
    "GroupConflict",
    "HandlerConflict",
    "HandlerTimeout",
    "InvalidArguments",
    "InvalidName",
    "InvalidPattern",
    "InvalidPayloadType",
    "InvalidProcess",
    "InvalidResult",
    "InvalidService",
    "InvalidSetting",
    "InvalidType",
    "LayoutMismatch",
    "LinkClosed",
    "LinkFailed",
    "MessageTooLarge",
    "NameTaken",
    "NoResource",
    "NoRoute",
    "NoSuchBus",
    "NoSuchEndpoint",
    "NoSuchProcess",
    "NoSuchSite",
    "NoThread",
    "NotARequest",
    "NotAccepted",
    "NotSupported",
    "PayloadReleased",
    "PeerFailed",
    "PoolBroken",
    "QueueClosed",
    "QueueFull",
    "QueueGone",
    "ReceiveConflict",
    "Refused",
    "RemoteError",
    "ReplyLost",
    "RequestError",
    "RequestTimeout",
    "RequestsFull",
    "RingCorrupt",
    "SegmentError",
    "SetupError",
    "SiteTaken",
    "SupervisorClosed",
    "TaskTimeout",
    "TooFewReplies",
    "TooManyGroups",
    "TooManyMailboxes",
    "UsageError",
    "ViewClosed",
    "WaitTimeout",
    "Withdrawn",
    "Wording",
    "WorkerDied",
    "WrongLoop",
]

for _offered in list(vars().values()):
    if isinstance(_offered, type):
        _offered.__module__ = __name__  # what tracebacks, logs, pickles and RemoteError.error say
