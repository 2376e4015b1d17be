"""Admission: whether a caller at the door may attach, and in which slot.

What the caller states is checked; what the system reports of it, and what BUS holds, is trusted.
"""

from __future__ import annotations

import math
import os
import resource
import socket
from typing import NamedTuple

from ringbuf import Segment
from ringbuf._kernel import Mapping
from shmbus import errors
from shmbus.shared import layout, names, processes
from shmbus.shared._kernel import monotonic, monotonic_ns
from shmbus.shared.door import Answer
from shmbus.shared.layout import DoorCode, RowState, SegmentKind
from shmbus.shared.segments import Shape

from . import _kernel
from .door import Caller
from .table import Table

_SPARE_DESCRIPTORS = 16
_REMEMBERED = 30 * 10**9  # ns that a slot stays free if others are: its row names the last holder
_PATIENCE = 1.0  # seconds for which a caller waits for a name that is about to become free,
_TRIES = 100  # and so many tries at least: this process may have been stopped meanwhile


class Denied(Exception):
    """The caller is not admitted; ``answer`` has the reason."""

    def __init__(
        self,
        text: str,
        *,
        code: DoorCode = DoorCode.REFUSED,
        number: int = 0,
        pid: int | None = None,
    ) -> None:
        super().__init__(text)
        self.answer = Answer(code, pid=pid or os.getpid(), number=number, text=text)


class Waiting(NamedTuple):
    """A caller at the door; it may have to wait until its name is free."""

    connection: socket.socket
    caller: Caller
    since: float
    tries: int = 0

    @property
    def patient(self) -> bool:
        return self.tries < _TRIES or monotonic() - self.since < _PATIENCE


class Examined(NamedTuple):
    """A caller that may attach if there is a slot, and its host lets it."""

    name: str
    up: Mapping
    shape: Shape


def check_caller(caller: Caller) -> None:
    """Check its layout and its user. Raises ``Denied``."""
    if caller.layout != layout.LAYOUT:
        raise Denied("", code=DoorCode.OTHER_LAYOUT, number=layout.LAYOUT)
    if caller.uid != os.geteuid():
        raise Denied(f"uid {caller.uid} is not this bus's user\nServe a bus as that user")


def event_of(caller: Caller) -> int:
    """The event that an attached endpoint passes. Raises ``Denied``."""
    passed, more = caller.passed
    if more and not passed:
        raise Denied("the dispatcher may open no more files\nRaise ulimit -n")
    if more or len(passed) != 1 or not _is_event(passed[0]):
        raise Denied("what it passed is not one eventfd that does not block\nAttach again")
    return passed[0]


def _is_event(fd: int) -> bool:
    # It stays as it is: its owner is trusted not to change it, as with what it has in /dev/shm.
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]" and not os.get_blocking(fd)


def examine(caller: Caller, bus: names.BusNames, table: Table) -> Examined:
    """Read its segment UP. Raises ``Denied``, ``InvalidName``, ``RingbufError``."""
    name = bus.up(caller.owner)
    up = Segment.attach(name, kind=SegmentKind.UP, layout=layout.LAYOUT).memory
    if (shape := _kernel.up_shape(up)) is None:
        raise Denied("its segment UP describes rings that do not lie in it\nAttach again")
    head = layout.view(up, layout.UP)[0]
    for kind in ("pid", "time"):
        theirs, mine = (at["identity"][f"{kind}_namespace"] for at in (head, table.head))
        if int(theirs) != int(mine):
            raise Denied(
                f"it is in another {kind} namespace than the dispatcher\n"
                "Run both in one, or let the containers share it"
            )
    started = processes.start_time(caller.owner.pid)
    if not started and processes.there(caller.owner.pid):
        raise Denied(
            "/proc hides its process from the dispatcher\n"
            "Serve the bus where /proc is mounted without hidepid= (systemd: "
            "ProtectProc=default), or let the process be dumpable (prctl PR_SET_DUMPABLE)"
        )
    if caller.owner.start != started:
        raise Denied("its segment names another process\nAttach again")
    return Examined(names.check_attached(layout.text(head["name"])), up, shape)


def choose_slot(table: Table, name: str, *, patient: bool) -> int | None:
    """The first slot that has been free for `_REMEMBERED`, else the one that has been free longest:
    until a slot has a new holder, its row names the sender of its last holder's messages.

    None: try again. The name is held by a dead endpoint; or, while the caller is ``patient``, by
    one that leaves, or every slot is taken and one is about to become free. Raises ``Denied``.
    """
    free: list[int] = []
    clearing = False
    for slot, row in enumerate(table.rows):
        state = int(row["state"])
        if state == RowState.FREE:
            free.append(slot)
        elif state in (RowState.DYING, RowState.GONE):
            clearing = True
        elif state in (RowState.LIVE, RowState.LEAVING) and layout.text(row["name"]) == name:
            pid, start = int(row["identity"]["pid"]), int(row["identity"]["start_time"])
            if not processes.process_alive(pid, start):
                return None  # without a limit: this dispatcher frees the name
            if state == RowState.LEAVING and patient:
                return None
            raise Denied(name, code=DoorCode.NAME_TAKEN, pid=pid)
    if not free:
        if patient and clearing:
            return None
        raise Denied("", code=DoorCode.BUS_FULL, number=len(table.rows))
    left = {slot: int(table.rows[slot]["down_ns"]) for slot in free}
    before = monotonic_ns() - _REMEMBERED
    return next((slot for slot in free if left[slot] < before), min(free, key=left.__getitem__))


def check_descriptors(connection: socket.socket) -> None:
    """Check that this process may open the files of one more endpoint. Raises ``Denied``."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and _lowest_free(connection) + _SPARE_DESCRIPTORS > limit:
        raise Denied(
            f"the dispatcher may open {limit} files, and each endpoint takes three or four\n"
            "Raise ulimit -n"
        )


def _lowest_free(connection: socket.socket) -> float:
    """The lowest descriptor that is free; all below it are in use."""
    # That of the connection itself says nothing: each gets the one that the last has left.
    try:
        lowest = os.dup(connection.fileno())
    except OSError:
        return math.inf
    os.close(lowest)
    return lowest


def refusal(problem: Exception) -> Answer:
    """The answer to a caller that could not be admitted."""
    match problem:
        case Denied():
            return problem.answer
        case errors.SegmentError(free=int(free), size=int(size)):
            text = f"{problem.name}\n{free}"
            return Answer(DoorCode.NO_SPACE, pid=os.getpid(), number=size, text=text)
        case errors.SegmentError():
            text = f"{problem.reason}\n{problem.remedy}"
        case errors.NoResource():
            text = f"no {problem.what} could be had: {problem.reason}\n{problem.remedy}"
        case errors.BusError():
            text = f"{problem}\nAttach with what it asks for"
        case _:
            text = f"the dispatcher could not admit it: {problem}\nSee the log of its process"
    return Answer(DoorCode.REFUSED, pid=os.getpid(), text=text)
