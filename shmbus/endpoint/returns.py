"""Messages of one endpoint that are to be given back to the bus later: `Message.nack(delay=)`."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from shmbus import errors
from shmbus.shared._kernel import monotonic, monotonic_ns

from .background import Background

if TYPE_CHECKING:
    from ._kernel import Message

log = logging.getLogger("shmbus")

AGAIN = 100_000_000
"""Nanoseconds after which a message that did not fit into the ring is given back again."""

PATIENCE = 5.0
"""Seconds that the thread waits for space in the ring."""


class Delayed(NamedTuple):
    """A message in hand until its time comes."""

    at: int
    """By the monotonic clock, nanoseconds."""
    message: Message
    bits: int
    reason: str


class Returns:
    """Keeps them until their time comes, and the thread that gives them back then.

    The list is changed by single operations only, and no lock is taken that an exception from a
    signal's handler could leave taken.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._thread = Background(endpoint, "nacks", self._run)
        self._delayed: list[Delayed] = []
        self._asleep = threading.Lock()  # released to wake the thread
        self._asleep.acquire()
        self._leaving = False

    def add(self, message: Message, bits: int, reason: str, at: int) -> None:
        """Give it back then. Raises `NoThread`."""
        one = Delayed(at, message, bits, reason)
        self._delayed.append(one)
        try:
            self._thread.ensure()
        except BaseException:
            self._take(one)
            raise
        self._wake()

    def give_all(self, timeout: float) -> None:
        """Give all of them back now, and what comes later at once: the endpoint leaves. `timeout`:
        seconds for all of them; those that do not fit by then stay in hand, and are handed on when
        it has left."""
        self._leaving = True
        end = monotonic() + timeout
        for one in list(self._delayed):
            self._give(one, max(0.0, end - monotonic()))
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self._asleep.release()

    def _run(self) -> None:
        while True:
            if self._leaving and not self._delayed:
                self._thread.leave()
                if not self._delayed:  # who adds one from now on starts another thread
                    return
            self._asleep.acquire(timeout=self._pause())
            now = monotonic_ns()
            for one in list(self._delayed):
                if one.at <= now or self._leaving:
                    self._give_or_log(one)

    def _give_or_log(self, one: Delayed) -> None:
        try:
            self._give(one, PATIENCE)
        except BaseException:  # the thread has others to give back
            log.exception("endpoint %r: a message could not be given back yet", self._endpoint)

    def _pause(self) -> float:
        """Seconds until the first of them, -1 where there is none."""
        first = min((one.at for one in list(self._delayed)), default=None)
        if first is None:
            return -1.0
        return min(max(0.0, (first - monotonic_ns()) / 1e9), threading.TIMEOUT_MAX)

    def _give(self, one: Delayed, timeout: float) -> None:
        if not self._take(one):  # another thread gives it
            return
        try:
            one.message._give_back(one.bits, one.reason, timeout)
        except (errors.QueueFull, errors.BusDown):
            self._try_again(one)
        except errors.BusError as why:  # whoever deals with the endpoint's end hands it on
            log.warning("endpoint %r: a message stays in hand: %s", self._endpoint, why)
        except BaseException:  # Ctrl-C while it waited, or no memory
            self._try_again(one)
            raise

    def _try_again(self, one: Delayed) -> None:
        self._delayed.append(one._replace(at=monotonic_ns() + AGAIN))

    def _take(self, one: Delayed) -> bool:
        try:
            self._delayed.remove(one)
        except ValueError:
            return False
        return True
