"""The thread that waits for the bus in the place of a link's loop: `Watch`."""

from __future__ import annotations

import os
import select

from shmbus.aio.endpoint import Endpoint
from shmbus.endpoint import background

from .loop import SharedLoop


class Watch:
    """That of one link. It has a turn whenever something has come, and before it sleeps it spins,
    while requests that follow each other closely are passed on."""

    def __init__(self, endpoint: Endpoint, loop: SharedLoop) -> None:
        self._turns, self._looped, self._loop = endpoint._turns, endpoint._looped, loop
        self._ends = os.eventfd(0, os.EFD_CLOEXEC)
        self._over = False
        self._expects = self._rests = False
        self._event = self._turns.watched()
        thread = background.thread_of(endpoint.name, "bus", self._run)
        background.start(thread, endpoint.name, "bus")

    def expect(self) -> None:
        """A part of a request has been handled: the next may come soon."""
        self._expects = True

    def close(self) -> None:
        """End it: from now on the loop waits for the bus."""
        os.eventfd_write(self._ends, 1)
        self._over = True
        self._turns.begin()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        poll.register(self._ends, select.POLLIN)
        loop = self._loop
        while not self._over and loop.in_its_place(self._turns.work, wait=True):
            spins, self._expects = self._expects, False
            if spins and self._looped.linger():
                continue
            self._rests = True
            loop.in_its_place(self._rest, wait=True)
            if self._rests:
                poll.poll()
                if spins:
                    self._looped.slept()
        os.close(self._ends)

    def _rest(self) -> None:
        self._rests = self._turns.rest()
