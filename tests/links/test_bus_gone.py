"""A bus that nobody serves any more, while its link goes on."""

from __future__ import annotations

import threading

import pytest

import shmbus
from shmbus import errors
from tests.links.stage import Stage, meet, mesh


@pytest.mark.slow
@pytest.mark.parametrize("orderly", [True, False])
def test_who_waits_for_a_bus_that_nobody_serves_any_more_is_told(
    stage: Stage, orderly: bool
) -> None:
    here, there = stage.site("here"), stage.site("there", process=True)
    mesh(here, there)
    meet(here, there)
    asker, worker = here.attach("asker"), there.attach("worker")
    begun = threading.Event()
    kept: list[shmbus.Message] = []

    @worker.handle("slow.work")
    def work(message: shmbus.Message) -> None:
        message.defer()
        kept.append(message)
        begun.set()

    worker.start()
    asker.wait_for("slow.work", timeout=30)
    asked = asker.request_async("slow.work", timeout=None)
    assert begun.wait(30)
    assert there.process is not None
    there.process.stop() if orderly else there.process.kill()
    error = asked.exception(timeout=30)
    assert isinstance(error, errors.EndpointDied)
    assert (error.endpoint, error.begun) == ("@link@there", True)
    assert "bus is down" in str(error)
