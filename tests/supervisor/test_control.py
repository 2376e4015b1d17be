"""A supervisor as others on its bus see it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

import shmbus
from shmbus import errors
from shmbus.supervisor import Control, Process, ProcessEvent
from shmbus.testing import eventually
from tests.supervisor.conftest import Supervise, of, python, shell


@pytest.mark.smoke
def test_others_ask_and_order(supervise: Supervise) -> None:
    wanted = [shell("one", "sleep 1000")]

    def source() -> Iterable[Process]:
        return wanted

    supervisor = supervise(*wanted, source=source)
    assert supervisor.wait_started(timeout=30)
    with supervisor.bus.attach("client") as client:
        control = client.client(Control, "supervisor", timeout=30)
        before = control.status()[0]
        assert before == supervisor.status()[0]
        control.restart("one")
        eventually(lambda: control.status()[0].pid not in (None, before.pid))
        control.stop("one")
        eventually(lambda: control.status()[0].state == "stopped")
        control.start("one")
        eventually(lambda: control.status()[0].state == "running")
        wanted.append(shell("two", "sleep 1000"))
        control.reload()
        eventually(lambda: control.status()[-1].name == "two")
        with pytest.raises(errors.RemoteError, match=r"NoSuchProcess.*'three'"):
            control.stop("three")


def test_what_happens_is_published(bus: shmbus.Bus, supervise: Supervise) -> None:
    with bus.attach("watch") as watch:
        watch.subscribe("supervisor.process", payload_type=ProcessEvent)
        supervisor = supervise(shell("one", "exit 3", restart="never"), bus=bus)
        assert supervisor.wait(timeout=30)
        told = [message.payload for message in watch.receive_many(2, timeout=30)]
    assert [(each.what, each.code) for each in told] == [("started", None), ("exited", 3)]
    assert told[0].pid == told[1].pid


def test_a_process_with_an_overdue_handler_is_started_again_if_it_says_so(
    supervise: Supervise,
) -> None:
    hangs = """
        import shmbus, time
        with shmbus.attach(name="hangs") as endpoint:
            endpoint.handle("hangs", lambda message: time.sleep(1000), limit=0.05)
            endpoint.run()
    """
    supervisor = supervise(python("hangs", hangs, overdue="restart", restart="never"))
    with supervisor.bus.attach("client") as client:
        client.wait_for("hangs", timeout=30)
        with pytest.raises(errors.HandlerTimeout):
            client.request("hangs", timeout=30)
        eventually(lambda: of(supervisor, "hangs").restarts == 1)
    assert "longer than its limit of 0.05 s" in of(supervisor, "hangs").ended
