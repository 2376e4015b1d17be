"""`Executor`: functions called in other processes, as `concurrent.futures` has it."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent import futures
from contextlib import ExitStack
from multiprocessing.context import BaseContext
from typing import Any, ParamSpec, TypeVar

from shmbus.bus import Bus, serve
from shmbus.endpoint.attach import attach
from shmbus.errors import ForkedEndpoint
from shmbus.settings import check_count
from shmbus.shared import processes
from shmbus.shared._kernel import monotonic, seconds

from . import leavings, memory, wire
from .admission import Admission
from .attending import Attending
from .calls import Calls
from .line import Line
from .mapping import LOOK_AHEAD, Mapping, call_each, chunks
from .recalling import Recalling
from .stopping import Stopping
from .task import Task
from .worker import Setup
from .workers import Workers, context_of

P = ParamSpec("P")
T = TypeVar("T")

LAST = 30.0
"""Seconds that workers have to leave, once all tasks have ended."""

_alive: set[Attending] = set()
"""The threads of executors that have not ended."""

_exiting = False


class Executor(futures.Executor):
    """Calls functions in other processes, by way of a bus: who is free gets the next task.

    `max_workers`: processes at a time, started as tasks need them (None: one for each CPU that this
    process may use; 0: only workers that are started elsewhere, with `work` or ``shmbus worker``).
    `bus`: the bus by which they work together, which this process need not serve. None: one of
    their own, which ends with this process, and they with it. `name`: of the pool, by which workers
    join it. `mp_context`: a context of `multiprocessing` or its name (None: "forkserver").
    `initializer`, `initargs`: what each worker calls before its first task. `max_tasks_per_child`:
    tasks after which a worker is replaced. `retries`: how often a task is begun anew if its worker
    dies. `timeout`: seconds that a task may take from when a worker begins it, until it is stopped.

    Functions, arguments and results are pickled: all processes of a pool trust each other. Large
    buffers in them, such as arrays of 64 KiB or more, are copied once, into shared memory, and
    looked at there: such an array is read-only (`copy` makes one to write to). What is larger than
    the `pool_bytes` of a bus raises `MessageTooLarge`; on a bus of their own it may be as large as
    what /dev/shm has free, and raises `SegmentError` beyond. Raises
    `InvalidName`, `InvalidSetting`, ValueError (`mp_context`), and like `serve` and `attach`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        bus: str | Bus | None = None,
        name: str | None = None,
        mp_context: BaseContext | str | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        retries: int = 0,
        timeout: float | None = None,
    ) -> None:
        most = _cpus() if max_workers is None else check_count("max_workers", max_workers, least=0)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            check_count("max_tasks_per_child", max_tasks_per_child)
        check_count("retries", retries, least=0)
        pool = wire.check_pool(name or leavings.made_up())
        context = context_of(mp_context)
        self._shut = False
        self._lock = threading.Lock()
        self._maps: weakref.WeakSet[Mapping] = weakref.WeakSet()
        with ExitStack() as undo:
            admission = None
            served: Bus | None = None
            if bus is None:
                admission = Admission(pool)
                own = leavings.own_bus(pool)
                served = serve(own, settings=memory.settings(), grants=admission)
                undo.callback(served.close)
                bus = served
            at = bus if isinstance(bus, str) else bus.name
            endpoint = attach(at, name=wire.executor_name(pool))
            undo.callback(endpoint.close)
            line = Line(endpoint, wire.task_type(pool), most)
            calls = Calls(line, seconds(timeout), retries)
            endpoint.handle(wire.report_type(pool), calls.reported)
            workers = Workers(
                endpoint,
                Setup(
                    at,
                    pool,
                    os.getpid(),
                    processes.start_time(os.getpid()),
                    initializer,
                    initargs,
                    max_tasks_per_child,
                ),
                most=most,
                context=context,
                admission=admission,
                on_ready=lambda _: line.opened(workers.ready),
                on_end=lambda *_: line.opened(workers.ready),
                on_broken=line.fail,
            )
            undo.callback(workers.close, 0.0)
            calls.exit_of = workers.exit_of
            stopping = Stopping(line, workers.kill)
            recalling = Recalling(line, lambda: workers.ready)
            line.appoint(
                died=calls.died,
                overdue=calls.overdue,
                stop=stopping.stop,
                end=stopping.overdue,
                want=workers.want,
                ready=lambda: workers.ready,
            )

            def finish() -> None:
                workers.close(LAST)
                endpoint.close()
                if served is not None:
                    served.close()
                _alive.discard(attending)

            self._line, self._calls, self._workers = line, calls, workers
            self._attending = attending = Attending(line, recalling, pool, finish)
            _alive.add(attending)
            undo.callback(_alive.discard, attending)
            endpoint.start()
            workers.invite()
            attending.thread.start()
            undo.pop_all()
        attending.owner = weakref.ref(self, lambda _: attending.leave())
        self.name = pool
        """The pool's name."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]:
        """Have a worker call this function; returns the future of its result at once. Raises
        `PoolBroken`, and RuntimeError after `shutdown`; an argument that cannot be pickled is
        the future's error."""
        if self._shut or _exiting or self._line.broken is not None:
            self._refuse()
        return self._calls.submit(fn, args, kwargs)

    def submit_with(
        self,
        fn: Callable[..., T],
        /,
        *args: Any,
        timeout: float | None = None,
        retries: int | None = None,
        progress: Callable[[Any], object] | None = None,
        **kwargs: Any,
    ) -> Task[T]:
        """Like `submit`, with settings for this task alone. `timeout`: seconds that it may take
        once it has begun; then its worker is killed and replaced, and the future has `TaskTimeout`.
        `retries`: how often it is begun anew if its worker dies. Where they are None, those of the
        executor hold. `progress` is called with each value that the task gives to
        `shmbus.executor.report`, in a thread of the executor's own, before the result is there."""
        if self._shut or _exiting or self._line.broken is not None:
            self._refuse()
        return self._calls.submit_with(
            fn,
            args,
            kwargs,
            self._calls.timeout if timeout is None else seconds(timeout),
            self._calls.retries if retries is None else check_count("retries", retries, least=0),
            progress,
        )

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        window: int = LOOK_AHEAD,
        ordered: bool = True,
    ) -> Generator[T, None, None]:
        """The results of calling this function with the items of the iterables, as `map` has it.

        Items are taken as results are: at most `window` of them are ahead, so iterables may be
        endless. `ordered`: results come in the order of the items; False: as they are done.
        `chunksize`: items of one task. `timeout`: seconds from now until the last result; then
        `TimeoutError` is raised. What a call raises is raised in the place of its result, and ends
        the iteration. Closing the iterator cancels what is left. Raises like `submit`."""
        if self._shut or _exiting or self._line.broken is not None:
            self._refuse()
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        check_count("window", window)
        end = None if timeout is None else timeout + monotonic()
        sized = all(hasattr(each, "__len__") for each in iterables)
        items: Iterator[tuple[Any, ...]] = zip(*iterables)  # noqa: B905  # as `map` has it
        if chunksize == 1:
            mapping = Mapping(self._calls, fn, items, sized, window, ordered, end)
            self._maps.add(mapping)
            return mapping.results()
        window = max(1, math.ceil(window / chunksize))
        pieces = ((fn, chunk) for chunk in chunks(items, chunksize))
        mapping = Mapping(self._calls, call_each, pieces, sized, window, ordered, end)
        self._maps.add(mapping)
        return (result for results in mapping.results() for result in results)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks. Those that there are are done, but with `cancel_futures` those that
        were not sent to a worker are cancelled. `wait`: until they have ended, and the workers
        with them. Harmless if done before."""
        with self._lock:
            first, self._shut = not self._shut, True
        if first and not cancel_futures:
            for mapping in list(self._maps):
                mapping.absorb()
        if cancel_futures:
            self._line.cancel_waiting()
        self._attending.leave()
        if wait and self._attending.thread is not threading.current_thread():
            self._attending.thread.join()

    def _refuse(self) -> None:
        if self._line.broken is not None:
            raise self._line.broken
        when = "shutdown" if self._shut else "interpreter shutdown"
        raise RuntimeError(f"cannot schedule new futures after {when}")

    def __repr__(self) -> str:
        return f"<executor of pool {self.name!r}>"


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) or 1


def _at_exit() -> None:
    global _exiting
    _exiting = True
    for attending in list(_alive):
        attending.leave()
        attending.thread.join()


def _after_fork() -> None:
    for attending in _alive:
        line = attending.line
        line.forked(ForkedEndpoint(endpoint=line.endpoint.name, pid=os.getppid()))
    _alive.clear()


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # before threads are waited for
os.register_at_fork(after_in_child=_after_fork)
