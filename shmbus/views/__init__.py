"""Buses and this machine, observed from outside: read-only, without taking part.

Public: import from here. Within the package, modules import from the module that defines a name.
"""

from shmbus.shared.methods import MethodInfo
from shmbus.shared.patterns import Interest, Receiver, Route, check_pattern, matches

from .discovery import buses
from .doctor import Finding, check_host
from .facts import (
    Backlog,
    BusInfo,
    Counts,
    EndpointInfo,
    Holding,
    Losses,
    Mailbox,
    Overdue,
    PastDeath,
    PastLoss,
    PendingRequest,
    Pool,
    Retained,
    Ring,
    ServiceInfo,
    SiteInfo,
)
from .health import EndpointHealth, Health, Latency
from .leavings import Foreign, Leaving, find_foreign, find_leavings, free_leaving
from .observe import BusView, Look, observe
from .plain import decode_plain
from .shm import Holder, SharedMemory, shared_memory

__all__ = [
    "Backlog",
    "BusInfo",
    "BusView",
    "Counts",
    "EndpointHealth",
    "EndpointInfo",
    "Finding",
    "Foreign",
    "Health",
    "Holder",
    "Holding",
    "Interest",
    "Latency",
    "Leaving",
    "Look",
    "Losses",
    "Mailbox",
    "MethodInfo",
    "Overdue",
    "PastDeath",
    "PastLoss",
    "PendingRequest",
    "Pool",
    "Receiver",
    "Retained",
    "Ring",
    "Route",
    "ServiceInfo",
    "SharedMemory",
    "SiteInfo",
    "buses",
    "check_host",
    "check_pattern",
    "decode_plain",
    "find_foreign",
    "find_leavings",
    "free_leaving",
    "matches",
    "observe",
    "shared_memory",
]
