"""What a link had begun that dies goes on, however often that happens."""

from __future__ import annotations

import pytest

import shmbus
from shmbus.links import Keep, Keeper
from shmbus.links.keeper import Kept
from shmbus.testing import eventually, start_python

DIES = """
import os, signal, sys
from shmbus.endpoint.attach import attach_as

link = attach_as("@link", sys.argv[1])
link.handle("job.do", lambda message: os.kill(os.getpid(), signal.SIGKILL), redeliver=True)
link.start()
print("up", flush=True)
signal.pause()
"""

MOVE = Keep("@link", (Kept("job.do"),), now=True)


@pytest.mark.slow
def test_a_command_outlives_more_links_than_it_may_be_delivered_to_others(bus: shmbus.Bus) -> None:
    with Keeper(bus.name, "link") as keeper, bus.attach("here") as here:
        keeper.keep(MOVE)
        here.send("job.do", 1)
        for _ in range(3):
            with start_python(DIES, bus.name) as link:
                assert link.line() == "up"
                eventually(keeper._place._data_waits, "it waits at the keeper")
                keeper.keep(MOVE)
                eventually(lambda: not link.alive, "it has died of it")
        with bus.attach("worker") as worker:
            came = list[tuple[int, bool]]()
            worker.handle("job.do", lambda m: came.append((m.payload, m.redelivered)))
            worker.start()
            eventually(keeper._place._data_waits, "it waits at the keeper")
            keeper.keep(MOVE)
            eventually(lambda: came, "the worker gets it")
    assert came == [(1, True)]
