"""The thread that waits for the bus in the place of a link's loop: `Watch`."""

from __future__ import annotations

import os
import select

from shmbus.aio.relay import Relay
from shmbus.endpoint import background

from .loop import SharedLoop


class Watch:
    """That of one link. It has a turn whenever something has come, and before it sleeps it spins,
    while requests that follow each other closely are passed on."""

    def __init__(self, relay: Relay, loop: SharedLoop) -> None:
        self._relay, self._loop = relay, loop
        self._ends = os.eventfd(0, os.EFD_CLOEXEC)
        self._over = False
        self._expects = False
        self._event = self._relay.watch_elsewhere()
        thread = background.thread_of(relay.name, "bus", self._run)
        background.start(thread, relay.name, "bus")

    def expect(self) -> None:
        """A part of a request has been handled: the next may come soon."""
        self._expects = True

    def close(self) -> None:
        """End it: from now on the loop waits for the bus."""
        os.eventfd_write(self._ends, 1)
        self._over = True
        self._relay.watch()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        poll.register(self._ends, select.POLLIN)
        loop = self._loop
        while not self._over and loop.in_its_place(self._relay.work, wait=True):
            spins, self._expects = self._expects, False
            if spins and self._relay.linger():
                continue
            loop.in_its_place(self._relay.arm, wait=True)  # or the loop goes on
            poll.poll()
            if spins:
                self._relay.slept()
        os.close(self._ends)
