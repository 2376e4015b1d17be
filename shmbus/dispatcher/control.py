"""The control plane: the life of a dispatcher, from its beginning to the end of the bus.

What may take long is done here, in one Python thread; the native forwarding and liveness threads
never wait for it. What it decides is written to BUS before the C kernel gets the order.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple
from weakref import WeakSet

from ringbuf import RingbufError, Segment
from ringbuf._kernel import Mapping
from ringbuf.doorbell import unlink as unlink_bell
from ringbuf.segment import SHORTAGES, unlink
from shmbus.errors import BusError, NoThread
from shmbus.settings import Settings
from shmbus.shared import fence, layout, names, processes, segments, shortage, threads
from shmbus.shared._kernel import monotonic, monotonic_ns
from shmbus.shared.door import Answer
from shmbus.shared.grants import Grant, Grants
from shmbus.shared.layout import DoorCode, RowState, SegmentKind
from shmbus.shared.names import Owner
from shmbus.shared.processes import Descriptors

from . import _kernel, admission, door, succession
from .admission import Denied, Examined, Waiting
from .asking import Host
from .table import Table

log = logging.getLogger("shmbus")


class Admitted(NamedTuple):
    """An admitted endpoint, and the dispatcher's mappings of its segments."""

    slot: int
    generation: int
    name: str
    owner: Owner
    up: Mapping
    down: Segment


