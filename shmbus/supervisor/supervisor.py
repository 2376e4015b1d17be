"""Supervising the processes of a bus: `supervise`, and the `Supervisor` that it returns."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Self, TypeVar

import msgspec

from shmbus import errors
from shmbus.bus import Bus, serve
from shmbus.endpoint.flag import Flag
from shmbus.events import EndpointOverdue
from shmbus.settings import Settings, check_count
from shmbus.shared import names, threads
from shmbus.shared._kernel import monotonic, seconds
from shmbus.shared.signals import uninterrupted

from .control import Control
from .grants import Grants
from .loop import Loop
from .mark import marked
from .on_bus import OnBus
from .output import Output, Sink, print_line
from .process import Process, check_processes
from .runs import Runs
from .sessions import session_of
from .status import Line, ProcessStatus

KILLED = 5.0
"""Seconds that `close` waits for what it has killed."""

_PENDING = ("waiting", "restarting", "stopping")
_LIVE = (*_PENDING, "running", "asleep")

_supervising: set[Supervisor] = set()
"""Supervisors not closed yet; they are closed when the interpreter exits."""

T = TypeVar("T")


class Supervisor:
    """The processes of a bus, looked after in threads of its own; made by `supervise`. Thread-safe,
    a context manager: leaving its block stops them all.

    `bus`: on which they are.
    """

    def __init__(
        self,
        processes: tuple[Process, ...],
        bus: Bus,
        *,
        ends_bus: bool,
        output: Sink,
        source: Callable[[], Iterable[Process]] | None,
        grants: Grants | None,
    ) -> None:
        self.bus = bus
        self._grants = grants
        self._source, self._pid = source, os.getpid()
        self._changed = Flag()
        self._ending = threading.RLock()
        with ExitStack() as made:
            if ends_bus:
                made.callback(bus.close)
            self._on_bus = OnBus(bus)
            made.callback(self._on_bus.close)
            self._output = Output(bus.name, self._on_bus.line, output)
            made.callback(self._output.close)
            if grants is not None:
                grants.processes = processes
            runs = Runs() if grants is None else grants.runs
            self._loop = Loop(
                bus.name, self._on_bus, self._output.add, self._change, processes, runs
            )
            self._on_bus.begin(Control(self), self._overdue)
            self._loop.adopt(marked(bus.name))  # now that no other supervisor starts any
            self._thread = threading.Thread(
                target=self._loop.run, name=f"shmbus {bus.name}: processes", daemon=True
            )
            try:
                threads.start(self._thread)
            except RuntimeError as why:
                raise errors.NoThread(bus=bus.name, task="processes", reason=str(why)) from None
            self._made = made.pop_all()
        _supervising.add(self)

    def status(self) -> list[ProcessStatus]:
        """What they do, in their order."""
        found = self._loop.status() if self._loop.over else self._ask(self._loop.status)
        attached: dict[int | None, list[str]] = {}
        for pid, name in self._on_bus.attached() if not self._loop.over else ():
            attached.setdefault(session_of(pid), []).append(name)
        return [
            msgspec.structs.replace(each, attached=tuple(attached.get(each.pid, ())))
            if each.pid is not None
            else each
            for each in found
        ]

    def start(self, name: str) -> None:
        """Start a process that was stopped, has ended or failed, or is asleep. Returns before it
        runs. Raises `NoSuchProcess`, `SupervisorClosed`."""
        self._order(lambda: self._loop.start(name))

    def stop(self, name: str) -> None:
        """Stop a process, until `start`. Returns before it has ended. Raises like `start`."""
        self._order(lambda: self._loop.stop(name))

    def restart(self, name: str) -> None:
        """Stop a process, and start it again; with all of its group. Returns before that is done.
        Raises like `start`."""
        self._order(lambda: self._loop.restart(name))

    def reload(self, processes: Iterable[Process] | None = None) -> None:
        """Have these processes from now on: those that are new are started, those that are not
        among them are stopped, and those are restarted of which something has changed that counts
        for a run (its command, environment, directory, grant). None: those that ``source`` returns.
        Raises `InvalidProcess`, and nothing has changed then; `InvalidSetting` where there is no
        ``source``; `SupervisorClosed`."""
        if processes is None:
            if self._source is None:
                raise errors.InvalidSetting(
                    setting="processes",
                    value=None,
                    reason="this supervisor was given no source= to ask for them",
                    remedy="Give the processes, or supervise(source=...)",
                )
            processes = self._source()
        found = check_processes(processes)
        _check_enforced(found, self._grants)
        if self._grants is not None:
            self._grants.processes = found
        self._order(lambda: self._reload(found))

    def _reload(self, processes: tuple[Process, ...]) -> None:
        before = set(self._loop.units)
        self._loop.reload(processes)
        for name in before.difference(self._loop.units):
            self._output.forget(name)

    def logs(self, name: str, last: int = 100) -> list[Line]:
        """The last lines that a process has written, at most so many: 1,000 are kept, and 1 MiB.
        Raises `NoSuchProcess`, `InvalidSetting`."""
        check_count("last", last, least=0)
        there = tuple(self._loop.units)
        found = self._output.last(name, last)
        if not found and name not in there:
            raise errors.NoSuchProcess(bus=self.bus.name, process=name, there=there)
        return found

    def wait_started(self, timeout: float | None = None) -> bool:
        """Wait until every process runs, or is asleep until its first message, or will not run
        before somebody starts it: until none is on its way. False after `timeout` seconds (None:
        no limit)."""
        return self._await(_PENDING, timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no process runs, and none will before somebody starts it. False after
        `timeout` seconds (None: no limit)."""
        return self._await(_LIVE, timeout)

    def _await(self, states: tuple[str, ...], timeout: float | None) -> bool:
        timeout = seconds(timeout)
        end = None if timeout is None else monotonic() + timeout
        while True:
            changed = self._changed
            if self._loop.over or all(each.state not in states for each in self._states()):
                return True
            left = threading.TIMEOUT_MAX if end is None else end - monotonic()
            if left <= 0:
                return False
            changed.wait(left)

    def _states(self) -> list[ProcessStatus]:
        return self._loop.status() if self._loop.over else self._ask(self._loop.status)

    def kill(self) -> None:
        """Kill all processes at once, as a second Ctrl-C does. Returns before they have ended;
        `close` waits for that."""
        self._loop.post(self._loop.kill)

    def close(self, timeout: float | None = None) -> None:
        """Stop all processes, those first that no other one needs; where `supervise` serves the
        bus, end that. Each has its ``stop_timeout``; after `timeout` seconds (None: no limit but
        those) all that are left are killed, and so they are where Ctrl-C comes meanwhile. Harmless
        if done before."""
        timeout = seconds(timeout)
        if self._pid != os.getpid():  # a forked child: they are its parent's
            return
        with self._ending:
            if self not in _supervising:
                return
            try:
                self._loop.post(self._loop.close)
                self._await_end(timeout)
            finally:
                self._loop.post(self._loop.kill)
                with uninterrupted():
                    self._await_end(KILLED)
                    _supervising.discard(self)
                    self._made.close()

    def _await_end(self, timeout: float | None) -> None:
        end = None if timeout is None else monotonic() + timeout
        while not self._loop.over:
            changed = self._changed
            left = threading.TIMEOUT_MAX if end is None else end - monotonic()
            if self._loop.over or left <= 0:
                return
            changed.wait(left)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = ", closed" if self._loop.over else ""
        return f"<supervisor of bus {self.bus.name!r}, {len(self._loop.units)} processes{closed}>"

    # Orders to the thread ---------------------------------------------------------------------

    def _order(self, order: Callable[[], None]) -> None:
        if self._loop.over or self._loop.closing:
            raise errors.SupervisorClosed(bus=self.bus.name)
        self._ask(order)

    def _ask(self, question: Callable[[], T]) -> T:
        """Have it answered by the thread, which alone changes anything."""
        answered, answers, problems = Flag(), list[T](), list[Exception]()

        def answer() -> None:
            try:
                answers.append(question())
            except Exception as why:
                problems.append(why)
            finally:
                answered.set()

        self._loop.post(answer)
        while not answered.wait(0.5) and not self._loop.over:
            pass
        if problems:
            raise problems[0]
        if not answers:
            raise errors.SupervisorClosed(bus=self.bus.name)
        return answers[0]

    # What others tell -------------------------------------------------------------------------

    def _change(self) -> None:
        before, self._changed = self._changed, Flag()
        before.set()

    def _overdue(self, event: EndpointOverdue) -> None:
        reason = f"a handler of {event.type!r} took longer than its limit of {event.limit:g} s"
        self._loop.post(lambda: self._loop.overdue(event.pid, reason))


