"""Threads and sockets that a library has replaced by ones that take turns in a single thread.

The bus waits natively and has threads of its own. In such a process the threads would never run
while one waits, so every call would hang without a word; it is refused instead.
"""

from __future__ import annotations

import _thread
import socket

from shmbus import errors

_LIBRARIES = ("gevent", "eventlet")

REMEDY = (
    "Leave both as they are, monkey.patch_all(thread=False, socket=False), or use the bus in a "
    "process that is not patched"
)


def replaced() -> str:
    """Why the bus cannot run in this process; empty where it can."""
    for what, thing in (("threads", _thread.start_new_thread), ("sockets", socket.socket)):
        library = str(getattr(thing, "__module__", "")).partition(".")[0]
        if library in _LIBRARIES:
            return f"{library} has replaced the {what} of this process, which would hang"
    return ""


def refuse(feature: str) -> None:
    """Raises ``NotSupported``: it may have been patched after `shmbus` was imported."""
    if reason := replaced():
        raise errors.NotSupported(feature=feature, reason=reason, remedy=REMEDY)
