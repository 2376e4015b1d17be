"""The control plane: admits endpoints, clears away after them, and begins and ends a bus.

Slow and careful things are decided here, in one Python thread; the forwarding thread and the
watcher of the kernel never wait for it. What it decides stands in BUS before it tells the kernel.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from typing import Any, NamedTuple

from ringbuf import RingbufError, Segment
from ringbuf._kernel import Mapping
from ringbuf.doorbell import Doorbell
from ringbuf.doorbell import unlink as unlink_bell
from ringbuf.segment import unlink

from . import _kernel, door, errors, fence, layout, names, processes, segments, succession
from .door import Answer, Caller, Code
from .layout import RowState, SegmentKind
from .names import Owner
from .settings import Settings

log = logging.getLogger("shmbus")

_LINE = 64
_SPARE_DESCRIPTORS = 16
_REMEMBERED = 30 * 10**9  # ns that a slot stays free, so that its last holder's name is known
_PATIENCE = 1.0  # seconds that a newcomer waits for a name on its way out


class Guest(NamedTuple):
    """An admitted endpoint: what of it the dispatcher has in its hands."""

    slot: int
    generation: int
    name: str
    owner: Owner
    up: Mapping
    down: Segment


class Waiting(NamedTuple):
    """Somebody at the door whose name is still being cleared away."""

    connection: socket.socket
    caller: Caller
    since: float


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
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []
        self._unseen: set[int] = set()  # slots of the adopted who have not shown a connection yet
        self._sought = 0.0
        self._closed = False
        self._pid = os.getpid()
        self._version = version("shmbus").encode()  # looked up while nobody waits for us
        try:
            succession.take_fence(bus)
            try:
                self._open(replace)
            except BaseException:
                self._drop(unlink=not self._adopting)
                raise
        except (OSError, RingbufError) as problem:
            name = os.path.basename(getattr(problem, "filename", None) or self.names.bus_segment)
            raise segments.error(bus, name, problem) from problem

    # Beginning --------------------------------------------------------------------------------

    _adopting = False
    _segment: Segment | None = None
    _ready: Segment | None = None
    _bell: Doorbell | None = None
    _kernel: _kernel.Forwarder | None = None
    _door: socket.socket | None = None
    _wake: tuple[int, ...] = ()
    _thread: threading.Thread | None = None

    def _open(self, replace: bool) -> None:
        standing = succession.standing(self.bus, replace=replace)
        self._adopting = standing is not None
        if standing is None:
            succession.clear(self.bus)
            self._segment = self._make_bus()
            slots = -(-self.settings.max_endpoints // 16) * 16  # whole cache lines
            size = layout.PREFIX.itemsize + 4 * slots
            self._ready = segments.create(self.names.ready, size, SegmentKind.READY)
            epoch = layout.offset(layout.BUS, "bell")
            self._bell = Doorbell.create(self.names.bell[1:], self._segment.memory, epoch)
        else:
            self._segment, self._ready, self._bell = standing
        self.head = layout.view(self._segment.memory, layout.BUS)[0]
        self._rows_at = int(self.head["rows_offset"])
        self.rows = layout.view(
            self._segment.memory, layout.ROW, int(self.head["slots"]), self._rows_at
        )
        self._kernel = _kernel.Forwarder(
            self._segment.memory,
            self._ready.memory,
            "/" + self.names.prefix[:-1],
            self.names.bell,
            spin_ns=self.settings.spin_ns,
            adopting=self._adopting,
        )
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._door = door.listen(self.bus)
        if self._adopting:
            self._adopt()
        self._tick()
        self._kernel.start()
        self._store("state", layout.BusState.SERVING)
        self._thread = threading.Thread(target=self._run, name=f"shmbus {self.bus}", daemon=True)
        self._thread.start()

    # Adoption ---------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over the bus of a dispatcher that is no more: its place first, then its guests."""
        sequence = int(self.head["identity_seq"]) | 1
        self._store("identity_seq", sequence)
        self.head["identity"] = processes.identity()
        self.head["serial"] += 1
        self.head["started_ns"] = time.monotonic_ns()
        self.head["package"] = self._version
        self._store("identity_seq", sequence + 1)
        for slot, row in enumerate(self.rows):
            if int(row["seq"]) % 2:  # killed while it changed
                with _RowChange(self, slot):
                    pass
            if int(row["state"]) != RowState.FREE and not self._adopt_guest(slot, row):
                self._free_row(slot)
        self._store("attached", len(self.guests))

    def _adopt_guest(self, slot: int, row: Any) -> bool:
        """False: there is nothing of it to take over."""
        assert self._kernel is not None
        identity, generation = row["identity"], int(row["generation"])
        owner = Owner(
            int(identity["pid"]), int(identity["start_time"]), f"{int(row['nonce']):016x}"
        )
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
        state = int(row["state"])
        unconfirmed = int(said["state"]) == layout.UpState.ATTACHING
        if unconfirmed or state == RowState.GONE or _kernel.up_shape(up.memory) is None:
            # One that never heard that it was let in knocks again, with the same segment.
            unlink(down_name)
            if not unconfirmed:
                self._unlink_guest(guest)
            return False
        pidfd, stat = processes.open_process(owner.pid, owner.start)
        bell = self.names.endpoint_bell(owner)
        try:
            self._kernel.admit(
                slot,
                generation,
                up.memory,
                down.memory,
                bell,
                owner.pid,
                pidfd,
                stat,
                -1,
                adopted=True,
            )
        except OSError as problem:
            for fd in (pidfd, stat):
                if fd >= 0:
                    os.close(fd)
            return self._leave_out(slot, row, down_name, down, problem)
        self.guests[slot] = guest
        if stat < 0:
            self._kernel.bury(slot, generation)
        self._unseen.add(slot)
        return True

    def _leave_out(
        self, slot: int, row: Any, down_name: str, down: Segment | None, problem: Exception
    ) -> bool:
        """One of whom others removed a name: it goes on without us, so it has to know."""
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
        assert self._kernel is not None
        if not self._unseen or time.monotonic() - self._sought < 1.0:
            return
        self._sought = time.monotonic()
        for slot in list(self._unseen):
            guest = self.guests.get(slot)
            if guest is None or not processes.maps(guest.owner.pid, self.names.up(guest.owner)):
                self._unseen.discard(slot)
                if guest is not None:
                    self._kernel.bury(slot, guest.generation, layout.Reason.EXEC)

    def _make_bus(self) -> Segment:
        settings, me = self.settings, processes.identity()
        rows = -(-layout.BUS.itemsize // _LINE) * _LINE
        size = rows + settings.max_endpoints * layout.ROW.itemsize

        def prepare(memory: Mapping) -> None:
            head = layout.view(memory, layout.BUS)[0]
            head["identity"] = me
            head["serial"] = 1
            head["started_ns"] = time.monotonic_ns()
            head["slots"] = settings.max_endpoints
            head["ring_bytes"] = settings.ring_bytes
            head["max_requests"] = settings.request_limit
            head["block_timeout_ns"] = int(settings.block_timeout * 1e9)
            head["stall_after_ns"] = int(settings.stall_after * 1e9)
            head["prefetch"] = settings.prefetch
            head["max_deliveries"] = settings.max_deliveries
            head["batch_per_pass"] = settings.batch_per_pass
            head["rows_offset"] = rows
            head["name"] = self.bus.encode()
            head["package"] = self._version
            head["last_generation"] = 1  # the bus itself

        return segments.create(self.names.bus_segment, size, SegmentKind.BUS, prepare=prepare)

    # The control thread -----------------------------------------------------------------------

    def _run(self) -> None:
        assert self._door is not None
        assert self._kernel is not None
        poll = select.poll()
        arrivals: dict[int, socket.socket] = {}
        wake = self._wake[0]
        for fd in (self._door.fileno(), self._kernel.notice_fd, wake):
            poll.register(fd, select.POLLIN)
        if self._adopting:
            with suppress(OSError):
                guests = {str(guest.owner) for guest in self.guests.values()}
                succession.clear_dead(self.bus, guests)
        while True:
            ready = poll.poll(5 if self._waiting else 1000)
            self._tick()
            try:
                self._seek_gone()
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
            except Exception:
                log.exception("bus %r: the control plane stumbled and goes on", self.bus)

    def _tick(self) -> None:
        self._store("control_ns", time.monotonic_ns())

    def _store(self, field: str, value: int) -> None:
        assert self._segment is not None
        self._segment.memory.store(layout.offset(layout.BUS, field), value)

    # Admission --------------------------------------------------------------------------------

    def _accept(self, poll: select.poll, arrivals: dict[int, socket.socket]) -> None:
        assert self._door is not None
        while True:
            try:
                connection, _ = self._door.accept()
            except BlockingIOError:
                return
            except OSError as problem:  # no descriptor left: its caller tries again
                log.warning("bus %r: nobody can be let in: %s; raise ulimit -n", self.bus, problem)
                time.sleep(0.01)
                return
            connection.setblocking(False)
            arrivals[connection.fileno()] = connection
            poll.register(connection.fileno(), select.POLLIN)

    def _hear(self, connection: socket.socket) -> None:
        try:
            caller = door.identify(connection, connection.recv(door.KNOCK.size + 1))
        except OSError:
            caller = None
        if caller is None:
            connection.close()
            return
        self._admit(Waiting(connection, caller, time.monotonic()))

    def _retry(self) -> None:
        waiting, self._waiting = self._waiting, []
        for guest in waiting:
            self._admit(guest)

    def _admit(self, waiting: Waiting) -> None:
        """Let in, refuse, or keep waiting. Takes over the connection and the caller's
        descriptor."""
        connection, caller, since = waiting
        answer: Answer | None
        try:
            answer = self._consider(
                caller, connection, patient=time.monotonic() - since < _PATIENCE
            )
        except errors.SegmentError as problem:
            free, size = problem.free, problem.size
            if free is None or size is None:
                text = f"{problem.reason}\n{problem.remedy}"
                answer = Answer(Code.REFUSED, pid=os.getpid(), text=text)
            else:
                text = f"{problem.name}\n{free}"
                answer = Answer(Code.NO_SPACE, pid=os.getpid(), number=size, text=text)
        except (errors.BusError, RingbufError) as problem:
            remedy = getattr(problem, "remedy", "")
            answer = Answer(Code.REFUSED, pid=os.getpid(), text=f"{problem}\n{remedy}")
        except OSError as problem:
            answer = Answer(
                Code.REFUSED, pid=os.getpid(), text=f"the dispatcher could not: {problem}"
            )
        if answer is None:
            self._waiting.append(waiting)
            return
        if answer.code != Code.ADMITTED and caller.pidfd is not None:
            os.close(caller.pidfd)
        try:
            connection.send(answer.pack())
        except OSError:
            pass  # gone meanwhile: the watcher sees it
        connection.close()

    def _consider(
        self, caller: Caller, connection: socket.socket, *, patient: bool
    ) -> Answer | None:
        assert self._kernel is not None
        me = os.getpid()
        if caller.layout != layout.LAYOUT:
            return Answer(Code.OTHER_LAYOUT, pid=me, number=layout.LAYOUT)
        if caller.uid != os.geteuid():
            return Answer(
                Code.REFUSED,
                pid=me,
                text=f"uid {caller.uid} is not this bus's user\nServe a bus as that user",
            )
        for guest in self.guests.values():
            if guest.owner == caller.owner:  # adopted, and here to show its connection
                self._kernel.open_door(guest.slot, guest.generation, os.dup(connection.fileno()))
                self._unseen.discard(guest.slot)
                if caller.pidfd is not None:
                    os.close(caller.pidfd)
                return Answer(Code.ADMITTED, guest.slot, guest.generation, me)
        up = Segment.attach(
            self.names.up(caller.owner), kind=SegmentKind.UP, layout=layout.LAYOUT
        ).memory
        if (shape := _kernel.up_shape(up)) is None:
            return Answer(Code.REFUSED, pid=me, text="its segment is not sound\nAttach again")
        said = layout.view(up, layout.UP)[0]
        theirs, mine = said["identity"], self.head["identity"]
        for what in ("pid_namespace", "time_namespace"):
            if int(theirs[what]) != int(mine[what]):
                kind = what.partition("_")[0]
                return Answer(
                    Code.REFUSED,
                    pid=me,
                    text=f"it is in another {kind} namespace than the dispatcher\n"
                    "Run both in one, or let the containers share it",
                )
        if caller.owner.start != processes.start_time(caller.owner.pid):
            return Answer(
                Code.REFUSED, pid=me, text="its segment names another process\nAttach again"
            )
        name = names.check_endpoint(layout.text(said["name"]))
        free: list[int] = []
        for row in range(len(self.rows)):
            state = int(self.rows[row]["state"])
            if state == RowState.FREE:
                free.append(row)
            elif (
                state in (RowState.LIVE, RowState.LEAVING)
                and layout.text(self.rows[row]["name"]) == name
            ):
                holder = self.rows[row]["identity"]
                leaving = state == RowState.LEAVING or not processes.process_alive(
                    int(holder["pid"]), int(holder["start_time"])
                )
                if leaving and patient:
                    return None
                return Answer(Code.NAME_TAKEN, pid=int(holder["pid"]), text=name)
        if not free:
            if patient and any(
                int(row["state"]) in (RowState.DYING, RowState.GONE) for row in self.rows
            ):
                return None
            return Answer(Code.BUS_FULL, pid=me, number=len(self.rows))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY and connection.fileno() + _SPARE_DESCRIPTORS > limit:
            return Answer(
                Code.REFUSED,
                pid=me,
                text=f"the dispatcher may open {limit} files, and each endpoint takes three\n"
                "Raise ulimit -n",
            )
        return self._let_in(self._choose_slot(free), name, caller, up, shape, connection)

    def _choose_slot(self, free: list[int]) -> int:
        """The first whose last holder is long forgotten, else the one that has been free longest:
        until a slot has a new holder, its row says who sent the messages of the old one."""
        left = {slot: int(self.rows[slot]["down_ns"]) for slot in free}
        before = time.monotonic_ns() - _REMEMBERED
        return next((slot for slot in free if left[slot] < before), min(free, key=left.__getitem__))

    def _let_in(
        self,
        slot: int,
        name: str,
        caller: Caller,
        up: Mapping,
        shape: tuple[int, int, int],
        connection: socket.socket,
    ) -> Answer:
        assert self._kernel is not None
        generation = int(self.head["last_generation"]) + 1
        self._store("last_generation", generation)
        down = self._make_down(slot, generation, shape)
        stat = door = -1
        try:
            stat = _open_stat(caller.owner.pid)
            door = os.dup(connection.fileno())
            self._write_row(slot, generation, name, caller.owner)
            guest = Guest(slot, generation, name, caller.owner, up, down)
            self.guests[slot] = guest
            self._kernel.admit(
                slot,
                generation,
                up,
                down.memory,
                self.names.endpoint_bell(caller.owner),
                caller.owner.pid,
                -1 if caller.pidfd is None else caller.pidfd,
                stat,
                door,
            )
        except BaseException:
            self.guests.pop(slot, None)
            self._free_row(slot)
            down.unlink()
            for fd in (stat, door):
                if fd >= 0:
                    os.close(fd)
            raise
        self._store("attached", len(self.guests))
        return Answer(Code.ADMITTED, slot, generation, os.getpid())

    def _make_down(self, slot: int, generation: int, shape: tuple[int, int, int]) -> Segment:
        *capacities, requests = shape
        todo = 2 * len(self.rows)
        targets_at = _line(layout.DOWN.itemsize)
        todo_at = _line(targets_at + requests * layout.TARGET.itemsize)
        at = _line(todo_at + todo * layout.TODO_TARGET.itemsize)
        places = []
        for kind, capacity in enumerate(capacities):
            places.append((at, capacity, kind, 0, 0, 0))
            at = _line(at + capacity)

        def prepare(memory: Mapping) -> None:
            down = layout.view(memory, layout.DOWN)[0]
            down["slot"], down["generation"] = slot, generation
            down["incoming_place"] = places
            down["target_count"], down["target_offset"] = requests, targets_at
            down["todo_count"], down["todo_offset"] = todo, todo_at
            down["state"] = layout.DownState.LIVE
            down["incoming"]["need"] = layout.NOWHERE
            down["incoming"]["reclaim"] = layout.NOWHERE
            down["todo"]["from"] = layout.NOWHERE

        return segments.create(
            self.names.down(slot, generation),
            at,
            SegmentKind.DOWN,
            generation=generation,
            prepare=prepare,
        )

    def _write_row(self, slot: int, generation: int, name: str, owner: Owner) -> None:
        identity = self.head["identity"].copy()  # of the same user and namespaces
        identity["pid"], identity["start_time"] = owner.pid, owner.start
        with _RowChange(self, slot) as row:
            row["generation"] = generation
            row["reason"] = row["health"] = row["down_ns"] = row["said"] = 0
            row["since_ns"], row["since_wall_ns"] = time.monotonic_ns(), time.time_ns()
            row["identity"] = identity
            row["nonce"] = int(owner.nonce, 16)
            row["name"] = name.encode()
            row["state"] = RowState.LIVE

    def _free_row(self, slot: int) -> None:
        with _RowChange(self, slot) as row:
            # The name stays until the slot is given away: what it sent may still be read.
            row["state"] = RowState.FREE

    # Clearing away ----------------------------------------------------------------------------

    def _clear_away(self) -> None:
        assert self._kernel is not None
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
            elif kind == _kernel.RECLAIMED:
                del self.guests[slot]
                self._unseen.discard(slot)
                self._kernel.forget(slot, generation)
                self._unlink_guest(guest)
                if int(self.rows[slot]["reason"]) != layout.Reason.DETACHED:
                    # What the dead said of themselves need not be true.
                    for path, entry in names.entries(self.bus):
                        if entry.owner == guest.owner:
                            path.unlink(missing_ok=True)
                self._free_row(slot)
                self._store("attached", len(self.guests))

    def _unlink_guest(self, guest: Guest) -> None:
        serial = guest.up.load(
            layout.offset(layout.UP, "outgoing")
            + layout.offset(layout.OUTGOING, "interests_serial")
        )
        guest.down.unlink()
        remove_endpoint(self.names, guest.owner, serial)

    def evict(self, name: str) -> bool:
        """Put an endpoint off the bus. False: there is none of that name."""
        assert self._kernel is not None
        for guest in list(self.guests.values()):
            if guest.name == name and int(self.rows[guest.slot]["state"]) == RowState.LIVE:
                self._kernel.evict(guest.slot, guest.generation)
                return True
        return False

    # Ending -----------------------------------------------------------------------------------

    def close(self, timeout: float | None, *, handover: bool = False) -> None:
        """End the bus, forwarding what is on its way for ``timeout`` seconds at most; or leave it
        to be adopted."""
        if os.getpid() != self._pid:  # forked since: it is the parent who serves
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        assert self._kernel is not None
        assert self._thread is not None
        self._store("state", layout.BusState.CLOSING)
        os.write(self._wake[1], b"x")
        self._thread.join()
        if handover:
            self._kernel.stop(0)
            self._store("state", layout.BusState.HANDOVER)
            self._drop(unlink=False)
            return
        self._kernel.stop(timeout)
        self._store("state", layout.BusState.ENDED)
        self._kernel.wake_all()
        self._drop(unlink=True)

    def _drop(self, *, unlink: bool) -> None:
        """Let go of everything; with ``unlink``, leave no name behind."""
        if self._door is not None:
            self._door.close()
            try:
                os.unlink(names.SHM / self.names.door)
            except FileNotFoundError:
                pass
        if self._kernel is not None:
            self._kernel.close()
        for waiting in self._waiting:
            waiting.connection.close()
        if unlink:
            for guest in self.guests.values():
                self._unlink_guest(guest)
            for segment in (self._ready, self._segment):
                if segment is not None:
                    segment.unlink()
            if self._bell is not None:
                self._bell.unlink()
        self.guests.clear()
        for fd in self._wake:
            os.close(fd)
        fence.release(self.bus, remove=unlink)


class _RowChange:
    """A slot row while it changes: its sequence number is odd."""

    def __init__(self, dispatcher: Dispatcher, slot: int) -> None:
        assert dispatcher._segment is not None
        self._memory = dispatcher._segment.memory
        self._at = dispatcher._rows_at + slot * layout.ROW.itemsize
        self._row: Any = dispatcher.rows[slot]

    def __enter__(self) -> Any:
        self._memory.store(self._at, (self._memory.load(self._at) + 1) | 1)
        return self._row

    def __exit__(self, *_: object) -> None:
        self._memory.store(self._at, self._memory.load(self._at) + 1)


def remove_endpoint(bus: names.BusNames, owner: Owner, serial: int) -> None:
    """Unlink the names that an endpoint made; the segment of its interests is the one of
    ``serial`` or a neighbour."""
    unlink(bus.up(owner))
    for near in range(max(serial - 1, 0), serial + 2):
        unlink(bus.interests(owner, near))
    unlink_bell(bus.endpoint_bell(owner)[1:])


def _open_stat(pid: int) -> int:
    return os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)


def _line(at: int) -> int:
    return -(-at // _LINE) * _LINE
