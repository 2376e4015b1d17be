"""The supervisor's thread: it alone starts and stops processes, and decides what follows an end.

It sleeps until a process ends, something is due, or an order comes.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, Protocol

from shmbus import errors
from shmbus.shared._kernel import monotonic
from shmbus.shared.exits import Exit

from . import child as children
from . import order
from .child import Child
from .mark import Marked
from .process import Process
from .runs import Runs
from .sessions import session_of, sessions_above
from .stand_in import StandIn
from .status import ProcessEvent, ProcessStatus
from .unit import Then, Unit

log = logging.getLogger("shmbus")

LOOK = 0.02
"""Seconds between two looks at what has no descriptor to wait at, at first: whether somebody
handles what is needed, or has come in the place of a stand-in. It grows with the time waited, so
that nothing costs CPU time for good."""

_RARELY = 0.5  # seconds that it grows to
_SHARE = 20  # a part of the time waited that one look may come late

_GIVEN_UP = 5  # steps of a stop, after which whoever is left is so for good
_PATIENCE = 5.0  # seconds that a process waits for others before a warning is logged


class OnBus(Protocol):
    """What the thread asks of the bus, and tells it."""

    def handled(self, pattern: str) -> bool:
        """Whether somebody handles what it matches."""

    def handlers(self) -> list[tuple[int, list[str]]]:
        """The pid of each endpoint, and the patterns that it handles."""

    def handled_in(self, session: int) -> list[str]:
        """The patterns that endpoints in this session handle by now."""

    def stand_in(self, process: Process) -> StandIn:
        """Raises BusError."""

    def tell(self, event: ProcessEvent) -> None:
        """Publish it. Never waits."""


class Loop:
    """The processes and the thread's work; `run` is the thread. `read` is called with what each one
    writes, and `changed` when a state has changed."""

    def __init__(
        self,
        bus: str,
        on_bus: OnBus,
        read: Callable[[str, int], None],
        changed: Callable[[], None],
        processes: Iterable[Process],
        runs: Runs,
    ) -> None:
        self._bus, self._on_bus, self._read, self._changed = bus, on_bus, read, changed
        self._runs = runs
        self.units = {process.name: Unit(process) for process in processes}
        self._leaving: list[Unit] = []
        """Stopped by a reload, and not under this supervisor any more."""
        self._orders: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._waves: list[list[Unit]] | None = None
        self.closing = False
        """Whether all are being stopped."""
        self._warned = set[str]()
        self.over = False
        """Whether all have ended, and nothing is done any more."""

    # Orders -----------------------------------------------------------------------------------

    def post(self, order: Callable[[], None]) -> None:
        """Have it called by the thread. Harmless once that is over: then nothing calls it."""
        self._orders.append(order)
        os.eventfd_write(self._wake, 1)

    def status(self) -> list[ProcessStatus]:
        """Of all, in their order."""
        return [unit.status() for unit in [*self.units.values(), *self._leaving]]

    def start(self, name: str) -> None:
        """Start it, unless it runs. Raises `NoSuchProcess`."""
        unit = self._unit(name)
        unit.restarts.forget()
        unit.awake = True
        if unit.state == "stopping":
            self._stop(unit, "waiting")
        elif unit.kept:
            unit.then = "waiting"
        elif unit.child is None:
            unit.set("waiting")

    def stop(self, name: str) -> None:
        """Stop it, until `start`. Raises `NoSuchProcess`."""
        self._stop(self._unit(name), "stopped")

    def restart(self, name: str) -> None:
        """Stop it, and start it again; with all of its group. Raises `NoSuchProcess`."""
        for unit in self._with_group(self._unit(name)):
            unit.restarts.forget()
            unit.awake = True
            self._stop(unit, "waiting")

    def reload(self, processes: Iterable[Process]) -> None:
        """Have these instead, which were checked."""
        before, self.units = self.units, {}
        for process in processes:
            unit = before.pop(process.name, None)
            self.units[process.name] = unit or Unit(process)
            if unit is not None and unit.process != process:
                self._replace(unit, process)
        for unit in before.values():
            self._stop(unit, "gone")
            if unit.child is not None:
                self._leaving.append(unit)

    def _replace(self, unit: Unit, process: Process) -> None:
        before, unit.process = unit.process, process
        unit.restarts.backoff = process.backoff
        if (before.start, before.on) != (process.start, process.on):
            self._close_stand_in(unit)
        if unit.child is not None:
            if before.digest != process.digest:
                unit.awake = True
                self._stop(unit, "waiting")
        elif unit.state != "stopped":
            unit.restarts.forget()
            unit.set("waiting")

    def overdue(self, pid: int, reason: str) -> None:
        """A handler in this process takes too long."""
        session = session_of(pid)
        for unit in self.units.values():
            child = unit.child
            if child is None or child.pid != session or unit.process.overdue != "restart":
                continue
            if unit.state == "running":
                unit.overdue = True
                unit.reason = reason
                child.send_all(signal.SIGKILL)

    def close(self) -> None:
        """Stop all, those first that nobody needs."""
        if self.closing:
            return
        self.closing = True
        for unit in self.units.values():
            if unit.child is None:
                self._stop(unit, "stopped")
            self._close_stand_in(unit)
        self._waves = self._in_order()

    def kill(self) -> None:
        """End all that is left, at once."""
        self.close()
        self._waves = []
        for unit in [*self.units.values(), *self._leaving]:
            if unit.child is not None and not unit.kept:
                unit.state, unit.then, unit.steps = "stopping", "stopped", 2
                self._stop_on(unit)

    def _unit(self, name: str) -> Unit:
        try:
            return self.units[name]
        except KeyError:
            raise errors.NoSuchProcess(
                bus=self._bus, process=name, there=tuple(self.units)
            ) from None

    def _with_group(self, unit: Unit) -> list[Unit]:
        group = unit.process.group
        if group is None:
            return [unit]
        return [other for other in self.units.values() if other.process.group == group]

    # The thread -------------------------------------------------------------------------------

    def adopt(self, found: Iterable[Marked]) -> None:
        """Take over what a supervisor before this one has started, and end what is left in the
        sessions of those that have ended. Of several with the same name the oldest is its child:
        others have its mark from it. The sessions of this process and of what has started it are
        left alone: they have a mark, too, where one of those was a child of a supervisor."""
        own = sessions_above(os.getpid())
        found = [one for one in found if one.session not in own]
        leaders = [one for one in found if one.leads]
        led = {one.session for one in found if one.pid == one.session}
        for one in leaders:
            unit = self.units.get(one.mark.name)
            if unit is not None and unit.child is not None:
                continue
            child = children.adopt(one)
            if child is None:
                led.discard(one.session)
                continue
            if unit is None:  # it is not wanted any more
                unit = Unit(Process(name=one.mark.name, command=("gone",)))
                self._leaving.append(unit)
            self._runs.began(unit.name, child.pid)
            self._began(unit, child)
            if unit in self._leaving:
                self._stop(unit, "gone")
            elif one.mark.digest != unit.process.digest:
                self._stop(unit, "waiting")
        for one in found:
            if one.session not in led:
                children.kill(one)

    def run(self) -> None:
        """Until all have ended after `close`."""
        try:
            while not self.over:
                try:
                    self._turn()
                except Exception:
                    log.exception("supervisor of bus %r: an error; it goes on", self._bus)
                    select.select([], [], [], LOOK)
        finally:
            self.over = True
            self._take_orders()
            self._changed()
            for unit in [*self.units.values(), *self._leaving]:
                if unit.child is not None:  # the kernel keeps it
                    unit.child.let_go()

    def __del__(self) -> None:
        os.close(self._wake)  # not before: another thread may just be posting

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        units = [*self.units.values(), *self._leaving]
        for unit in units:
            if unit.child is not None and unit.child.pidfd >= 0:
                poll.register(unit.child.pidfd, select.POLLIN)
            if unit.state == "asleep" and unit.stand_in is not None and not unit.stand_in.idle:
                poll.register(unit.stand_in.fd, select.POLLIN)
        pause = self._pause(units)
        ready = {fd for fd, _ in poll.poll(None if pause is None else 1e3 * pause)}
        if self._wake in ready:
            os.eventfd_read(self._wake)
        before = [(unit, unit.state, unit.reason) for unit in units]
        self._take_orders()
        for unit in units:
            child = unit.child
            if child is not None and (child.pidfd < 0 or child.pidfd in ready):
                ended = child.ended()
                if ended is not None:
                    self._ended(unit, ended)
        now = monotonic()
        for unit in [*self.units.values(), *self._leaving]:
            self._step(unit, now)
        self._leaving = [unit for unit in self._leaving if unit.child is not None]
        if self.closing:
            self._close_on()
        now_is = [(unit, unit.state, unit.reason) for unit in self.units.values()]
        if now_is != before:
            self._changed()

    def _take_orders(self) -> None:
        while self._orders:
            self._orders.popleft()()

    def _pause(self, units: list[Unit]) -> float | None:
        """Seconds to sleep if nothing comes."""
        if self._orders:
            return 0.0
        now = monotonic()
        due = [unit.due - now for unit in units if unit.state == "stopping"]
        due += [self._group_due(u) - now for u in units if u.state == "restarting"]
        for unit in filter(self._looks, units):
            due.append(min(max(LOOK, (now - unit.at) / _SHARE), _RARELY))
        if any(unit.child is not None and unit.child.pidfd < 0 for unit in units):
            due.append(LOOK)
        soonest = min(due, default=math.inf)
        return None if soonest == math.inf else max(0.0, soonest)

    def _looks(self, unit: Unit) -> bool:
        """Whether something of it has to be looked at from time to time."""
        if unit.state == "waiting":
            return self._group_is_down(unit)
        return unit.stand_in is not None and (unit.state == "running" or unit.stand_in.idle)

    def _step(self, unit: Unit, now: float) -> None:
        """What is due of it."""
        if unit.state == "stopping":
            if now >= unit.due:
                self._stop_on(unit)
            return
        if self.closing:
            return
        if unit.state == "asleep" and unit.stand_in is not None and unit.stand_in.touched():
            unit.awake = True
            unit.set("waiting")
        if unit.state == "restarting" and now >= self._group_due(unit):
            unit.set("waiting", unit.reason)
        if unit.state == "waiting" and self._group_is_down(unit):
            self._start_if_it_can(unit)
        elif unit.state == "running" and not unit.overdue:
            self._replace_stand_in(unit)

    def _group_is_down(self, unit: Unit) -> bool:
        """Whether nobody is stopped any more who has to be before it is started."""
        if any(other.name == unit.name for other in self._leaving):
            return False
        return all(other.state != "stopping" for other in self._with_group(unit))

    def _group_due(self, unit: Unit) -> float:
        """When a group can be started again of which this one is to be: its latest time, and not
        before all have ended, which wakes the thread."""
        if not self._group_is_down(unit):
            return math.inf
        return max(u.due for u in self._with_group(unit) if u.state == "restarting")

    # Starting ---------------------------------------------------------------------------------

    def _start_if_it_can(self, unit: Unit) -> None:
        if why := self._no_stand_in(unit):
            unit.set("waiting", why)
            self._warn(unit)
            return
        if unit.activated and not unit.awake:
            unit.set("asleep")
            return
        missing = next((p for p in unit.process.needs if not self._on_bus.handled(p)), None)
        if missing is None:
            self._warned.discard(unit.name)
            self._start(unit)
            return
        unit.set("waiting", f"nobody handles {missing!r}, which it needs")
        self._warn(unit)

    def _no_stand_in(self, unit: Unit) -> str:
        """Make the one of a process, if it is to have one and has none. Why there is none; empty:
        it is there, or is not needed."""
        if unit.activated and unit.stand_in is None:
            try:
                unit.stand_in = self._on_bus.stand_in(unit.process)
            except errors.BusError as why:
                return f"there is no stand-in for it: {why}"
        return ""

    def _replace_stand_in(self, unit: Unit) -> None:
        """Let it leave once the process handles what it stands in for."""
        if unit.stand_in is None or unit.child is None:
            return
        handled = [] if unit.stand_in.alone else self._on_bus.handled_in(unit.child.pid)
        missing = ", ".join(map(repr, unit.stand_in.missing(handled)))
        if unit.stand_in.replaced_by(handled):
            self._close_stand_in(unit)
            unit.set("running", missing and f"it came to handle nothing of {missing}")
        elif missing and unit.at + _PATIENCE < monotonic():
            unit.set("running", f"it handles nothing of {missing} yet")
        self._warn(unit)

    def _warn(self, unit: Unit) -> None:
        """Log once for what it has been waiting, if that takes long."""
        if unit.name in self._warned or not unit.reason or unit.at + _PATIENCE > monotonic():
            return
        self._warned.add(unit.name)
        log.warning("bus %r: process %r, %s: %s", self._bus, unit.name, unit.state, unit.reason)

    def _start(self, unit: Unit) -> None:
        try:
            with self._runs.starting() as pids:
                child = children.spawn(unit.process, self._bus)
                pids[unit.name] = child.pid
        except Exception as why:  # OSError, or what such a command or environment gives
            unit.exit, unit.ended = Exit(), f"it cannot be started: {why}"
            self._tell_end(unit, "exited", None, unit.ended)
            self._decide(unit, ran=0.0)
            if unit.state == "ended":  # it never ran
                self._fail(unit, unit.ended)
        else:
            self._began(unit, child)

    def _began(self, unit: Unit, child: Child) -> None:
        unit.child = child
        unit.awake = True
        unit.set("running")  # before anything that may fail: so it is not started once more
        if child.output >= 0:
            self._read(unit.name, child.output)
            child.output = -1  # whoever reads it closes it
        what: Literal["adopted", "started"] = "adopted" if child.adopted else "started"
        log.info("bus %r: process %r %s, pid %d", self._bus, unit.name, what, child.pid)
        self._on_bus.tell(ProcessEvent(name=unit.name, what=what, pid=child.pid))

    # Stopping ---------------------------------------------------------------------------------

    def _stop(self, unit: Unit, then: Then) -> None:
        if then in ("stopped", "failed", "gone"):
            self._close_stand_in(unit)
        else:  # before it is told to end: so there is always somebody who handles what it does
            self._no_stand_in(unit)
        if unit.child is None:
            self._settle(unit, then)
            return
        unit.then = then
        if unit.state != "stopping":
            unit.set("stopping")
            unit.steps = 0
            self._stop_on(unit)

    def _stop_on(self, unit: Unit) -> None:
        """The next step of its stop."""
        child = unit.child
        if child is None:
            return
        unit.due = monotonic() + max(unit.process.stop_timeout, LOOK)
        unit.steps += 1
        if unit.steps == 1:
            child.send(signal.SIGTERM)
            child.send(signal.SIGCONT)
        elif unit.steps == 2:
            unit.set("stopping", "it has not ended after SIGTERM")
            child.send_all(signal.SIGTERM)
            child.send_all(signal.SIGCONT)
        elif unit.steps < _GIVEN_UP:
            unit.set("stopping", "it is killed")
            child.send_all(signal.SIGKILL)
        else:
            log.error(
                "bus %r: process %r, pid %d, does not end after SIGKILL: the kernel keeps it",
                self._bus,
                unit.name,
                child.pid,
            )
            self._close_stand_in(unit)
            unit.set("failed", f"pid {child.pid} does not end after SIGKILL")

    def _settle(self, unit: Unit, then: Then) -> None:
        """It has been stopped."""
        unit.overdue = False
        if then == "restarting":
            unit.due = monotonic()
        if then != "gone":
            unit.set(then, unit.why if then in ("failed", "restarting") else "")

    def _close_stand_in(self, unit: Unit) -> None:
        stand_in, unit.stand_in = unit.stand_in, None
        if stand_in is not None:
            try:
                stand_in.close()
            except errors.BusError as why:
                log.debug("%s", why)

    def _in_order(self) -> list[list[Unit]]:
        """Those that run, in the order of their end."""
        running = {unit.name: unit for unit in self.units.values() if unit.child is not None}
        by_session = {u.child.pid: u.name for u in running.values() if u.child is not None}
        handles: dict[str, list[str]] = {name: list(u.process.on) for name, u in running.items()}
        for pid, patterns in self._on_bus.handlers():
            if (name := by_session.get(session_of(pid) or 0)) is not None:
                handles[name] += patterns
        needs = {name: unit.process.needs for name, unit in running.items()}
        found = order.waves(order.providers(needs, handles))
        waves = [[running[name] for name in wave] for wave in reversed(found)]
        return [self._leaving, *waves] if self._leaving else waves

    def _close_on(self) -> None:
        """Stop the next ones, once those before have ended."""
        while self._waves:
            wave = [unit for unit in self._waves[0] if unit.child is not None and not unit.kept]
            for unit in wave:
                if unit.state != "stopping":
                    self._stop(unit, "stopped")
                unit.then = "stopped"
            if wave:
                return
            del self._waves[0]
        left = [*self.units.values(), *self._leaving]
        self.over = all(unit.child is None or unit.kept for unit in left)

    # Ends -------------------------------------------------------------------------------------

    def _ended(self, unit: Unit, exit: Exit) -> None:
        child, stopped = unit.child, unit.state == "stopping" or unit.kept
        assert child is not None
        if not child.reap():
            why = "bus %r: process %r has ended, and not all that it has started could be"
            log.warning(why, self._bus, unit.name)
        self._runs.ended(unit.name, child.pid)
        unit.child, unit.exit = None, exit
        unit.ended = unit.reason if unit.overdue else str(exit)
        if stopped:
            self._tell_end(unit, "stopped", child.pid, unit.ended)
            self._settle(unit, unit.then)
        else:
            self._tell_end(unit, "exited", child.pid, unit.ended)
            self._decide(unit, ran=monotonic() - child.began)

    def _tell_end(
        self,
        unit: Unit,
        what: Literal["exited", "stopped", "failed"],
        pid: int | None,
        reason: str,
    ) -> None:
        level = logging.INFO if what == "stopped" or unit.exit.clean else logging.WARNING
        log.log(level, "bus %r: process %r %s: %s", self._bus, unit.name, what, reason)
        self._on_bus.tell(
            ProcessEvent(
                name=unit.name,
                what=what,
                pid=pid,
                code=unit.exit.code,
                signal=unit.exit.signal,
                reason=reason,
            )
        )

    def _decide(self, unit: Unit, *, ran: float) -> None:
        """It has ended, and nobody has told it to."""
        exit, reason, policy = unit.exit, unit.ended, unit.process.restart
        overdue, unit.overdue = unit.overdue, False
        if self.closing:
            unit.set("stopped")
        elif unit.activated and (exit.clean or (policy == "never" and not overdue)):
            self._sleep(unit)
        elif overdue or policy == "always" or (policy == "on-failure" and not exit.clean):
            self._restart_after(unit, reason, ran)
        else:
            self._close_stand_in(unit)
            unit.set("ended", reason)

    def _sleep(self, unit: Unit) -> None:
        unit.awake = False
        why = self._no_stand_in(unit)
        unit.set("waiting" if why else "asleep", why)

    def _restart_after(self, unit: Unit, reason: str, ran: float) -> None:
        delay = unit.restarts.after(monotonic(), ran=ran)
        others = [other for other in self._with_group(unit) if other is not unit]
        if delay is None:
            limit, within = unit.restarts.backoff.limit, unit.restarts.backoff.within
            reason = f"given up after {limit} restarts within {within:g} s; the last time: {reason}"
            self._fail(unit, reason)
            for other in others:
                self._follow(other, "failed", f"{unit.name!r} of its group has failed")
            return
        unit.due = monotonic() + delay
        unit.set("restarting", reason)
        self._no_stand_in(unit)
        for other in others:
            self._follow(other, "restarting", f"{unit.name!r} of its group has ended")

    def _fail(self, unit: Unit, reason: str) -> None:
        self._close_stand_in(unit)
        unit.set("failed", reason)
        self._tell_end(unit, "failed", None, reason)

    def _follow(self, unit: Unit, then: Then, reason: str) -> None:
        """Stop it, since another of its group has ended."""
        if unit.state in ("stopped", "ended", "failed", "asleep", "stopping"):
            return
        unit.why = reason
        unit.awake = True
        self._stop(unit, then)