def supervise(
    processes: Iterable[Process],
    *,
    bus: Bus | str,
    settings: Settings | None = None,
    output: Callable[[Line], object] = print_line,
    source: Callable[[], Iterable[Process]] | None = None,
    grants: Grants | None = None,
) -> Supervisor:
    """Start processes and keep them running: in the order of what they need, again where they end,
    on the first message those marked so. Returns at once; threads of its own do it.

    `bus`: a name, of a bus that is served here for as long as the supervisor is not closed, with
    `settings`; or a `Bus` of this process. `output`: called with each line that they write, in one
    thread; by default it goes to standard error, behind the name. While it does not return, they
    wait with more than 64 KiB unread. `source`: asked by `reload` where nothing is given to it, and
    where somebody asks for that on the bus. `grants`: where a `Bus` is given, and processes have
    a `Process.grant`, the `shmbus.supervisor.Grants` with which it is served, by themselves or by
    a function of yours that asks them; they have these processes from now on.

    Where a supervisor was killed, the next one of the same bus adopts its processes: those that
    live go on. On the bus it is the endpoint ``supervisor``, which serves
    `shmbus.supervisor.Control`, and publishes ``supervisor.process`` events, with a `ProcessEvent`
    each.

    Raises `InvalidProcess`, `InvalidName`, `InvalidSetting`, `NameTaken` (it has a supervisor),
    `NoThread`, and for a name what `serve` raises.
    """
    found = check_processes(processes)
    if not isinstance(bus, Bus):
        names.check_bus(bus)
    elif settings is not None:
        raise errors.InvalidSetting(
            setting="settings",
            value=settings,
            reason=f"bus {bus.name!r} is served already",
            remedy="Give them to serve()",
        )
    if grants is not None:
        _check_asked(bus, grants)
    with uninterrupted():
        granted = any(process.grant is not None for process in found)
        if not isinstance(bus, Bus) and grants is None and granted:
            grants = Grants(bus, found)
        _check_enforced(found, grants)
        return Supervisor(
            found,
            bus if isinstance(bus, Bus) else serve(bus, settings=settings, grants=grants),
            ends_bus=not isinstance(bus, Bus),
            output=output,
            source=source,
            grants=grants,
        )


