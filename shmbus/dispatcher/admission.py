"""Admission: whether a caller at the door may come onto the bus, and into which slot.

Everything that it says is doubted; what the kernel says of it, and what stands in BUS, is not.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from typing import NamedTuple

from ringbuf import RingbufError, Segment
from ringbuf._kernel import Mapping
from shmbus import errors
from shmbus.shared import layout, names, processes
from shmbus.shared.door import Answer, Code
from shmbus.shared.layout import RowState, SegmentKind

from . import _kernel
from .door import Caller
from .table import Table

_SPARE_DESCRIPTORS = 16
_REMEMBERED = 30 * 10**9  # ns that a slot stays free, so that its last holder's name is known
_PATIENCE = 1.0  # seconds that a newcomer waits for a name on its way out,
_TRIES = 100  # and so many looks at least: we may not have run meanwhile, nor who clears it away


class Denied(Exception):
    """The caller is not let in; ``answer`` tells it why."""

    def __init__(
        self, text: str, *, code: Code = Code.REFUSED, number: int = 0, pid: int | None = None
    ) -> None:
        super().__init__(text)
        self.answer = Answer(code, pid=pid or os.getpid(), number=number, text=text)


class Waiting(NamedTuple):
    """Somebody at the door; it may have to wait until the name is cleared away."""

    connection: socket.socket
    caller: Caller
    since: float
    tries: int = 0

    @property
    def patient(self) -> bool:
        return self.tries < _TRIES or time.monotonic() - self.since < _PATIENCE


class Candidate(NamedTuple):
    """What a caller that may come in, if there is a slot, says of itself."""

    name: str
    up: Mapping
    shape: tuple[int, int, int]  # capacities of its incoming rings, and its requests


def check_caller(caller: Caller) -> None:
    """Whether we understand each other. Raises ``Denied``."""
    if caller.layout != layout.LAYOUT:
        raise Denied("", code=Code.OTHER_LAYOUT, number=layout.LAYOUT)
    if caller.uid != os.geteuid():
        raise Denied(f"uid {caller.uid} is not this bus's user\nServe a bus as that user")


def examine(caller: Caller, bus: names.BusNames, table: Table) -> Candidate:
    """Read its segment UP. Raises ``Denied``, ``InvalidName``, ``RingbufError``."""
    name = bus.up(caller.owner)
    up = Segment.attach(name, kind=SegmentKind.UP, layout=layout.LAYOUT).memory
    if (shape := _kernel.up_shape(up)) is None:
        raise Denied("its segment is not sound\nAttach again")
    said = layout.view(up, layout.UP)[0]
    for kind in ("pid", "time"):
        theirs, mine = (at["identity"][f"{kind}_namespace"] for at in (said, table.head))
        if int(theirs) != int(mine):
            raise Denied(
                f"it is in another {kind} namespace than the dispatcher\n"
                "Run both in one, or let the containers share it"
            )
    if caller.owner.start != processes.start_time(caller.owner.pid):
        raise Denied("its segment names another process\nAttach again")
    return Candidate(names.check_endpoint(layout.text(said["name"])), up, shape)


def choose_slot(table: Table, name: str, *, patient: bool) -> int | None:
    """The first whose last holder is long forgotten, else the one that has been free longest:
    until a slot has a new holder, its row says who sent the messages of the old one.

    None: the name is a dead one's, or the name, or a slot, is on its way out and the newcomer
    patient. Raises ``Denied``.
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
                return None  # to clear it away is up to us, however long it takes
            if state == RowState.LEAVING and patient:
                return None
            raise Denied(name, code=Code.NAME_TAKEN, pid=pid)
    if not free:
        if patient and clearing:
            return None
        raise Denied("", code=Code.BUS_FULL, number=len(table.rows))
    left = {slot: int(table.rows[slot]["down_ns"]) for slot in free}
    before = time.monotonic_ns() - _REMEMBERED
    return next((slot for slot in free if left[slot] < before), min(free, key=left.__getitem__))


def check_descriptors(connection: socket.socket) -> None:
    """Whether this process may open what one more endpoint takes. Raises ``Denied``."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and connection.fileno() + _SPARE_DESCRIPTORS > limit:
        raise Denied(
            f"the dispatcher may open {limit} files, and each endpoint takes three\nRaise ulimit -n"
        )


def refusal(problem: Exception) -> Answer:
    """What the caller is told of a problem with letting it in."""
    match problem:
        case Denied():
            return problem.answer
        case errors.SegmentError(free=int(free), size=int(size)):
            text = f"{problem.name}\n{free}"
            return Answer(Code.NO_SPACE, pid=os.getpid(), number=size, text=text)
        case errors.SegmentError():
            text = f"{problem.reason}\n{problem.remedy}"
        case errors.BusError() | RingbufError():
            text = f"{problem}\n{getattr(problem, 'remedy', '')}"
        case _:
            text = f"the dispatcher could not: {problem}"
    return Answer(Code.REFUSED, pid=os.getpid(), text=text)