class Dispatcher:
    """The dispatcher of one bus, hosted by this process: the native threads and the control
    thread.

    Raises ``BusExists``, ``LayoutMismatch``, ``SegmentError``, ``InvalidName``.
    """

    def __init__(
        self,
        bus: str,
        settings: Settings,
        *,
        replace: bool = False,
        grants: Grants | None = None,
    ) -> None:
        # Here, as only who serves needs them, and they take long.
        from importlib.metadata import version

        from .lookout import Lookout

        self.bus = bus
        self.grants = grants
        self._host = Host(bus, grants)
        self.settings = settings
        self.names = names.names_of(bus)
        self.admitted: dict[int, Admitted] = {}
        self._waiting: list[Waiting] = []
        self._unread: set[int] = set()  # slots whose interests could not be read, warned of once
        self._cleared = 0.0  # when: monotonic()
        self._lookout = Lookout()
        self._out_of_files = False  # no descriptor is left to admit with, and it was logged
        self._closed = False
        self.adopting = False
        self._standing: succession.Standing | None = None
        self._opened = ExitStack()  # what ends with this dispatcher
        self._pid = os.getpid()
        self._version = version(
            "shmbus"
        ).encode()  # looked up now: later, callers would wait for it
        with shortage.told(bus, "memory to serve with"):
            succession.take_fence(bus)
            try:
                self._open(replace)
            except BaseException:
                self._drop(unlink=not self.adopting)
                raise

    # Beginning --------------------------------------------------------------------------------

    def _open(self, replace: bool) -> None:
        found = succession.standing(self.bus, replace=replace)
        self.adopting = found is not None
        self._standing = found or succession.begin(self.bus, self.settings, self._version)
        self._table = Table(self._standing.bus)
        with shortage.told(self.bus, "memory and descriptors to forward with"):
            self._kernel = _kernel.Forwarder(
                self._standing.bus.memory,
                self._standing.ready.memory,
                "/" + self.names.prefix[:-1],
                self.names.bell,
                spin_ns=self.settings.spin_ns,
                adopting=self.adopting,
            )
        self._opened.callback(self._kernel.close)
        with shortage.told(self.bus, "pipe"):
            self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for fd in self._wake:
            self._opened.callback(os.close, fd)
        self._opened.callback((names.SHM / self.names.door).unlink, missing_ok=True)
        with shortage.told(self.bus, "socket for its door"):
            self._door = self._opened.enter_context(door.listen(self.bus))
        _serving.add(self)
        if self.adopting:
            self._adopt()
        self._tick()
        self._kernel.start(self.bus)
        self._table.store("state", layout.BusState.SERVING)
        self._thread = threading.Thread(target=self._run, name=f"shmbus {self.bus}", daemon=True)
        try:
            threads.start(self._thread)
        except RuntimeError as why:
            del self._thread  # which refers to us
            raise NoThread(bus=self.bus, task="control plane", reason=str(why)) from None

    # Adoption ---------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over the bus of a dispatcher that has ended: BUS first, then its endpoints."""
        self._table.take_over(self._version)
        for slot, row in enumerate(self._table.rows):
            if int(row["state"]) != RowState.FREE and not self._adopt_endpoint(slot, row):
                self._table.free(slot)
        self._table.store("attached", len(self.admitted))
        succession.clear_made(self.bus, self._table.listed(self.names))

    def _adopt_endpoint(self, slot: int, row: Any) -> bool:
        """Serve an endpoint that a row of the table names. False: it has gone."""
        owner, generation = names.owner_in(row), int(row["generation"])
        down_name = self.names.down(slot, generation)
        down = None
        try:
            down = Segment.attach(
                down_name, kind=SegmentKind.DOWN, layout=layout.LAYOUT, writable=True
            )
            up = Segment.attach(self.names.up(owner), kind=SegmentKind.UP, layout=layout.LAYOUT)
        except RingbufError as problem:
            return self._give_up(slot, row, down_name, down, problem)
        up_head = layout.view(up.memory, layout.UP)[0]
        endpoint = Admitted(slot, generation, layout.text(row["name"]), owner, up.memory, down)
        unconfirmed = int(up_head["state"]) == layout.UpState.ATTACHING
        gone = int(row["state"]) == RowState.GONE
        if unconfirmed or gone or _kernel.up_shape(up.memory) is None:
            # An endpoint that never got its answer knocks again, with the same segment.
            unlink(down_name)
            if not unconfirmed:
                self._unlink(endpoint)
            return False
        process = processes.open_process(owner.pid, owner.start)
        descriptors = process or Descriptors()
        try:
            self._start_serving(endpoint, descriptors, door=-1, adopted=True)
        except OSError as problem:
            descriptors.close()
            return self._give_up(slot, row, down_name, down, problem)
        if process is None:
            self._kernel.mark_dead(slot, generation)
        return True

    def _give_up(
        self, slot: int, row: Any, down_name: str, down: Segment | None, problem: Exception
    ) -> bool:
        """An endpoint cannot be adopted: its names are gone. It may be alive: say that it has
        ended, and that what is left of them is its own to remove."""
        if getattr(problem, "errno", None) in SHORTAGES:
            raise problem  # a dispatcher that gets more of the system can adopt all endpoints
        owner = names.owner_in(row)
        # An endpoint that was leaving has removed its names itself.
        level = logging.WARNING if int(row["state"]) == RowState.LIVE else logging.DEBUG
        log.log(level, "bus %r: slot %d cannot be adopted: %s", self.bus, slot, problem)
        if processes.process_alive(owner.pid, owner.start):  # it may look at blocks of others
            self._kernel.miss()
        if down is not None:
            down.memory.store(layout.offset(layout.DOWN, "state"), layout.DownState.RECLAIMED)
        unlink(down_name)
        return False

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
                self._end_dead()
                for fd, _ in ready:
                    if fd == wake:
                        for arrived in arrivals.values():
                            arrived.close()
                        return
                    if fd == self._door.fileno():
                        self._accept(poll, arrivals)
                    elif fd == self._kernel.notice_fd:
                        self._take_notices()
                    elif (connection := arrivals.pop(fd, None)) is not None:
                        poll.unregister(fd)
                        self._read_knock(connection)
                self._retry()
                if ready or not self._cleared:
                    self._clear_dead()
            except Exception:
                log.exception("bus %r: an error in the control plane; it goes on", self.bus)

    def _clear_dead(self) -> None:
        """Remove what processes left that died before they were admitted. Nothing reports those
        deaths, so look whenever something else has happened, once a second at most."""
        if monotonic() - self._cleared > 1.0:
            self._cleared = monotonic()
            succession.clear_dead(self.bus, {endpoint.owner for endpoint in self.admitted.values()})

    def _pause(self) -> float:
        """Seconds to sleep if no descriptor becomes readable."""
        if self._waiting:
            return 0.005
        return self._lookout.PACE if self._lookout else 1.0

    def _end_dead(self) -> None:
        for slot in self._lookout.ended():
            self._kernel.mark_dead(slot, self.admitted[slot].generation)

    def _tick(self) -> None:
        self._table.store("control_ns", monotonic_ns())

    # Admission --------------------------------------------------------------------------------

    def _accept(self, poll: select.poll, arrivals: dict[int, socket.socket]) -> None:
        while True:
            try:
                connection, _ = self._door.accept()
            except BlockingIOError:
                return
            except OSError as problem:  # no descriptor left: the caller waits in the backlog
                if not self._out_of_files:
                    why = "bus %r: no endpoint can be admitted: %s; raise ulimit -n"
                    log.warning(why, self.bus, problem)
                self._out_of_files = True
                time.sleep(0.01)
                return
            self._out_of_files = False
            connection.setblocking(False)
            arrivals[connection.fileno()] = connection
            poll.register(connection.fileno(), select.POLLIN)

    def _read_knock(self, connection: socket.socket) -> None:
        caller = None
        with suppress(OSError):
            caller = door.read(connection)
        if caller is None:
            connection.close()
        else:
            self._admit(Waiting(connection, caller, monotonic()))

    def _retry(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            self._admit(one._replace(tries=one.tries + 1))

    def _admit(self, waiting: Waiting) -> None:
        """Admit, refuse, or keep waiting. Takes over the connection and the caller's
        descriptor."""
        connection, caller = waiting.connection, waiting.caller
        answer: Answer | None
        try:
            answer = self._consider(waiting)
        except (Denied, BusError) as problem:
            answer = admission.refusal(problem)
        except (OSError, MemoryError, RingbufError) as problem:
            answer = admission.refusal(
                shortage.error(self.bus, "memory or descriptor for it in the dispatcher", problem)
            )
        except Exception as problem:  # a fault of ours: the caller must not wait for an answer
            log.exception("bus %r: an endpoint could not be admitted", self.bus)
            answer = admission.refusal(problem)
        caller.passed.close()
        if answer is not None:
            self._host.forget(caller.owner)
        if answer is None:
            self._waiting.append(waiting._replace(caller=caller._replace(passed=door.Passed())))
            return
        if answer.code != DoorCode.ADMITTED and caller.pidfd is not None:
            os.close(caller.pidfd)
        with suppress(OSError):  # it died meanwhile: the liveness thread sees that
            connection.send(answer.pack())
        connection.close()

    def _consider(self, waiting: Waiting) -> Answer | None:
        connection, caller = waiting.connection, waiting.caller
        admission.check_caller(caller)
        for endpoint in self.admitted.values():
            if endpoint.owner == caller.owner:
                return self._recognise(endpoint, waiting)
        if caller.passed:
            raise Denied("it passed a descriptor, and is not attached\nAttach again")
        examined = admission.examine(caller, self.names, self._table)
        slot = admission.choose_slot(self._table, examined.name, patient=waiting.patient)
        if slot is None:
            return None
        admission.check_descriptors(connection)
        question = self._host.ask(caller.owner, examined.name)
        if question is not None and question.waits:
            return None
        grant = None if question is None else question.answer()
        return self._enter(slot, waiting, examined, grant)

    def _recognise(self, endpoint: Admitted, waiting: Waiting) -> Answer:
        """An endpoint that is attached passes its event, or, having been adopted, shows its
        connection to the new dispatcher."""
        connection, caller = waiting.connection, waiting.caller
        slot, generation = endpoint.slot, endpoint.generation
        if caller.passed:
            self._kernel.open_event(slot, generation, os.dup(admission.event_of(caller)))
        else:
            self._kernel.open_door(slot, generation, os.dup(connection.fileno()))
        if caller.pidfd is not None:
            os.close(caller.pidfd)
        return Answer(DoorCode.ADMITTED, slot, generation, os.getpid())

    def _enter(
        self, slot: int, waiting: Waiting, examined: Examined, grant: Grant | None
    ) -> Answer:
        owner, pidfd = waiting.caller.owner, waiting.caller.pidfd
        generation = self._table.next_generation()
        slots = len(self._table.rows)
        down = segments.create_down(self.names, slot, generation, examined.shape, slots, grant)
        stat = door = -1
        try:
            stat = _open_stat(owner.pid)
            door = os.dup(waiting.connection.fileno())
            self._table.enter(slot, generation, examined.name, owner)
            endpoint = Admitted(slot, generation, examined.name, owner, examined.up, down)
            process = Descriptors(-1 if pidfd is None else pidfd, stat)
            self._start_serving(endpoint, process, door=door)
        except BaseException:
            self._table.free(slot)
            down.unlink()
            for fd in (stat, door):
                if fd >= 0:
                    os.close(fd)
            raise
        self._table.store("attached", len(self.admitted))
        return Answer(DoorCode.ADMITTED, slot, generation, os.getpid())

    def _start_serving(
        self, endpoint: Admitted, process: Descriptors, *, door: int, adopted: bool = False
    ) -> None:
        """Have the C kernel serve an endpoint; it takes over the descriptors."""
        self.admitted[endpoint.slot] = endpoint
        try:
            self._kernel.admit(
                endpoint.slot,
                endpoint.generation,
                endpoint.up,
                endpoint.down.memory,
                up_file=self.names.up(endpoint.owner),
                bell=self.names.endpoint_bell(endpoint.owner),
                pid=endpoint.owner.pid,
                pidfd=process.pidfd,
                stat=process.stat,
                door=door,
                adopted=adopted,
            )
        except BaseException:
            del self.admitted[endpoint.slot]
            raise
        if process.pidfd < 0:
            self._lookout.add(endpoint.slot, endpoint.owner)

    # Notices ----------------------------------------------------------------------------------

    def _take_notices(self) -> None:
        for notice in self._kernel.notices():
            if notice.kind == _kernel.UNUSED_POOL:  # its endpoint may have gone before
                unlink(self.names.pool(notice.slot, notice.generation))
                continue
            if notice.kind == _kernel.UNUSED_PAGES:
                self._kernel.free_pages(notice.slot, notice.generation, notice.start, notice.size)
                continue
            endpoint = self.admitted.get(notice.slot)
            if endpoint is None or endpoint.generation != notice.generation:
                continue
            if notice.kind == _kernel.QUARANTINED:
                log.error(
                    "bus %r: endpoint %r (pid %d) wrote what no endpoint may write: quarantined",
                    self.bus,
                    endpoint.name,
                    endpoint.owner.pid,
                )
            elif notice.kind == _kernel.UNREAD and notice.slot not in self._unread:
                self._unread.add(
                    notice.slot
                )  # the forwarding thread tries again, with a notice each time
                log.warning(
                    "bus %r: what endpoint %r (pid %d) subscribes to and handles cannot be read "
                    "and is tried again: raise ulimit -n, and keep cleaners from /dev/shm",
                    self.bus,
                    endpoint.name,
                    endpoint.owner.pid,
                )
            elif notice.kind == _kernel.RECLAIMED:
                self._remove(endpoint)

    def _remove(self, endpoint: Admitted) -> None:
        """The C kernel has handled the end of an endpoint: free its slot, and remove its names."""
        slot = endpoint.slot
        del self.admitted[slot]
        self._unread.discard(slot)
        self._lookout.discard(slot)
        self._kernel.forget(slot, endpoint.generation)
        self._unlink(endpoint)
        if int(self._table.rows[slot]["reason"]) != layout.Reason.DETACHED:
            # The serial of its interests that a dead endpoint wrote may be wrong.
            for path, entry in names.entries(self.bus):
                if entry.owner == endpoint.owner:
                    path.unlink(missing_ok=True)
        self._table.free(slot)
        self._table.store("attached", len(self.admitted))

    def _unlink(self, endpoint: Admitted) -> None:
        """Remove its names. Its interests have the serial in its UP, or one that differs by 1."""
        serial = endpoint.up.load(
            layout.offset(layout.UP, "outgoing")
            + layout.offset(layout.OUTGOING, "interests_serial")
        )
        endpoint.down.unlink()
        unlink(self.names.up(endpoint.owner))
        for near in range(max(serial - 1, 0), serial + 2):
            unlink(self.names.interests(endpoint.owner, near))
        unlink_bell(self.names.endpoint_bell(endpoint.owner)[1:])

    def evict(self, name: str) -> bool:
        """Order the eviction of an endpoint. False: there is none of that name."""
        for endpoint in list(self.admitted.values()):
            if (
                endpoint.name == name
                and int(self._table.rows[endpoint.slot]["state"]) == RowState.LIVE
            ):
                self._kernel.evict(endpoint.slot, endpoint.generation)
                return True
        return False

    # Ending -----------------------------------------------------------------------------------

    def close(self, timeout: float | None, *, handover: bool = False) -> None:
        """End the bus, forwarding what is on its way for ``timeout`` seconds at most; or leave it
        to be adopted, with ``handover`` as it stands, else by endpoints that stay. By one thread at
        a time; harmless if done before."""
        if os.getpid() != self._pid or self._closed:  # forked since: the parent serves
            return
        self._closed = True
        self._table.store("state", layout.BusState.CLOSING)
        os.write(self._wake[1], b"x")
        self._thread.join()
        if handover:
            self._kernel.stop(0)
            self._table.store("state", layout.BusState.HANDOVER)
            self._kernel.wake_all()
            self._drop(unlink=False)
            return
        self._kernel.stop(timeout)
        stays = any(map(self._stays, self.admitted.values()))
        if stays:
            self._table.store("state", layout.BusState.HANDOVER)  # who closes now waits for us
            self._dismiss()
            stays = bool(self.admitted)  # unless the last of them was about to close
        if not stays:
            self._table.store("state", layout.BusState.ENDED)
        self._kernel.wake_all()
        self._drop(unlink=not stays)

    def _stays(self, endpoint: Admitted) -> bool:
        """Whether this endpoint waits for the next dispatcher where the bus ends in good order."""
        up = layout.view(endpoint.up, layout.UP)[0]
        attached = int(self._table.rows[endpoint.slot]["state"]) == RowState.LIVE
        attached = attached and int(up["state"]) == layout.UpState.ATTACHED
        alive = attached and processes.process_alive(endpoint.owner.pid, endpoint.owner.start)
        return alive and int(up["stays"]) == 1

    def _dismiss(self) -> None:
        """For all endpoints that do not stay, the bus has ended."""
        for slot, endpoint in list(self.admitted.items()):
            if not self._stays(endpoint):
                state = layout.offset(layout.DOWN, "state")
                endpoint.down.memory.store(state, layout.DownState.ENDED)
                del self.admitted[slot]
                self._unlink(endpoint)
                self._table.free(slot)
        self._table.store("attached", len(self.admitted))

    def _drop(self, *, unlink: bool) -> None:
        """Close all that is open. With ``unlink`` remove every name; else leave the bus to the next
        dispatcher."""
        self._opened.close()
        if not unlink:
            self._table.store("state", layout.BusState.HANDOVER)
        for waiting in self._waiting:
            waiting.connection.close()
            if waiting.caller.pidfd is not None:
                os.close(waiting.caller.pidfd)
        if unlink:
            for endpoint in self.admitted.values():
                self._unlink(endpoint)
            if self._standing is not None:  # else the segments of that name are not ours
                for part in self._standing:
                    part.unlink()
                succession.clear_made(self.bus, set())
                succession.clear_pools(self.bus)
                succession.clear_dead(self.bus, set())
        self.admitted.clear()
        self._standing = None
        vars(self).pop("_table", None)  # whoever keeps this dispatcher keeps nothing mapped
        fence.release(self.bus, remove=unlink)


_serving: WeakSet[Dispatcher] = WeakSet()


def _after_fork() -> None:
    """Close the door in a forked child: else callers could connect after our death, and would get
    no answer."""
    for dispatcher in _serving:
        dispatcher._door.close()
    _serving.clear()


os.register_at_fork(after_in_child=_after_fork)


def _open_stat(pid: int) -> int:
    return os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
