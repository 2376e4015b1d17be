"""The threads that run an endpoint's handlers."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING

from shmbus import errors

if TYPE_CHECKING:
    from ._kernel import EndpointCore
    from .interests import Interests

log = logging.getLogger("shmbus")

PATIENCE = 2.0
"""Seconds that messages may wait for a thread that runs handlers, before a warning is logged."""


class Runners:
    """The threads of one endpoint; warns where messages wait and there are none.

    `done` is set when the endpoint closes.
    """

    def __init__(self, endpoint: EndpointCore, interests: Interests, done: threading.Event) -> None:
        self._endpoint, self._interests, self._done = endpoint, interests, done
        self._left = threading.Condition()
        self._patience: threading.Thread | None = None
        self._warned = False
        self.threads: set[int] = set()

    @property
    def others(self) -> set[int]:
        """Without the calling thread."""
        return self.threads - {threading.get_ident()}

    def run(self, *, reconnect: bool, timeout: float | None = None) -> None:
        """Run handlers in this thread until the endpoint ends, for `timeout` seconds at most."""
        me = threading.get_ident()
        with self._left:
            self.threads.add(me)
        try:
            self._endpoint._run(reconnect=reconnect, timeout=timeout)
        finally:
            with self._left:
                self.threads.discard(me)
                self._left.notify_all()

    def start(self, *, reconnect: bool) -> threading.Thread:
        """Run handlers in another thread."""
        thread = threading.Thread(
            target=self._run_thread,
            args=(reconnect,),
            name=f"shmbus:{self._endpoint.name}",
            daemon=True,
        )
        with self._left:  # from here on, iterating raises and close() waits for it
            thread.start()
            assert thread.ident is not None
            self.threads.add(thread.ident)
        return thread

    def _run_thread(self, reconnect: bool) -> None:
        try:
            self.run(reconnect=reconnect)
        except (errors.BusDown, errors.EndpointClosed, errors.Evicted) as why:
            log.warning("%s", why)
        except BaseException:  # sys.exit() in a handler would end it unnoticed
            log.exception("endpoint %r: a thread that ran its handlers ended", self._endpoint.name)

    def await_others(self, timeout: float | None) -> None:
        """Wait until they have left, for `timeout` seconds at most."""
        with self._left:
            self._left.wait_for(lambda: not self.others, timeout)

    def expect(self) -> None:
        """There is a handler: check from time to time that a thread runs it."""
        if self._patience is not None or self._endpoint._received:
            return

        def wait() -> None:
            runners = reference()
            while runners is not None and not runners._endpoint._received and not runners._warned:
                waiting = runners._endpoint._data_waits()
                runners = None
                if done.wait(PATIENCE):
                    return
                runners = reference()
                if waiting and runners is not None:
                    runners.warn_if_missing()

        done, reference = self._done, weakref.ref(self)
        self._patience = threading.Thread(
            target=wait, name=f"shmbus:{self._endpoint.name}:patience", daemon=True
        )
        self._patience.start()

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
