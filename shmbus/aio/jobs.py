"""Asynchronous callbacks and handlers at work, each message in a task of its own."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Job

log = logging.getLogger("shmbus")

_LEFT = "its task was cancelled, since its endpoint left"

CANCELLED = 1.0
"""Seconds that tasks which were cancelled have until the endpoint leaves without them."""


class Jobs:
    """The jobs of one endpoint that have begun, and its callbacks of deaths. `ended` is called
    after each job."""

    def __init__(
        self, endpoint: str, loop: asyncio.AbstractEventLoop, ended: Callable[[], object]
    ) -> None:
        self._endpoint, self._loop, self._ended = endpoint, loop, ended
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self._begun: set[Job] = set()
        self._withdrawn: set[Job] = set()  # nobody wants their result
        self._without_task: dict[Job, Callable[[], object]] = {}  # what is called when that is so
        self._context = contextvars.copy_context()
        self._calls: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._beginning = False  # a task is being made

    def begin(self, job: Job) -> None:
        """Work on a message."""
        work = self._work(job)
        self._beginning = True
        try:
            task = self._loop.create_task(
                work,
                name=f"shmbus:{self._endpoint}:{job.message.type}",
                context=self._context.copy(),
            )
        except Exception as why:  # of the program's own task factory
            work.close()
            job.raised(why)
            job.end()
            return
        finally:
            self._beginning = False
        self._tasks[job] = task
        task.add_done_callback(self._never_begun)

    def begin_without_task(self, job: Job, withdraw: Callable[[], object]) -> None:
        """It is worked on by whoever calls `over` then. `withdraw` is called where nobody wants its
        result any more, and calls `over`, too."""
        self._without_task[job] = withdraw

    def withdraw(self, correlation_ids: list[bytes]) -> None:
        """Their requesters do not wait any more."""
        if self._without_task:
            for job, withdraw in [*self._without_task.items()]:
                if job.is_request and job.identity in correlation_ids:
                    withdraw()
        for job in [*self._tasks]:
            if job.is_request and job.identity in correlation_ids:
                self._break_off(job)

    def _break_off(self, job: Job) -> None:
        """Nobody wants its result: cancel it, once, so that what it does upon that is not
        interrupted."""
        if job not in self._withdrawn:
            self._withdrawn.add(job)
            if not job.closes:
                self._cancel(job)

    def _cancel(self, job: Job) -> None:
        if job in self._begun:  # the coroutine of one that has not would never be entered
            self._tasks[job].cancel()

    def works(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether that task works on a message."""
        return task in self._tasks.values()

    def is_one(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether `finish` waits for that task."""
        return self.works(task) or task in self._calls

    def close_parts(self, caller: asyncio.Task[Any] | None) -> None:
        """Close the generators of replies that are given in parts, but the caller's."""
        for job, task in [*self._tasks.items()]:
            if job.gives and task is not caller:
                self._break_off(job)

    def _but(self, caller: asyncio.Task[Any] | None) -> list[asyncio.Task[None]]:
        return [task for task in (*self._tasks.values(), *self._calls) if task is not caller]

    async def finish(self, patience: float, caller: asyncio.Task[Any] | None) -> None:
        """Wait until all have ended, but the caller: for `patience` seconds, then they are
        cancelled."""
        if await self._end_without(patience, caller):
            return
        self._leaving = True
        for job, task in list(self._tasks.items()):
            if task is not caller:
                self._cancel(job)
        for task in self._calls - {caller}:
            task.cancel()
        if await self._end_without(CANCELLED, caller):
            return
        if left := self._but(caller):
            log.warning(
                "endpoint %r leaves; %d of its tasks did not end although they were cancelled: %s",
                self._endpoint,
                len(left),
                ", ".join(task.get_name() for task in left),
            )

    async def _end_without(self, seconds: float, caller: asyncio.Task[Any] | None) -> bool:
        """Wait until all have ended but the caller, and those that begin meanwhile: whether they
        have."""
        end = self._loop.time() + seconds
        while others := self._but(caller):
            if (left := end - self._loop.time()) <= 0:
                return False
            await asyncio.wait(others, timeout=left)
        return True

    def call(self, function: Callable[[Any], Any], argument: object) -> None:
        """Call it, in a task where it is an `async def`; what it raises is logged."""
        try:
            value = function(argument)
            if asyncio.iscoroutine(value):
                task = self._loop.create_task(
                    self._log(value), name=f"shmbus:{self._endpoint}:{type(argument).__name__}"
                )
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
        except Exception:
            log.exception("endpoint %r: %r raised", self._endpoint, function)

    async def _log(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except (SystemExit, KeyboardInterrupt) as why:
            _end_loop_by(why)
        except Exception:
            log.exception("endpoint %r: %r raised", self._endpoint, coroutine)

    def _never_begun(self, task: asyncio.Task[None]) -> None:
        """The program has cancelled it before its coroutine was entered."""
        for job in [job for job, one in self._tasks.items() if one is task]:
            self._cancelled_by_program(job, asyncio.CancelledError())
            self.over(job)

    def _cancelled_by_program(self, job: Job, why: asyncio.CancelledError) -> None:
        if job.is_request and job not in self._withdrawn:
            job.raised(why)  # the endpoint may stay, and its requester waits
        else:
            job.abandoned(_LEFT)

    async def _work(self, job: Job) -> None:
        if self._beginning:  # an eager task, within the turn that takes messages
            await asyncio.sleep(0)
        self._tasks[job].remove_done_callback(self._never_begun)
        self._begun.add(job)
        try:
            if job.lapsed() or job in self._withdrawn:
                job.abandoned("its requester withdrew it")
            elif self._leaving:
                job.abandoned(_LEFT)
            else:
                await self._perform(job)
        finally:
            self._begun.discard(job)
            self.over(job)

    def over(self, job: Job) -> None:
        """Nobody works on it any more."""
        self._without_task.pop(job, None)
        self._withdrawn.discard(job)
        self._tasks.pop(job, None)
        job.end()
        self._ended()

    async def _perform(self, job: Job) -> None:
        try:
            value = job.call()
            if type(value) is not AsyncGeneratorType:
                value = await value
            if type(value) is AsyncGeneratorType:
                await job.give(value)
                value = None
        except asyncio.CancelledError as why:
            task = self._tasks.get(job)
            if job in self._withdrawn or self._leaving:
                job.abandoned(_LEFT)
            elif task is not None and task.cancelling():  # by the program: asyncio.run ends, say
                self._cancelled_by_program(job, why)
                raise
            else:
                job.raised(why)
        except BaseException as why:
            job.raised(why)
            if isinstance(why, (SystemExit, KeyboardInterrupt)):
                _end_loop_by(why)
        else:
            job.returned(value)


def _end_loop_by(why: BaseException) -> NoReturn:
    """Raise it in this task, which has the loop raise it: so its task's own one has been seen."""
    task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
    raise why
