"""doctor: what is shown of the machine and of what dead processes left, and what is freed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmbus.testing import BusProcess, in_shm
from shmbus.views import Finding, Foreign

from .conftest import Ran

Command = Callable[..., Ran]

GOOD = Finding("CPUs", "good", "4")
NOTE = Finding("memory", "note", "256 MiB")
BAD = Finding("descriptors", "bad", "64 at most", "ulimit -n 800")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """What is found on this machine: good, unless a test adds something; nobody else is on it."""
    findings = [GOOD]
    monkeypatch.setattr("shmbus_command.doctor.check_host", lambda bus: list(findings))
    monkeypatch.setattr("shmbus_command.doctor.find_foreign", list)
    return findings


def test_a_machine_that_is_fit_is_all_right(
    host: list[Finding], bus_name: str, shmbus_command: Command
) -> None:
    host.append(NOTE)
    ran = shmbus_command("doctor", bus_name)
    assert (ran.code, ran.lines) == (
        0,
        [
            "ok    CPUs: 4",
            "note  memory: 256 MiB",
            f"ok    leavings: none in /dev/shm of bus {bus_name}",
        ],
    )


def test_what_is_bad_is_told_with_its_remedy_and_by_the_exit_code(
    host: list[Finding], bus_name: str, shmbus_command: Command
) -> None:
    host.append(BAD)
    ran = shmbus_command("doctor", bus_name)
    assert ran.code == 1
    assert ran.lines[1:3] == ["bad   descriptors: 64 at most", "      ulimit -n 800"]
    ran = shmbus_command("doctor", bus_name, "--json")
    assert ran.code == 1
    assert ran.json["host"][1] == {
        "subject": "descriptors",
        "state": "bad",
        "text": "64 at most",
        "remedy": "ulimit -n 800",
    }
    assert (ran.json["freed"], ran.json["leavings"]) == ([], [])


def test_what_the_dead_left_is_told_and_freed_where_that_is_asked_for(
    host: list[Finding], bus_process: BusProcess, shmbus_command: Command
) -> None:
    bus_process.kill()
    name = bus_process.name
    ran = shmbus_command("doctor", name)
    assert ran.code == 1
    (line,) = (line for line in ran.lines if line.startswith("left  "))
    assert line.startswith(f"left  bus {name}: {len(in_shm(name))} files, ")
    assert f"its dispatcher, process {bus_process.pid}, died" in line
    assert "      shmbus doctor --fix frees it: none of its processes is alive" in ran.lines
    assert in_shm(name)

    ran = shmbus_command("doctor", name, "--fix")
    assert ran.code == 0
    assert f"of bus {name} (its dispatcher, process {bus_process.pid}, died)" in ran.out
    assert ran.lines[-1] == f"ok    leavings: none in /dev/shm of bus {name}"
    assert in_shm(name) == []


def test_what_was_freed_is_told_as_json(
    host: list[Finding], bus_process: BusProcess, shmbus_command: Command
) -> None:
    bus_process.kill()
    (left,) = shmbus_command("doctor", bus_process.name, "--json").json["leavings"]
    assert left["removable"] is True
    ran = shmbus_command("doctor", bus_process.name, "--fix", "--json")
    assert ran.code == 0
    (freed,) = ran.json["freed"]
    assert (freed["bus"], freed["owner"]) == (bus_process.name, left["owner"])
    assert 0 < freed["bytes"] <= left["bytes"]  # its lock is removed with the fence, not counted
    assert ran.json["leavings"] == []


def test_what_other_users_have_is_noted(
    host: list[Finding], bus_name: str, shmbus_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Foreign(uid=12345, buses=("one", "two"), bytes=2 << 20)
    monkeypatch.setattr("shmbus_command.doctor.find_foreign", lambda: [other])
    ran = shmbus_command("doctor", bus_name)
    assert ran.code == 0
    assert "note  user 12345 has 2 MiB here: one, two" in ran.lines
