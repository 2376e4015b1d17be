"""An endpoint's side of the door: it knocks, and reads the answer."""

from __future__ import annotations

import errno
import socket
import time
from typing import NamedTuple

from ringbuf import SegmentNoSpace, layout_text
from ringbuf.segment import REMEDIES
from shmbus import errors
from shmbus.shared import door, layout, processes, segments, shortage
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.door import ANSWER_SIZE, Answer, Knock
from shmbus.shared.layout import DoorCode
from shmbus.views import discovery, removed_names

from .seat import DoorConnection


class Admission(NamedTuple):
    """What an admitted endpoint gets."""

    slot: int
    generation: int


def knock(
    bus: str,
    kept: DoorConnection,
    *,
    nonce: int,
    start_time: int,
    began_ns: int,
    deadline_ns: int,
) -> Admission:
    """Knock until there is an answer. ``kept`` takes the connection, which stays open while the
    endpoint is attached. ``began_ns`` and ``deadline_ns`` are of the monotonic clock.

    Raises ``AttachTimeout``, ``NameTaken``, ``BusFull``, ``LayoutMismatch``, ``Forbidden``,
    ``Refused``.
    """
    record = Knock(layout.LAYOUT, nonce, start_time).pack()
    while True:
        with shortage.told(bus, "socket to knock with"):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            answer = _knock_once(connection, bus, record, began_ns, deadline_ns)
            if answer is not None:
                if answer.code == DoorCode.ADMITTED:
                    kept.take(connection)
                    return Admission(answer.slot, answer.generation)
                raise _refusal(bus, answer)
        except BaseException:
            connection.close()
            raise
        connection.close()
        if monotonic_ns() >= deadline_ns:
            raise _timeout(bus, began_ns)
        time.sleep(0.005)


def _knock_once(
    connection: socket.socket, bus: str, record: bytes, began: int, deadline_ns: int
) -> Answer | None:
    """The answer to one knock; None: no dispatcher is there yet."""
    connection.setblocking(False)
    try:
        connection.connect(door.path(bus))
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
            return None
        raise
    connection.settimeout(max(0.001, (deadline_ns - monotonic_ns()) / 1e9))
    try:
        connection.send(record)
        answer = connection.recv(ANSWER_SIZE + 1)
    except TimeoutError:
        if monotonic_ns() < deadline_ns:  # a signal's handler raised it
            raise
        raise _timeout(bus, began) from None
    except (ConnectionError, BrokenPipeError):
        return None
    if len(answer) != ANSWER_SIZE:
        return None  # the dispatcher ended meanwhile
    return Answer.unpack(answer)


def _timeout(bus: str, began: int) -> errors.AttachTimeout:
    seconds = (monotonic_ns() - began) / 1e9
    info = next((info for info in discovery.buses() if info.name == bus), None)
    if (pid := removed_names.dispatcher_of_nameless(bus)) is not None:
        return errors.AttachTimeout(bus=bus, seconds=seconds, pid=pid, removed=True)
    if info is None or not info.alive:
        return errors.AttachTimeout(bus=bus, seconds=seconds)
    return errors.AttachTimeout(
        bus=bus,
        seconds=seconds,
        pid=info.pid,
        silent=info.control_age,
        stopped=info.pid is not None and processes.stopped(info.pid),
    )


def _refusal(bus: str, answer: Answer) -> errors.BusError:
    match answer.code:
        case DoorCode.NAME_TAKEN:
            return errors.NameTaken(bus=bus, name=answer.text, pid=answer.pid)
        case DoorCode.BUS_FULL:
            return errors.BusFull(bus=bus, limit=answer.number)
        case DoorCode.NO_SPACE:
            name, _, free = answer.text.partition("\n")
            problem = SegmentNoSpace(
                name, answer.number, int(free), REMEDIES[errno.ENOSPC], errno=errno.ENOSPC
            )
            return segments.error(bus, name, problem)
        case DoorCode.OTHER_LAYOUT:
            mine, theirs = layout_text(layout.LAYOUT), layout_text(answer.number)
            return errors.LayoutMismatch(bus=bus, mine=mine, theirs=theirs, pids=(answer.pid,))
        case DoorCode.FORBIDDEN:
            name, _, text = answer.text.partition("\n")
            reason, _, remedy = text.partition("\n")
            return errors.Forbidden(bus=bus, endpoint=name, reason=reason, remedy=remedy)
        case _:
            reason, _, remedy = answer.text.partition("\n")
            return errors.Refused(bus=bus, reason=reason, remedy=remedy, pid=answer.pid)
