"""A thread of an endpoint's own, besides those that its user starts: it runs while it is needed,
whatever kept it from starting before, or ended it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shmbus import errors
from shmbus.shared import threads
from shmbus.shared.signals import uninterrupted

log = logging.getLogger("shmbus")


class Background:
    """One such thread at a time, which calls `run`. `endpoint` and `task` name it in errors."""

    def __init__(self, endpoint: str, task: str, run: Callable[[], object]) -> None:
        self._endpoint, self._task, self._call = endpoint, task, run
        self._thread: threading.Thread | None = None
        self.runs = False
        """Whether it runs, as far as can be told without asking the system."""

    @property
    def here(self) -> bool:
        """Whether the calling thread is it. One that is not any more has been replaced."""
        return self._thread is threading.current_thread()

    def ensure(self) -> None:
        """Start the thread if it does not run. Raises `NoThread`."""
        before = self._thread
        if before is not None and before.is_alive():
            return
        thread = thread_of(self._endpoint, self._task, self._run)
        self._thread = thread
        self.runs = True
        try:
            start(thread, self._endpoint, self._task)
        finally:
            self.runs = thread.is_alive()

    def leave(self) -> None:
        """By the thread, before it looks for the last time whether it is needed: who needs it
        afterwards starts another."""
        if self.here:
            self.runs = False
            self._thread = None

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, for `timeout` seconds at most."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and thread.is_alive():
            thread.join(timeout)

    def _run(self) -> None:
        try:
            self._call()
        except BaseException:
            log.exception("endpoint %r: the thread for its %s ended", self._endpoint, self._task)
        finally:
            self.leave()


def thread_of(
    endpoint: str, task: str, run: Callable[..., object], *args: object
) -> threading.Thread:
    """A thread, not started, whose name says what it is for. The interpreter's end ends it."""
    return threading.Thread(target=run, args=args, name=f"shmbus:{endpoint}:{task}", daemon=True)


def start(thread: threading.Thread, endpoint: str, task: str) -> None:
    """Start it. Raises `NoThread`."""
    try:
        # What a signal's handler raises in the midst of it can leave a lock of CPython's own taken.
        with uninterrupted():
            threads.start(thread)
    except RuntimeError as why:
        if thread.ident is not None:  # raised by a signal's handler, afterwards
            raise
        raise errors.NoThread(endpoint=endpoint, task=task, reason=str(why)) from None
