"""What is asked of a supervisor by command: status, restart, reload, logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from shmbus_command.up.controls import LinesOnce

import shmbus
from shmbus import Backoff, Process
from shmbus.supervisor import Line
from shmbus.testing import eventually
from tests.tools.shmbus_command.conftest import Ran, Start

Command = Callable[..., Ran]

SLEEPS = ("sh", "-c", "echo ready; exec sleep 600")


def sleeper(name: str, **more: str) -> Process:
    return Process(name=name, command=SLEEPS, environment=more, stop_timeout=10)


@pytest.fixture
def files() -> list[Process]:
    """What the supervisor finds when it reads its file again."""
    return []


@pytest.fixture
def supervisor(bus: shmbus.Bus, files: list[Process]) -> Iterator[shmbus.Supervisor]:
    processes = [sleeper("web"), sleeper("mail")]
    with shmbus.supervise(
        processes, bus=bus, output=lambda line: None, source=lambda: files
    ) as supervisor:
        assert supervisor.wait_started(60)
        yield supervisor


@pytest.mark.smoke
def test_the_status_says_what_runs(
    bus: shmbus.Bus, supervisor: shmbus.Supervisor, shmbus_command: Command
) -> None:
    web, mail = shmbus_command("up", "--status", "--bus", bus.name, "--json").json
    assert (web["name"], web["state"], mail["name"]) == ("web", "running", "mail")
    head, *rows = shmbus_command("up", "--status", "--bus", bus.name).lines
    assert head.split()[:3] == ["NAME", "STATE", "PID"]
    assert [row.split()[:3] for row in rows] == [
        [one["name"], "running", str(one["pid"])] for one in (web, mail)
    ]


def test_a_restarted_process_runs_when_the_command_ends(
    bus: shmbus.Bus, supervisor: shmbus.Supervisor, shmbus_command: Command
) -> None:
    before = {one.name: one.pid for one in supervisor.status()}
    ran = shmbus_command("restart", "web", "--bus", bus.name)
    after = {one.name: one.pid for one in supervisor.status()}
    assert (ran.code, ran.out) == (0, f"web runs as process {after['web']}\n")
    assert after["web"] != before["web"]
    assert after["mail"] == before["mail"]
    assert shmbus_command("restart", "mail", "--json", "-b", bus.name).json["state"] == "running"


def test_a_process_that_has_failed_fails_the_status_and_its_restart_with_the_reason(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    fails = Process(name="fails", command=("/nowhere/program",), backoff=Backoff(limit=0))
    once = Process(name="once", command=("true",), restart="never")
    with shmbus.supervise([fails, once], bus=bus, output=lambda line: None) as supervisor:
        assert supervisor.wait(60)
        ran = shmbus_command("up", "--status", "--bus", bus.name)
        assert (ran.code, len(ran.lines)) == (1, 3)
        assert "/nowhere/program" in ran.lines[1]
        ran = shmbus_command("restart", "fails", "--bus", bus.name)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("shmbus: fails has failed: ")
        ran = shmbus_command("restart", "once", "--bus", bus.name)
        assert ran.code == 0
        assert ran.out.startswith("once ")


@pytest.mark.parametrize("policy", ["always", "never"])
def test_a_restart_fails_where_the_process_ends_at_once(
    bus: shmbus.Bus, shmbus_command: Command, policy: Literal["always", "never"]
) -> None:
    dies = Process(name="dies", command=("sh", "-c", "exit 3"), restart=policy)
    with shmbus.supervise([dies], bus=bus, output=lambda line: None) as supervisor:
        eventually(lambda: supervisor.status()[0].code == 3)
        ran = shmbus_command("restart", "dies", "--bus", bus.name)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("shmbus: dies was started, and ")
    assert "exited with code 3" in ran.err


def test_a_process_that_cannot_be_started_has_failed_also_if_it_is_to_run_once(
    bus: shmbus.Bus,
) -> None:
    once = Process(name="once", command=("/nowhere/program",), restart="never")
    with shmbus.supervise([once], bus=bus, output=lambda line: None) as supervisor:
        assert supervisor.wait(60)
        (found,) = supervisor.status()
    assert (found.state, "/nowhere/program" in found.reason) == ("failed", True)


def test_a_process_that_there_is_not_is_a_bad_command_line(
    bus: shmbus.Bus, supervisor: shmbus.Supervisor, shmbus_command: Command
) -> None:
    for command in ("restart", "logs"):
        ran = shmbus_command(command, "wbe", "--bus", bus.name)
        assert (ran.code, ran.out) == (2, "")
        assert "no process 'wbe': perhaps web" in ran.err


def test_reload_says_what_runs_then(
    bus: shmbus.Bus,
    supervisor: shmbus.Supervisor,
    files: list[Process],
    shmbus_command: Command,
) -> None:
    files += [sleeper("web"), sleeper("search")]
    ran = shmbus_command("reload", "--bus", bus.name)
    assert ran.code == 0
    eventually(lambda: [one.name for one in supervisor.status()] == ["web", "search"])


def test_what_cannot_be_loaded_fails_and_changes_nothing(
    bus: shmbus.Bus,
    supervisor: shmbus.Supervisor,
    files: list[Process],
    shmbus_command: Command,
) -> None:
    before = {one.name: one.pid for one in supervisor.status()}
    files += [sleeper("web"), sleeper("web")]
    ran = shmbus_command("reload", "--bus", bus.name)
    assert ran.code == 1
    assert ran.err.startswith("shmbus: all stays as it was: process 'web' cannot be supervised: ")
    assert "another has the same name" in ran.err
    assert "raised" not in ran.err
    ran = shmbus_command("reload", "--json", "--bus", bus.name)
    assert "Traceback" not in ran.out
    assert {one.name: one.pid for one in supervisor.status()} == before


def test_the_logs_have_the_last_lines_of_each(
    bus: shmbus.Bus, supervisor: shmbus.Supervisor, shmbus_command: Command
) -> None:
    eventually(lambda: all(supervisor.logs(name) for name in ("web", "mail")))
    ran = shmbus_command("logs", "--bus", bus.name)
    assert sorted(ran.lines) == ["mail | ready", "web  | ready"]
    ran = shmbus_command("logs", "mail", "--json", "-n", "1", "--bus", bus.name)
    assert (ran.json["name"], ran.json["text"]) == ("mail", "ready")
    assert shmbus_command("logs", "-n", "0", "--bus", bus.name).out == ""


@pytest.mark.slow
def test_logs_that_are_followed_have_each_line_once(
    bus: shmbus.Bus, supervisor: shmbus.Supervisor, start: Start
) -> None:
    eventually(lambda: all(supervisor.logs(name) for name in ("web", "mail")))
    with start("logs", "--follow", "web", "--bus", bus.name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "web | ready\n"
        supervisor.restart("mail")  # not asked for
        supervisor.restart("web")
        assert process.stdout.readline() == "web | ready\n"
        process.terminate()
        assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_logs_that_are_followed_end_with_their_reader(
    bus: shmbus.Bus, supervisor: shmbus.Supervisor, start: Start
) -> None:
    eventually(lambda: supervisor.logs("web"))
    with start("logs", "--follow", "web", "--bus", bus.name) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "web | ready\n"
        process.stdout.close()
        supervisor.restart("web")
        assert process.wait(60) == 141


@pytest.mark.parametrize("arguments", [["up", "--status"], ["restart", "a"], ["reload"], ["logs"]])
def test_a_bus_without_a_supervisor_is_told_with_the_remedy(
    bus: shmbus.Bus, shmbus_command: Command, arguments: list[str]
) -> None:
    ran = shmbus_command(*arguments, "--bus", bus.name)
    assert (ran.code, ran.out) == (1, "")
    assert f"nothing supervises processes on bus '{bus.name}': start them with" in ran.err
    assert ran.err.count("\n") == 1


def test_names_of_processes_are_completed(
    bus: shmbus.Bus, supervisor: shmbus.Supervisor, complete: Callable[..., str]
) -> None:
    assert complete("restart", "--bus", bus.name, "w") == "plain,web\n"
    assert complete("logs", "--bus", "no-such-bus", "w").strip() == ""


def test_a_line_that_was_kept_and_has_come_is_printed_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    show = LinesOnce(["web"], as_json=False, others=False)
    for name, number in [("web", 1), ("web", 2), ("web", 2), ("mail", 1), ("web", 5)]:
        show(Line(name=name, number=number, time=0.0, text=str(number)))
    out, err = capfd.readouterr()
    assert out == "web | 1\nweb | 2\nweb | 5\n"
    assert err == "shmbus logs: 2 lines of web came faster than they were printed\n"
