"""The processes of a pool: started as they are wanted, watched, replaced where they end, and given
up where they end before they are ready.

A thread starts them, and sees their ends by descriptors; it lives as long as they do, as a worker
may depend on the thread that started it. Workers that were started elsewhere come by themselves,
and are watched in the same way.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from shmbus import errors
from shmbus.endpoint import background
from shmbus.endpoint._kernel import Message
from shmbus.endpoint.endpoint import Endpoint
from shmbus.shared._kernel import monotonic
from shmbus.shared.exits import Exit

from . import leavings, packing, wire
from .admission import Admission
from .worker import Setup, main

log = logging.getLogger("shmbus")

GIVEN_UP = 5
"""Workers in a row that end before they are ready: then the pool is broken."""

FIRST = 0.1
"""Seconds until the third of them is started; twice as long with each further one."""

REMEMBERED = 256
"""Ends that can still be asked for."""

AFTER_KILL = 5.0
"""Seconds that a killed process is waited for at the most."""

_STATUS = 0.5  # seconds that the exit status is waited for once the process has ended

_PRELOAD = ["__main__", __name__]


def context_of(given: BaseContext | str | None) -> BaseContext:
    """How processes are started: a context of `multiprocessing`, by its name, or None for
    "forkserver": forking this process may hang, as other threads of it hold locks. Raises
    ValueError."""
    if isinstance(given, BaseContext):
        context = given
    else:
        context = multiprocessing.get_context(given or "forkserver")
    if context.get_start_method() == "forkserver":
        _preload()
    return context


def _preload() -> None:
    """Let the forkserver import this package once, instead of each worker, unless somebody has said
    what it is to import."""
    from multiprocessing import forkserver

    server = getattr(forkserver, "_forkserver", None)
    if getattr(server, "_preload_modules", None) == _PRELOAD[:1]:
        forkserver.set_forkserver_preload(_PRELOAD)


class Running:
    """A process of the pool; `process` is None where it was started elsewhere."""

    def __init__(self, pid: int, number: int, process: BaseProcess | None) -> None:
        self.pid, self.number, self.process = pid, number, process
        self.killed = False
        self.left = False
        """Of one that was started elsewhere: whether its endpoint is gone."""
        self.comings = 0
        """Likewise: how often it has said that it is ready, or another of its process after it."""
        self.fd = -1
        """Readable once it has ended."""
        self._owned = False
        try:
            self.fd, self._owned = os.pidfd_open(pid), True
        except OSError:  # this system has none, or it has ended
            if process is not None:
                self.fd = process.sentinel

    def kill(self) -> None:
        """End it, and what it has started in its process group."""
        self.killed = True
        with suppress(OSError):
            if self._owned:
                signal.pidfd_send_signal(self.fd, 0)  # it is there, so its group is
            if self.process is not None:
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(OSError, ValueError):
            if self._owned:
                signal.pidfd_send_signal(self.fd, signal.SIGKILL)
            elif self.process is not None:
                self.process.kill()

    def has_ended(self) -> bool:
        """Whether it has ended."""
        if self.left or self.fd < 0:
            return True
        look = select.poll()
        look.register(self.fd, select.POLLIN)
        return bool(look.poll(0))

    def let_go(self) -> Exit:
        """Close what is open of it. How it has ended, as far as that is to be known."""
        code = None
        if self.process is not None:
            self.process.join(_STATUS)
            code = self.process.exitcode
            with suppress(ValueError):
                self.process.close()
        if self._owned:
            os.close(self.fd)
        self.fd = -1
        return Exit.by(code)


class Workers:
    """The workers of one executor.

    `endpoint`: the executor's, whose handlers somebody runs (`start`). `most`: processes at a time;
    0: only workers that were started elsewhere. `setup`: what each is given. `admission`: of the
    bus, where that is the executor's own. Called in threads of the endpoint's and of this object's,
    with no lock held: `on_ready(pid)` when a worker can take tasks, `on_end(pid, exit)` when one
    has ended, whether it was ready or not; its exit is that of no process we started where it was
    started elsewhere. `on_broken(error)`, once: no worker will come any more.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        setup: Setup,
        *,
        most: int,
        context: BaseContext,
        admission: Admission | None = None,
        on_ready: Callable[[int], object],
        on_end: Callable[[int, Exit], object],
        on_broken: Callable[[errors.PoolBroken], object],
    ) -> None:
        self._endpoint, self._setup, self._context = endpoint, setup, context
        self._pool, self._most, self._admission = setup.pool, most, admission
        self._on_ready, self._on_end, self._on_broken = on_ready, on_end, on_broken
        self._changed = threading.Condition()
        self._wanted = 0
        self._last_number = 0
        self._running: dict[int, Running] = {}  # by pid
        self._ready: set[int] = set()  # pids
        self._starting = 0  # the number of the one that is just being started
        self._exits: OrderedDict[int, Exit] = OrderedDict()  # by pid
        self._failed = 0  # in a row, before they were ready
        self._not_before = 0.0  # the next is started
        self._closing = False
        self._broken: errors.PoolBroken | None = None
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = background.thread_of(endpoint.name, "workers", self._attend)
        endpoint.handle(wire.ready_type(self._pool), self._told_ready)
        background.start(self._thread, endpoint.name, "workers")

    @property
    def ready(self) -> int:
        """How many can take tasks."""
        return len(self._ready)

    @property
    def pids(self) -> list[int]:
        """Of all that run, ready or not."""
        with self._changed:
            return list(self._running)

    def want(self, count: int) -> None:
        """Let so many run, at most `most`. It never ends any: fewer than before changes nothing."""
        count = min(count, self._most)
        if count > self._wanted:
            self._wanted = count
            self._ring()

    def invite(self) -> None:
        """Tell workers that were started elsewhere that the executor is there."""
        self._endpoint.publish(wire.begin_type(self._pool))

    def kill(self, pid: int) -> None:
        """End this worker, with what it has started; it is replaced."""
        with self._changed:
            if (running := self._running.get(pid)) is not None:
                running.kill()

    def exit_of(self, pid: int, timeout: float = 1.0) -> Exit:
        """How the worker that had this pid has ended; waits for its end, `timeout` seconds at the
        most. Its fields are empty where that is not known."""
        with self._changed:
            self._changed.wait_for(lambda: pid in self._exits, timeout)
            return self._exits.get(pid, Exit())

    def close(self, timeout: float | None) -> None:
        """Let all go that were started here, when they have done their tasks; those that have not
        gone after `timeout` seconds (None: no limit) are killed. Harmless if done before."""
        end = None if timeout is None else monotonic() + timeout
        with self._changed:
            self._closing = True
            for running in self._ours():
                if running.pid not in self._ready:
                    running.kill()
        self._ring()
        with suppress(errors.BusError):
            self._endpoint.publish(wire.end_type(self._pool))
        self._await_ends(end)
        with self._changed:
            for running in self._ours():
                running.kill()
        self._await_ends(monotonic() + AFTER_KILL)

    def _await_ends(self, end: float | None) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(None if end is None else max(0.0, end - monotonic()))

    # What the workers say ----------------------------------------------------------------------

    def _told_ready(self, message: Message) -> None:
        wire.check_worker(self._endpoint.name, message.source)
        ready: wire.Ready = packing.unpack(message.payload)
        pid, number, failure = ready
        if failure is not None:
            raised = failure.exception
            reason = f"their initializer raised {type(raised).__name__}: {raised}"
            self._break(reason, failure.traceback)
            return
        with self._changed:
            if number and (pid in self._ready or not self._is_there(pid, number)):
                return
            self._failed = 0
            self._ready.add(pid)
            if number == 0:
                joined = self._running.get(pid) or Running(pid, 0, None)
                self._running[pid] = joined
                joined.comings += 1
                joined.left = False
        if number == 0:
            self._watch(joined, message.source)
        self._on_ready(pid)

    def _is_there(self, pid: int, number: int) -> bool:
        """Whether a worker that says that it is ready has not ended since."""
        running = self._running.get(pid)
        return number == (running.number if running else self._starting)

    def _watch(self, joined: Running, endpoint: str) -> None:
        """One that was started elsewhere has ended when its endpoint has."""

        comings = joined.comings

        def over(_: object) -> None:
            with self._changed:
                if joined.comings == comings:
                    joined.left = True
            self._ring()

        self._endpoint.on_death(endpoint, over)

    # The thread --------------------------------------------------------------------------------

    def _ring(self) -> None:
        with suppress(OSError, ValueError):  # it is closed
            os.eventfd_write(self._bell, 1)

    def _attend(self) -> None:
        try:
            if self._admission is not None:
                leavings.remove_dead()
            while not self._closing or self._ours():
                pause = self._start_one()
                self._wait(pause)
                self._look_at_ends()
        finally:
            with self._changed:
                bell, self._bell = self._bell, -1
                for running in self._running.values():
                    running.let_go()
            os.close(bell)

    def _ours(self) -> list[Running]:
        return [running for running in self._running.values() if running.process is not None]

    def _start_one(self) -> float | None:
        """Start a process, if one is missing; seconds until the next may be started, None where
        none is missing."""
        with self._changed:
            if self._closing or self._broken or len(self._ours()) >= self._wanted:
                return None
            if (pause := self._not_before - monotonic()) > 0:
                return pause
            self._starting = self._last_number = self._last_number + 1
        admitted = self._admission.starting() if self._admission else nullcontext(set[int]())
        process: Any = self._context.Process(  # type: ignore[attr-defined]
            target=main,
            args=(self._setup._replace(number=self._starting),),
            name=f"{wire.executor_name(self._pool)}:{self._starting}",
        )
        try:
            with admitted as pids:
                process.start()
                pids.add(process.pid)
        except Exception as why:  # such as an initializer that cannot be pickled
            self._break(f"they cannot be started: {type(why).__name__}: {why}")
            return None
        with self._changed:
            self._exits.pop(process.pid, None)
            self._running[process.pid] = running = Running(process.pid, self._starting, process)
            self._starting = 0
            closing: bool = self._closing
        if closing:
            running.kill()
        return 0.0

    def _wait(self, pause: float | None) -> None:
        """Until a process ends, or there is something to do."""
        look = select.poll()
        with self._changed:
            for fd in (self._bell, *(running.fd for running in self._running.values())):
                if fd >= 0:
                    look.register(fd, select.POLLIN)
        look.poll(None if pause is None else pause * 1000)
        with suppress(OSError):
            os.eventfd_read(self._bell)

    def _look_at_ends(self) -> None:
        with self._changed:
            ended = [running for running in self._running.values() if running.has_ended()]
        for running in ended:
            with self._changed:
                if not running.has_ended():  # another worker of its process has come
                    continue
                del self._running[running.pid]
                was_ready = running.pid in self._ready
                self._ready.discard(running.pid)
            exit = running.let_go()
            if self._admission is not None:
                self._admission.ended(running.pid)
            with self._changed:
                self._exits[running.pid] = exit
                if len(self._exits) > REMEMBERED:
                    self._exits.popitem(last=False)
                self._changed.notify_all()
            if not (was_ready or running.killed):
                self._count_failure(running, exit)
            self._on_end(running.pid, exit)

    def _count_failure(self, running: Running, exit: Exit) -> None:
        """It has ended before it was ready."""
        self._failed += 1
        log.warning("worker %d of pool %r %s before it was ready", running.pid, self._pool, exit)
        if self._failed >= GIVEN_UP:
            self._break(f"{self._failed} of them ended before they were ready, the last {exit}")
        elif self._failed > 1:
            self._not_before = monotonic() + FIRST * 2.0 ** (self._failed - 2)

    def _break(self, reason: str, traceback: str = "") -> None:
        """No worker will come any more."""
        with self._changed:
            if self._broken or self._closing:
                return
            self._broken = errors.PoolBroken(pool=self._pool, reason=reason, traceback=traceback)
        self._on_broken(self._broken)
