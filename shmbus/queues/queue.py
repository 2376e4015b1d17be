"""Queues as programs use them: those of multiprocessing, over shared memory."""

from __future__ import annotations

from multiprocessing import context
from typing import Any, TypeVar

from ringbuf import RingbufError, SegmentNotFound
from shmbus import errors

from . import leavings, names, users
from ._kernel import QueueCore

T = TypeVar("T")


class Queue(QueueCore[T]):
    """A queue between processes, as `multiprocessing.Queue`: any process that it is passed to may
    put and get, and any may be killed at any moment, while the others go on.

    It is passed to children as they are made: as an argument of a `multiprocessing.Process`, or to
    the initializer of a pool, whatever the start method. `put` returns when the message is there
    for everybody: there is no thread, and nothing is lost when the process ends. What cannot be
    pickled is an error of `put`, what cannot be unpickled one of `get`, and then the message is
    gone. Raises `SegmentError` where /dev/shm is full, `InvalidName`.

    The last process that leaves removes it from /dev/shm: that closes it, drops it, or ends. Where
    all were killed, the next queue that is made does that, or ``shmbus doctor --fix``.

    `name`: of its own file in /dev/shm.

    `maxsize`: messages at most in it; 0: no limit.

    `redeliver`: whether what a process had in hand when it was killed is delivered again.
    """

    def __init__(
        self, maxsize: int = 0, *, bus: str | None = None, redeliver: bool = False
    ) -> None:
        """`maxsize`: messages at most in it; 0: no limit but memory. `bus`: under whose name
        ``shmbus mem`` and ``doctor`` list it; it need not run. `redeliver`: whether what a process
        had in hand when it was killed is delivered again; else it is counted in `lost`."""
        leavings.remove_dead()
        name = str(names.new(bus))
        try:
            self._create(name, maxsize=max(maxsize, 0), redeliver=redeliver)
        except RingbufError as problem:
            raise _error(name, problem) from problem
        users.keep(self)

    def close(self) -> None:
        """End the use of this object; what is in the queue stays there for others. Calls raise
        `QueueClosed` then. May be called again."""
        self._leave()

    def join_thread(self) -> None:
        """Nothing: there is no thread to wait for."""

    def cancel_join_thread(self) -> None:
        """Nothing: no process waits at its end for what it has put."""

    def __reduce__(self) -> tuple[Any, ...]:
        """For a child that is being made, and for nobody else: it counts as a user from now on."""
        context.assert_spawning(self)
        return _passed, (type(self), self.name, self._keep_row(users.being_made()))

    def __repr__(self) -> str:
        what = "closed" if self.closed else f"{self.qsize()} in it"
        limit = f" of {self.maxsize}" if self.maxsize and not self.closed else ""
        return f"<{type(self).__name__} {self.name!r}, {what}{limit}>"

    def __del__(self) -> None:
        self.close()


class JoinableQueue(Queue[T]):
    """A `Queue`, by the name that programs know which call `task_done` and `join`: what is put is
    unfinished until a process that got it says `task_done`, or dies."""


def _passed(made: type[Queue[Any]], name: str, pledge: int) -> Queue[Any]:
    """In the child: the queue that was passed to it."""
    queue = made.__new__(made)
    try:
        queue._open(name, pledge=pledge)
    except SegmentNotFound as problem:
        raise errors.QueueGone(queue=name) from problem
    except RingbufError as problem:
        raise _error(name, problem) from problem
    users.keep(queue)
    return queue


def _error(name: str, problem: RingbufError) -> errors.SegmentError:
    said, _, remedy = str(problem).partition("; ")
    return errors.SegmentError(
        name=name,
        reason=said.removeprefix(f"segment {name!r} "),
        remedy=remedy[:1].upper() + remedy[1:] or "See shmbus doctor",
        size=getattr(problem, "size", None),
        free=getattr(problem, "free", None),
    )
