"""The control plane: the life of a dispatcher, from its beginning to the end of the bus.

Slow and careful things are decided here, in one Python thread; the forwarding thread and the
watcher of the kernel never wait for it. What it decides stands in BUS before it tells the kernel.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time
from contextlib import ExitStack, suppress
from importlib.metadata import version
from typing import Any, NamedTuple
from weakref import WeakSet

from ringbuf import RingbufError, Segment
from ringbuf._kernel import Mapping
from ringbuf.doorbell import unlink as unlink_bell
from ringbuf.segment import unlink
from shmbus.errors import BusError
from shmbus.settings import Settings
from shmbus.shared import fence, layout, names, processes, segments
from shmbus.shared.door import KNOCK, Answer, Code
from shmbus.shared.layout import RowState, SegmentKind
from shmbus.shared.names import Owner

from . import _kernel, admission, door, succession
from .admission import Candidate, Denied, Waiting
from .lookout import PACE, Lookout
from .table import Table

log = logging.getLogger("shmbus")


class Guest(NamedTuple):
    """An admitted endpoint: what of it the dispatcher has in its hands."""

    slot: int
    generation: int
    name: str
    owner: Owner
    up: Mapping
    down: Segment


class Dispatcher:
    """The dispatcher of one bus, hosted by this process: the kernel's threads and the control
    thread.

    Raises ``BusExists``, ``LayoutMismatch``, ``SegmentError``, ``InvalidName``.
    """

    def __init__(self, bus: str, settings: Settings, *, replace: bool = False) -> None:
        self.bus = bus
        self.settings = settings
        self.names = names.names_of(bus)
        self.guests: dict[int, Guest] = {}
        self._waiting: list[Waiting] = []
        self._unread: set[int] = set()  # slots of those whose interests could not be read, once
        self._unseen: set[int] = set()  # slots of the adopted who have not shown a connection yet
        self._sought = 0.0
        self._cleared = 0.0
        self._lookout = Lookout()
        self._shut = False  # nobody can be let in, and it has been said
        self._closed = False
        self.adopting = False
        self._standing: succession.Standing | tuple[()] = ()
        self._opened = ExitStack()  # what ends with this dispatcher
        self._pid = os.getpid()
        self._version = version("shmbus").encode()  # looked up while nobody waits for us
        try:
            succession.take_fence(bus)
            try:
                self._open(replace)
            except BaseException:
                self._drop(unlink=not self.adopting)
                raise
        except (OSError, RingbufError) as problem:
            name = os.path.basename(getattr(problem, "filename", None) or self.names.bus_segment)
            raise segments.error(bus, name, problem) from problem

    # Beginning --------------------------------------------------------------------------------

    def _open(self, replace: bool) -> None:
        found = succession.standing(self.bus, replace=replace)
        self.adopting = found is not None
        self._standing = found or succession.begin(self.bus, self.settings, self._version)
        bus, ready, _ = self._standing
        self._table = Table(bus)
        self._kernel = _kernel.Forwarder(
            bus.memory,
            ready.memory,
            "/" + self.names.prefix[:-1],
            self.names.bell,
            spin_ns=self.settings.spin_ns,
            adopting=self.adopting,
        )
        self._opened.callback(self._kernel.close)
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for fd in self._wake:
            self._opened.callback(os.close, fd)
        self._opened.callback((names.SHM / self.names.door).unlink, missing_ok=True)
        self._door = self._opened.enter_context(door.listen(self.bus))
        _serving.add(self)
        if self.adopting:
            self._adopt()
        self._tick()
        self._kernel.start()
        self._table.store("state", layout.BusState.SERVING)
        self._thread = threading.Thread(target=self._run, name=f"shmbus {self.bus}", daemon=True)
        self._thread.start()

    # Adoption ---------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over the bus of a dispatcher that is no more: its place first, then its guests."""
        self._table.take_over(self._version)
        for slot, row in enumerate(self._table.rows):
            if int(row["state"]) != RowState.FREE and not self._adopt_guest(slot, row):
                self._table.free(slot)
        self._table.store("attached", len(self.guests))

    def _adopt_guest(self, slot: int, row: Any) -> bool:
        """False: there is nothing of it to take over."""
        owner, generation = names.owner_in(row), int(row["generation"])
        down_name = self.names.down(slot, generation)
        down = None
        try:
            down = Segment.attach(
                down_name, kind=SegmentKind.DOWN, layout=layout.LAYOUT, writable=True
            )
            up = Segment.attach(self.names.up(owner), kind=SegmentKind.UP, layout=layout.LAYOUT)
        except RingbufError as problem:
            return self._leave_out(slot, row, down_name, down, problem)
        said = layout.view(up.memory, layout.UP)[0]
        guest = Guest(slot, generation, layout.text(row["name"]), owner, up.memory, down)
        unconfirmed = int(said["state"]) == layout.UpState.ATTACHING
        gone = int(row["state"]) == RowState.GONE
        if unconfirmed or gone or _kernel.up_shape(up.memory) is None:
            # One that never heard that it was let in knocks again, with the same segment.
            unlink(down_name)
            if not unconfirmed:
                self._unlink_guest(guest)
            return False
        pidfd, stat = processes.open_process(owner.pid, owner.start)
        try:
            self._introduce(guest, pidfd, stat, -1, adopted=True)
        except OSError as problem:
            for fd in (pidfd, stat):
                if fd >= 0:
                    os.close(fd)
            return self._leave_out(slot, row, down_name, down, problem)
        if stat < 0:
            self._kernel.bury(slot, generation)
        self._unseen.add(slot)
        return True

    def _leave_out(
        self, slot: int, row: Any, down_name: str, down: Segment | None, problem: Exception
    ) -> bool:
        """One of whom others removed a name: it goes on without us, so it has to know."""
        if getattr(problem, "errno", None) in (errno.EMFILE, errno.ENFILE):
            raise problem  # and who can open more files adopts them all
        # One that was leaving has removed its names itself.
        level = logging.WARNING if int(row["state"]) == RowState.LIVE else logging.DEBUG
        log.log(level, "bus %r: slot %d cannot be adopted: %s", self.bus, slot, problem)
        if down is not None:
            down.memory.store(layout.offset(layout.DOWN, "state"), layout.DownState.EVICTED)
        unlink(down_name)
        return False

    def _seek_gone(self) -> None:
        """By the end of its connection it shows that a process has called exec. One that did
        before it could show a connection to us has let go of its segment."""
        if not self._unseen or time.monotonic() - self._sought < 1.0:
            return
        self._sought = time.monotonic()
        for slot in list(self._unseen):
            guest = self.guests.get(slot)
            if guest is None or not processes.maps(guest.owner.pid, self.names.up(guest.owner)):
                self._unseen.discard(slot)
                if guest is not None:
                    self._kernel.bury(slot, guest.generation, layout.Reason.EXEC)

    # The control thread -----------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        arrivals: dict[int, socket.socket] = {}
        wake = self._wake[0]
        for fd in (self._door.fileno(), self._kernel.notice_fd, wake):
            poll.register(fd, select.POLLIN)
        while True:
            ready = poll.poll(1e3 * self._pause())
            self._tick()
            try:
                self._seek_gone()
                self._look_out()
                for fd, _ in ready:
                    if fd == wake:
                        for visitor in arrivals.values():
                            visitor.close()
                        return
                    if fd == self._door.fileno():
                        self._accept(poll, arrivals)
                    elif fd == self._kernel.notice_fd:
                        self._clear_away()
                    elif (connection := arrivals.pop(fd, None)) is not None:
                        poll.unregister(fd)
                        self._hear(connection)
                self._retry()
                if ready or not self._cleared:
                    self._clear_dead()
            except Exception:
                log.exception("bus %r: the control plane stumbled and goes on", self.bus)

    def _clear_dead(self) -> None:
        """Remove what those left who died before they were let in. Nothing tells of them, so this
        follows upon whatever happens here."""
        if time.monotonic() - self._cleared > 1.0:
            self._cleared = time.monotonic()
            succession.clear_dead(self.bus, {guest.owner for guest in self.guests.values()})

    def _pause(self) -> float:
        """Seconds until something is to be done, if nobody comes."""
        if self._waiting:
            return 0.005
        return PACE if self._lookout else 1.0

    def _look_out(self) -> None:
        for slot in self._lookout.ended():
            self._kernel.bury(slot, self.guests[slot].generation)

    def _tick(self) -> None:
        self._table.store("control_ns", time.monotonic_ns())

    # Admission --------------------------------------------------------------------------------

    def _accept(self, poll: select.poll, arrivals: dict[int, socket.socket]) -> None:
        while True:
            try:
                connection, _ = self._door.accept()
            except BlockingIOError:
                return
            except OSError as problem:  # no descriptor left: its caller waits
                if not self._shut:
                    why = "bus %r: nobody can be let in: %s; raise ulimit -n"
                    log.warning(why, self.bus, problem)
                self._shut = True
                time.sleep(0.01)
                return
            self._shut = False
            connection.setblocking(False)
            arrivals[connection.fileno()] = connection
            poll.register(connection.fileno(), select.POLLIN)

    def _hear(self, connection: socket.socket) -> None:
        caller = None
        with suppress(OSError):
            caller = door.identify(connection, connection.recv(KNOCK.size + 1))
        if caller is None:
            connection.close()
        else:
            self._admit(Waiting(connection, caller, time.monotonic()))

    def _retry(self) -> None:
        waiting, self._waiting = self._waiting, []
        for guest in waiting:
            self._admit(guest._replace(tries=guest.tries + 1))

    def _admit(self, waiting: Waiting) -> None:
        """Let in, refuse, or keep waiting. Takes over the connection and the caller's
        descriptor."""
        connection, caller = waiting.connection, waiting.caller
        answer: Answer | None
        try:
            answer = self._consider(waiting)
        except (Denied, BusError, RingbufError, OSError) as problem:
            answer = admission.refusal(problem)
        if answer is None:
            self._waiting.append(waiting)
            return
        if answer.code != Code.ADMITTED and caller.pidfd is not None:
            os.close(caller.pidfd)
        with suppress(OSError):  # gone meanwhile: the watcher sees it
            connection.send(answer.pack())
        connection.close()

    def _consider(self, waiting: Waiting) -> Answer | None:
        connection, caller = waiting.connection, waiting.caller
        admission.check_caller(caller)
        for guest in self.guests.values():
            if guest.owner == caller.owner:  # adopted, and here to show its connection
                self._kernel.open_door(guest.slot, guest.generation, os.dup(connection.fileno()))
                self._unseen.discard(guest.slot)
                if caller.pidfd is not None:
                    os.close(caller.pidfd)
                return Answer(Code.ADMITTED, guest.slot, guest.generation, os.getpid())
        candidate = admission.examine(caller, self.names, self._table)
        slot = admission.choose_slot(self._table, candidate.name, patient=waiting.patient)
        if slot is None:
            return None
        admission.check_descriptors(connection)
        return self._let_in(slot, waiting, candidate)

    def _let_in(self, slot: int, waiting: Waiting, candidate: Candidate) -> Answer:
        connection, (owner, _, _, pidfd) = waiting.connection, waiting.caller
        name, up, shape = candidate
        generation = self._table.next_generation()
        slots = len(self._table.rows)
        down = segments.create_down(self.names, slot, generation, shape, slots)
        stat = door = -1
        try:
            stat = _open_stat(owner.pid)
            door = os.dup(connection.fileno())
            self._table.enter(slot, generation, name, owner)
            guest = Guest(slot, generation, name, owner, up, down)
            self._introduce(guest, -1 if pidfd is None else pidfd, stat, door)
        except BaseException:
            self._table.free(slot)
            down.unlink()
            for fd in (stat, door):
                if fd >= 0:
                    os.close(fd)
            raise
        self._table.store("attached", len(self.guests))
        return Answer(Code.ADMITTED, slot, generation, os.getpid())

    def _introduce(
        self, guest: Guest, pidfd: int, stat: int, door: int, *, adopted: bool = False
    ) -> None:
        """Have the kernel serve an endpoint; it takes over the descriptors."""
        self.guests[guest.slot] = guest
        try:
            self._kernel.admit(
                guest.slot,
                guest.generation,
                guest.up,
                guest.down.memory,
                self.names.endpoint_bell(guest.owner),
                guest.owner.pid,
                pidfd,
                stat,
                door,
                adopted=adopted,
            )
        except BaseException:
            del self.guests[guest.slot]
            raise
        if pidfd < 0:
            self._lookout.add(guest.slot, guest.owner)

    # Clearing away ----------------------------------------------------------------------------

    def _clear_away(self) -> None:
        for kind, slot, generation, _ in self._kernel.notices():
            guest = self.guests.get(slot)
            if guest is None or guest.generation != generation:
                continue
            if kind == _kernel.QUARANTINED:
                log.error(
                    "bus %r: endpoint %r (pid %d) wrote what no endpoint may, and was put out",
                    self.bus,
                    guest.name,
                    guest.owner.pid,
                )
            elif kind == _kernel.UNREAD and slot not in self._unread:
                self._unread.add(slot)  # the kernel tries again, and tells each time
                log.warning(
                    "bus %r: what endpoint %r (pid %d) subscribes to and handles cannot be read "
                    "and is tried again: raise ulimit -n, and keep cleaners from /dev/shm",
                    self.bus,
                    guest.name,
                    guest.owner.pid,
                )
            elif kind == _kernel.RECLAIMED:
                del self.guests[slot]
                self._unread.discard(slot)
                self._unseen.discard(slot)
                self._lookout.discard(slot)
                self._kernel.forget(slot, generation)
                self._unlink_guest(guest)
                if int(self._table.rows[slot]["reason"]) != layout.Reason.DETACHED:
                    # What the dead said of themselves need not be true.
                    for path, entry in names.entries(self.bus):
                        if entry.owner == guest.owner:
                            path.unlink(missing_ok=True)
                self._table.free(slot)
                self._table.store("attached", len(self.guests))

    def _unlink_guest(self, guest: Guest) -> None:
        """Remove every name of it; its interests have the serial that it said, or a neighbour."""
        serial = guest.up.load(
            layout.offset(layout.UP, "outgoing")
            + layout.offset(layout.OUTGOING, "interests_serial")
        )
        guest.down.unlink()
        unlink(self.names.up(guest.owner))
        for near in range(max(serial - 1, 0), serial + 2):
            unlink(self.names.interests(guest.owner, near))
        unlink_bell(self.names.endpoint_bell(guest.owner)[1:])

    def evict(self, name: str) -> bool:
        """Put an endpoint off the bus. False: there is none of that name."""
        for guest in list(self.guests.values()):
            if guest.name == name and int(self._table.rows[guest.slot]["state"]) == RowState.LIVE:
                self._kernel.evict(guest.slot, guest.generation)
                return True
        return False

    # Ending -----------------------------------------------------------------------------------

    def close(self, timeout: float | None, *, handover: bool = False) -> None:
        """End the bus, forwarding what is on its way for ``timeout`` seconds at most; or leave it
        to be adopted. By one thread at a time; harmless if done before."""
        if os.getpid() != self._pid or self._closed:  # forked since: the parent serves
            return
        self._closed = True
        self._table.store("state", layout.BusState.CLOSING)
        os.write(self._wake[1], b"x")
        self._thread.join()
        if handover:
            self._kernel.stop(0)
            self._drop(unlink=False)
            return
        self._kernel.stop(timeout)
        self._table.store("state", layout.BusState.ENDED)
        self._kernel.wake_all()
        self._drop(unlink=True)

    def _drop(self, *, unlink: bool) -> None:
        """Let go of everything; with ``unlink``, leave no name behind, else the bus to the next."""
        self._opened.close()
        if not unlink:
            self._table.store("state", layout.BusState.HANDOVER)
        for waiting in self._waiting:
            waiting.connection.close()
            if waiting.caller.pidfd is not None:
                os.close(waiting.caller.pidfd)
        if unlink:
            for guest in self.guests.values():
                self._unlink_guest(guest)
            for part in self._standing:
                part.unlink()
            if self._standing:  # else what stands there is not ours, and who waits for it may live
                succession.clear_dead(self.bus, set())
        self.guests.clear()
        fence.release(self.bus, remove=unlink)


_serving: WeakSet[Dispatcher] = WeakSet()


def _after_fork() -> None:
    """In a child, where its door would stay open when we are dead, and nobody answer there."""
    for dispatcher in _serving:
        dispatcher._door.close()
    _serving.clear()


os.register_at_fork(after_in_child=_after_fork)


def _open_stat(pid: int) -> int:
    return os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