def _check_asked(bus: Bus | str, grants: Grants) -> None:
    """Raises `InvalidSetting` where these are not those of the bus."""
    name = bus.name if isinstance(bus, Bus) else bus
    reason = ""
    if grants.bus != name:
        reason = f"they are for bus {grants.bus!r}, not for {name!r}"
    elif isinstance(bus, Bus) and bus.grants is not grants:
        if bus.grants is None:
            reason = f"bus {name!r} is served without any"
        elif isinstance(bus.grants, Grants | Mapping):
            reason = f"bus {name!r} is served with others"
    if reason:
        raise errors.InvalidSetting(
            setting="grants",
            value=grants,
            reason=reason,
            remedy="Give the same to both: grants = shmbus.supervisor.Grants(bus, processes), "
            "serve(bus, grants=grants), supervise(processes, grants=grants, ...)",
        )


def _check_enforced(processes: tuple[Process, ...], grants: Grants | None) -> None:
    """Raises `InvalidProcess` where one has a grant that nobody would enforce."""
    granted = next((process for process in processes if process.grant is not None), None)
    if granted is not None and grants is None:
        raise errors.InvalidProcess(
            process=granted.name,
            reason="it has a grant, and its bus is served without any",
            remedy="Serve it anew: grants = shmbus.supervisor.Grants(bus, processes), "
            "serve(bus, grants=grants), supervise(processes, grants=grants, ...)",
        )


@atexit.register  # later than those of buses and endpoints, whose modules are imported above
def _close_all() -> None:
    for supervisor in list(_supervising):
        supervisor.close(timeout=10.0)
