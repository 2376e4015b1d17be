"""Processes under a supervisor: started, started again, given up, stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import shmbus
from shmbus import errors
from shmbus.supervisor import Backoff, Line, Process
from shmbus.supervisor.child import Child
from shmbus.testing import eventually
from tests.supervisor.conftest import Supervise, handler, of, shell

SOON = Backoff(first=0.001, limit=3)


@pytest.mark.smoke
def test_a_process_that_is_killed_is_started_again(supervise: Supervise) -> None:
    supervisor = supervise(handler("echo"))
    with supervisor.bus.attach("client") as client:
        client.wait_for("echo", timeout=30)
        before = client.request("echo").payload
        os.kill(before, signal.SIGKILL)
        eventually(lambda: of(supervisor, "echo").restarts == 1)
        after = client.request("echo", retry=shmbus.Retry(attempts=500), timeout=30).payload
    assert after != before
    status = of(supervisor, "echo")
    assert (status.state, status.pid, status.signal) == ("running", after, "SIGKILL")
    assert status.attached == ("echo",)


def test_what_needs_something_is_started_once_somebody_handles_it(supervise: Supervise) -> None:
    supervisor = supervise(
        shell("later", "sleep 100", needs=("index.query",)), shell("now", "sleep 100")
    )
    eventually(lambda: of(supervisor, "now").state == "running")
    waits = of(supervisor, "later")
    assert (waits.state, waits.pid) == ("waiting", None)
    assert "'index.query'" in waits.reason
    assert not supervisor.wait_started(timeout=0)
    with supervisor.bus.attach("index") as index:
        index.handle("index.*", print)
        assert supervisor.wait_started(timeout=30)
    assert of(supervisor, "later").state == "running"


def test_one_that_ends_before_it_has_attached_is_started_again_and_given_up(
    supervise: Supervise,
) -> None:
    supervisor = supervise(shell("hasty", "exit 3", backoff=SOON))
    assert supervisor.wait(timeout=30)
    hasty = of(supervisor, "hasty")
    assert (hasty.state, hasty.restarts, hasty.code) == ("failed", 3, 3)
    assert "3 restarts within 60 s" in hasty.reason
    assert "exited with code 3" in hasty.reason
    supervisor.start("hasty")
    eventually(lambda: of(supervisor, "hasty").restarts == 6)


def test_what_cannot_be_started_is_given_up_and_says_why(supervise: Supervise) -> None:
    supervisor = supervise(Process(name="none", command=("/no/such/program",), backoff=SOON))
    assert supervisor.wait(timeout=30)
    assert "/no/such/program" in of(supervisor, "none").reason


@pytest.mark.parametrize(
    ("policy", "script", "restarts"),
    [("on-failure", "exit 0", 0), ("on-failure", "exit 1", 3), ("never", "exit 1", 0)],
)
def test_the_policy_says_which_end_is_followed_by_a_start(
    supervise: Supervise, policy: str, script: str, restarts: int
) -> None:
    supervisor = supervise(shell("one", script, restart=policy, backoff=SOON))
    assert supervisor.wait(timeout=30)
    assert of(supervisor, "one").restarts == restarts


def test_it_runs_where_and_with_what_was_said(
    supervise: Supervise, lines: list[Line], bus_name: str, tmp_path: Path
) -> None:
    script = 'echo "$PWD $GREETING $SHMBUS_BUS"; test -t 0 || read -r x || echo no input'
    options = {"directory": str(tmp_path), "environment": {"GREETING": "hi"}}
    supervisor = supervise(shell("one", script, restart="on-failure", **options))
    assert supervisor.wait(timeout=30)
    eventually(lambda: len(lines) == 2)
    assert [line.text for line in lines] == [f"{tmp_path} hi {bus_name}", "no input"]


def target() -> None:
    """What the next test names."""
    print("called", sys.argv[1:], "SHMBUS_TARGET_PATH" in os.environ)


@pytest.mark.slow
def test_a_target_is_a_function_of_a_module(supervise: Supervise, lines: list[Line]) -> None:
    process = Process(name="one", target=f"{__name__}:target", restart="on-failure")
    assert supervise(process).wait(timeout=30)
    eventually(lambda: [line.text for line in lines] == ["called [] False"])


def test_a_group_is_restarted_together(supervise: Supervise) -> None:
    supervisor = supervise(
        shell("a", "sleep 100", group="g"),
        shell("b", "sleep 100", group="g"),
        shell("alone", "sleep 100"),
    )
    assert supervisor.wait_started(timeout=30)
    before = {each.name: each.pid for each in supervisor.status()}
    pid = before["a"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: of(supervisor, "a").restarts == 1)
    assert supervisor.wait_started(timeout=30)
    after = {each.name: each.pid for each in supervisor.status()}
    assert after["alone"] == before["alone"]
    assert not {after["a"], after["b"]} & set(before.values())
    assert of(supervisor, "b").restarts == 0


@pytest.mark.parametrize(("script", "policy"), [("exit 0", "on-failure"), ("exit 1", "never")])
def test_one_that_ends_for_good_stops_nobody_of_its_group(
    supervise: Supervise, script: str, policy: str
) -> None:
    supervisor = supervise(
        shell("stays", "sleep 100", group="g"), shell("ends", script, group="g", restart=policy)
    )
    pid = eventually(lambda: of(supervisor, "stays").pid)
    eventually(lambda: of(supervisor, "ends").state == "ended")
    stays = of(supervisor, "stays")
    assert (stays.state, stays.pid) == ("running", pid)


@pytest.mark.parametrize(
    ("ends", "waits", "state"),
    [
        (
            "sleep 100",
            "trap 'sleep 4; exit' TERM; echo up; while :; do sleep 0.05; done",
            "stopping",
        ),
        ("exit 1", "echo up; sleep 100", "restarting"),
    ],
)
def test_a_group_that_waits_to_be_started_again_costs_nothing(
    supervise: Supervise, lines: list[Line], ends: str, waits: str, state: str
) -> None:
    backoff = Backoff(first=60.0, longest=60.0)
    supervisor = supervise(
        shell("waits", waits, group="g"), shell("ends", ends, group="g", backoff=backoff)
    )
    if state == "stopping":  # this one takes its time, while the other waits for it
        eventually(lambda: lines)
        pid = of(supervisor, "ends").pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: of(supervisor, "waits").state == state)
    eventually(lambda: of(supervisor, "ends").state == "restarting")
    thread = next(t for t in threading.enumerate() if t.name.endswith(": processes"))
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    before = time.clock_gettime(clock)
    time.sleep(0.4)
    assert time.clock_gettime(clock) - before < 0.03
    assert of(supervisor, "waits").state == state
    supervisor.kill()


def test_stopping_and_starting_by_hand_counts_as_no_crash(supervise: Supervise) -> None:
    supervisor = supervise(shell("one", "sleep 100"))
    assert supervisor.wait_started(timeout=30)
    supervisor.stop("one")
    assert supervisor.wait(timeout=30)
    assert of(supervisor, "one").state == "stopped"
    supervisor.start("one")
    assert supervisor.wait_started(timeout=30)
    before = of(supervisor, "one").pid
    supervisor.restart("one")
    assert supervisor.wait_started(timeout=30)
    one = of(supervisor, "one")
    assert one.state == "running"
    assert one.pid != before
    assert one.restarts == 0
    with pytest.raises(errors.NoSuchProcess):
        supervisor.restart("two")


def test_a_process_that_ignores_sigterm_is_killed_with_all_that_it_has_started(
    supervise: Supervise, lines: list[Line]
) -> None:
    script = "trap '' TERM; sleep 1000 & (trap '' TERM; sleep 1000) & echo up; wait; sleep 1000"
    supervisor = supervise(shell("deaf", script, stop_timeout=0.05))
    eventually(lambda: [line.text for line in lines] == ["up"])
    supervisor.close()
    assert of(supervisor, "deaf").state == "stopped"  # and nothing is left: the fixture looks


def test_what_a_process_leaves_behind_ends_with_it(supervise: Supervise, lines: list[Line]) -> None:
    supervisor = supervise(shell("parent", "sleep 1000 & echo $!", restart="never"))
    assert supervisor.wait(timeout=30)
    eventually(lambda: lines)
    eventually(lambda: not Path(f"/proc/{lines[0].text}").exists() or "Z" in stat(lines[0].text))


def stat(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_others_need_is_stopped_after_them(supervise: Supervise, lines: list[Line]) -> None:
    supervisor = supervise(
        handler("index"),
        shell(
            "user",
            "trap 'sleep 0.1; echo bye; exit' TERM; while :; do sleep 0.01; done",
            needs=("index",),
        ),
    )
    assert supervisor.wait_started(timeout=30)
    with supervisor.bus.attach("watch") as watch:
        watch.subscribe("supervisor.process")
        supervisor.close()
        names: list[str] = []
        while len(names) < 2:
            message = watch.receive(timeout=10)
            assert message is not None
            if message.payload["what"] == "stopped":
                names.append(message.payload["name"])
    assert names == ["user", "index"]


def test_a_reload_changes_what_has_changed(supervise: Supervise) -> None:
    supervisor = supervise(
        shell("same", "sleep 100"), shell("other", "sleep 100"), shell("gone", "sleep 100")
    )
    assert supervisor.wait_started(timeout=30)
    before = {each.name: each.pid for each in supervisor.status()}
    supervisor.reload(
        [
            shell("same", "sleep 100", restart="never"),
            shell("other", "sleep 101"),
            shell("new", "sleep 100"),
        ]
    )
    assert supervisor.wait_started(timeout=30)
    eventually(lambda: [each.name for each in supervisor.status()] == ["same", "other", "new"])
    after = {each.name: each.pid for each in supervisor.status()}
    assert after["same"] == before["same"]
    assert after["other"] != before["other"]
    with pytest.raises(errors.InvalidProcess):
        supervisor.reload([shell("same", "true"), shell("same", "true")])


def test_a_supervisor_uses_a_bus_that_its_host_serves(
    bus: shmbus.Bus, supervise: Supervise
) -> None:
    with supervise(handler("echo"), bus=bus) as supervisor:
        with bus.attach("client") as client:
            client.wait_for("echo", timeout=30)
            client.request("echo")
    assert bus.info().alive
    with pytest.raises(errors.SupervisorClosed):
        supervisor.start("echo")


def test_a_bus_that_ends_before_its_supervisor_holds_up_nothing(
    bus: shmbus.Bus, supervise: Supervise
) -> None:
    supervisor = supervise(
        shell("one", "sleep 1000"),
        handler("asleep", start="first message", on=("asleep",)),
        bus=bus,
    )
    assert supervisor.wait_started(timeout=30)
    bus.close()
    supervisor.restart("one")
    assert supervisor.wait_started(timeout=30)
    supervisor.close()
    assert [each.state for each in supervisor.status()] == ["stopped", "stopped"]


def test_one_that_the_kernel_keeps_is_not_doubled(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervise(shell("one", "exec sleep 1000", stop_timeout=0.0))
    assert supervisor.wait_started(timeout=30)
    pid = of(supervisor, "one").pid
    assert pid is not None
    with monkeypatch.context() as patch:  # as where it waits in a driver: no signal ends it
        patch.setattr(Child, "send", lambda child, number: None)
        supervisor.stop("one")
        eventually(lambda: of(supervisor, "one").state == "failed")
    supervisor.start("one")
    assert of(supervisor, "one").pid == pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: of(supervisor, "one").state == "running")
    assert of(supervisor, "one").pid != pid


def test_one_that_the_kernel_keeps_holds_up_no_end(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervise(shell("one", "exec sleep 1000", stop_timeout=0.0))
    assert supervisor.wait_started(timeout=30)
    pid = of(supervisor, "one").pid
    assert pid is not None
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with monkeypatch.context() as patch:
        patch.setattr(Child, "send", lambda child, number: None)
        supervisor.close()
    assert of(supervisor, "one").state == "failed"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert raised == []  # nothing was closed twice
