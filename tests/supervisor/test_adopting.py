"""A supervisor that was killed and is started again: its processes go on, and none is doubled."""

from __future__ import annotations

import os
import signal

import pytest

import shmbus
from shmbus.supervisor import Line
from shmbus.supervisor.mark import VARIABLE, Mark, marked
from shmbus.testing import eventually, start_python
from tests.supervisor.conftest import Supervise, handler, kill, of, shell

HOST = """
    import sys, shmbus
    from tests.supervisor.conftest import handler, shell
    processes = [
        handler("echo"),
        shell("talks", "read -r x; echo one; while :; do sleep 0.01; done"),
        shell("changed", "sleep 1000"),
        shell("gone", "sleep 1000 & sleep 1000"),
        shell("lazy", "sleep 1000", start="first message", on=("lazy",)),
    ]
    with shmbus.supervise(processes, bus=sys.argv[1]) as supervisor:
        with supervisor.bus.attach("client") as client:
            client.wait_for("echo", timeout=30)
            supervisor.start("lazy")
            supervisor.wait_started(30)
            print(client.request("echo").payload, flush=True)
        supervisor.wait()
"""


@pytest.mark.smoke
def test_what_lives_is_adopted_and_goes_on(
    supervise: Supervise, bus_name: str, lines: list[Line]
) -> None:
    with start_python(HOST, bus_name) as host:
        pid = int(host.line())
        before = {one.mark.name: one.pid for one in marked(bus_name) if one.leads}
        host.kill()
    supervisor = supervise(
        handler("echo"),
        shell("talks", "read -r x; echo one; while :; do sleep 0.01; done"),
        shell("changed", "sleep 1001"),
        shell("lazy", "sleep 1000", start="first message", on=("lazy",)),
    )
    with supervisor.bus.attach("client") as client:
        retry = shmbus.Retry(attempts=500)
        assert client.request("echo", timeout=30, retry=retry).payload == pid
    assert supervisor.wait_started(timeout=30)
    status = {each.name: each for each in supervisor.status()}
    assert status["echo"].adopted
    assert status["talks"].pid == before["talks"]
    assert not status["changed"].adopted  # it is another one than it was
    there = ["echo", "talks", "changed", "lazy"]
    eventually(lambda: [each.name for each in supervisor.status()] == there)
    alive = marked(bus_name)
    assert {one.pid for one in alive if one.leads} == pids(supervisor)
    assert "gone" not in {one.mark.name for one in alive}

    os.kill(pid, signal.SIGKILL)  # an adopted one is looked after as any other
    eventually(lambda: of(supervisor, "echo").restarts == 1)
    os.kill(before["lazy"], signal.SIGKILL)  # and does not wait for a message again
    eventually(lambda: of(supervisor, "lazy").restarts == 1)
    eventually(lambda: of(supervisor, "lazy").state == "running")


def pids(supervisor: shmbus.Supervisor) -> set[int | None]:
    return {each.pid for each in supervisor.status()}


def test_output_waits_for_the_next_supervisor(
    supervise: Supervise, bus_name: str, lines: list[Line]
) -> None:
    script = "while :; do echo tick; sleep 0.005; done"
    host = f"""
        import sys, shmbus
        from tests.supervisor.conftest import shell
        with shmbus.supervise([shell("clock", {script!r})], bus=sys.argv[1]) as supervisor:
            supervisor.wait_started()
            print("up", flush=True)
            supervisor.wait()
    """
    with start_python(host, bus_name) as program:
        program.line()
        program.kill()
    supervisor = supervise(shell("clock", script))
    assert supervisor.wait_started(timeout=30)
    assert of(supervisor, "clock").adopted
    eventually(lambda: "tick" in [line.text for line in lines])


def test_what_a_dead_child_has_left_is_ended(supervise: Supervise, bus_name: str) -> None:
    host = """
        import sys, shmbus
        from tests.supervisor.conftest import shell
        script = "sleep 1000 & sleep 1000"
        with shmbus.supervise([shell("parent", script)], bus=sys.argv[1]) as supervisor:
            supervisor.wait_started()
            print("up", flush=True)
            supervisor.wait()
    """
    with start_python(host, bus_name) as program:
        program.line()
        eventually(lambda: len(marked(bus_name)) == 3)
        before = marked(bus_name)
        program.kill()
    leader = next(one.pid for one in before if one.leads)
    os.kill(leader, signal.SIGKILL)
    eventually(lambda: leader not in [one.pid for one in marked(bus_name)])
    supervisor = supervise(shell("parent", "sleep 1000 & sleep 1000"))
    assert supervisor.wait_started(timeout=30)
    eventually(lambda: len(marked(bus_name)) == 3)
    assert not {one.pid for one in marked(bus_name)} & {one.pid for one in before}


def test_a_bus_has_one_supervisor(bus: shmbus.Bus, supervise: Supervise) -> None:
    supervise(shell("one", "sleep 1000"), bus=bus)
    with pytest.raises(shmbus.errors.NameTaken):
        supervise(bus=bus)
    eventually(lambda: [one.leads for one in marked(bus.name)].count(True) == 1)


def test_a_host_that_has_a_mark_itself_is_left_alone(
    bus_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = """
        import subprocess, sys, shmbus
        from tests.supervisor.conftest import of, shell
        beside = subprocess.Popen(["sleep", "1000"])
        with shmbus.supervise([shell("host", "sleep 1000")], bus=sys.argv[1]) as supervisor:
            supervisor.wait_started()
            print(of(supervisor, "host").adopted, beside.poll())
        beside.kill()
        beside.wait()
    """
    monkeypatch.setenv(VARIABLE, str(Mark(bus_name, "host", "", 0)))
    with start_python(host, bus_name) as program:
        assert program.line() == "False None"
        assert program.wait() == 0


def test_what_a_child_has_started_in_a_session_of_its_own_is_not_taken_for_it(
    supervise: Supervise, bus_name: str
) -> None:
    host = """
        import sys, shmbus
        from tests.supervisor.conftest import shell
        script = "sleep 0.3; setsid sleep 1000 & sleep 1000"
        with shmbus.supervise([shell("parent", script)], bus=sys.argv[1]) as supervisor:
            supervisor.wait_started()
            print(supervisor.status()[0].pid, flush=True)
            supervisor.wait()
    """
    with start_python(host, bus_name) as program:
        parent = int(program.line())
        helper = eventually(lambda: [one.pid for one in marked(bus_name) if one.session != parent])
        program.kill()
    os.kill(parent, signal.SIGKILL)
    eventually(lambda: parent not in [one.pid for one in marked(bus_name)])
    with supervise(shell("parent", "sleep 1000")) as supervisor:
        assert supervisor.wait_started(timeout=30)
        status = of(supervisor, "parent")
        assert not status.adopted
        assert status.pid not in helper
    assert [one.pid for one in marked(bus_name)] == helper
    kill(helper)
    eventually(lambda: not marked(bus_name))
