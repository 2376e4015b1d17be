"""The threads that run an endpoint's handlers."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

from shmbus import errors
from shmbus.shared._kernel import monotonic
from shmbus.shared.signals import uninterrupted

from . import background
from .background import Background
from .flag import Flag

if TYPE_CHECKING:
    from ._kernel import EndpointCore
    from .interests import Interests

log = logging.getLogger("shmbus")

PATIENCE = 2.0
"""Seconds that messages may wait for a thread that runs handlers, before a warning is logged."""

REST = 0.01
"""Seconds that a thread rests after what would have ended it."""

SHORTAGE = 0.25
"""Seconds that it rests where the system has no descriptor or memory for the next message."""


class Runners:
    """The threads of one endpoint; warns where messages wait and there are none.

    `done` is set when the endpoint closes.
    """

    def __init__(self, endpoint: EndpointCore, interests: Interests, done: Flag) -> None:
        self._endpoint, self._interests, self._done = endpoint, interests, done
        name, reference = endpoint.name, weakref.ref(self)  # so that nothing keeps it alive
        self._patience = Background(name, "patience", lambda: _look_after(reference, done))
        self._warned = False
        self.threads: set[int] = set()

    @property
    def others(self) -> set[int]:
        """Without the calling thread."""
        return self.threads - {threading.get_ident()}

    def run(self, *, reconnect: bool, timeout: float | None = None) -> None:
        """Run handlers in this thread until the endpoint ends, for `timeout` seconds at most."""
        me = threading.get_ident()
        try:
            self.threads.add(me)
            self._endpoint._run(reconnect=reconnect, timeout=timeout)
        finally:
            self.threads.discard(me)

    def start(self, count: int, *, reconnect: bool) -> list[threading.Thread]:
        """Run handlers in so many other threads: in all of them, or it raises `NoThread`."""
        name, gate, wanted = self._endpoint.name, Flag(), list[threading.Thread]()
        # Else what a signal's handler raises in `gate.set` would leave them waiting for ever.
        with uninterrupted():
            self._start(count, name, gate, wanted, reconnect)
        return wanted

    def _start(
        self,
        count: int,
        name: str,
        gate: Flag,
        wanted: list[threading.Thread],
        reconnect: bool,
    ) -> None:
        try:
            for _ in range(count):
                thread = background.thread_of(
                    name, "handlers", self._run_thread, gate, wanted, reconnect
                )
                background.start(thread, name, "handlers")
                wanted.append(thread)
            # From here on, iterating raises and close() waits for them.
            self.threads.update(thread.ident for thread in wanted if thread.ident is not None)
        except BaseException:
            wanted.clear()
            raise
        finally:
            gate.set()

    def _run_thread(self, gate: Flag, wanted: list[threading.Thread], reconnect: bool) -> None:
        gate.wait(threading.TIMEOUT_MAX)
        try:
            while threading.current_thread() in wanted and self._runs_on(reconnect):
                pass
        finally:  # also where `start` was interrupted when it had counted this thread
            self.threads.discard(threading.get_ident())

    def _runs_on(self, reconnect: bool) -> bool:
        """Run handlers in this thread; whether what ended that is no reason to stop."""
        try:
            self.run(reconnect=reconnect)
        except errors.NoResource as why:  # the message waits until it can be had
            log.warning("%s", why)
            return not self._done.wait(SHORTAGE)
        except errors.BusError as why:
            log.warning("%s", why)
        except BaseException:  # sys.exit() in a handler: the next message needs this thread
            if self._endpoint._connection.forked():
                return False
            log.exception(
                "endpoint %r: a handler would have ended the thread that runs it; it goes on",
                self._endpoint.name,
            )
            return not self._done.wait(REST)
        return False

    def await_others(self, timeout: float | None) -> None:
        """Wait until they have left, for `timeout` seconds at most."""
        end = None if timeout is None else monotonic() + timeout
        pause = 0.0005
        # Not by a Condition: a signal's handler that raises in one leaves its lock taken.
        while self.others and (end is None or monotonic() < end):
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)

    def expect(self) -> None:
        """There is a handler: check from time to time that a thread runs it."""
        if self._endpoint._received:
            return
        try:
            self._patience.ensure()
        except errors.NoThread as why:  # which only warns
            log.warning("%s", why)

    def warn_if_missing(self) -> None:
        """Warn, once, if messages wait for handlers and no thread has run them."""
        if self._warned or self.threads or self._endpoint._received:
            return
        if not self._endpoint._data_waits():
            return
        if len(self._interests.uncalled()) == len(self._interests):
            return
        self._warned = True
        log.warning(
            "endpoint %r has messages, and no thread runs its handlers: call run() or start()",
            self._endpoint.name,
        )


def _look_after(reference: weakref.ref[Runners], done: Flag) -> None:
    """Warn where messages have waited for two looks."""
    runners = reference()
    while runners is not None and not runners._endpoint._received and not runners._warned:
        waiting = runners._endpoint._data_waits()
        runners = None
        if done.wait(PATIENCE):
            return
        runners = reference()
        if waiting and runners is not None:
            runners.warn_if_missing()
