"""What the doctor says of a machine: each of its facts made to look so, within this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import posix_ipc
import pytest

from shmbus.views import Finding, check_host

Machine = Callable[..., dict[str, Finding]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine({path: content})`: what is found where these files have this content; None: there
    is no such file."""
    read, exists = Path.read_text, Path.exists

    def machine(files: dict[str, str | None]) -> dict[str, Finding]:
        def read_text(self: Path, *arguments: Any, **options: Any) -> str:
            if str(self) not in files:
                return read(self, *arguments, **options)
            content = files[str(self)]
            if content is None:
                raise FileNotFoundError(2, "No such file", str(self))
            return content

        def there(self: Path, **options: Any) -> bool:
            if str(self) in files:
                return files[str(self)] is not None
            return exists(self, **options)

        monkeypatch.setattr(Path, "read_text", read_text)
        monkeypatch.setattr(Path, "exists", there)
        found = {finding.subject: finding for finding in check_host()}
        assert all(finding.remedy for finding in found.values() if finding.state == "bad")
        return found

    return machine


GROUP = {"/proc/self/cgroup": "0::/user\n"}


def test_a_limit_of_memory_is_told_because_rings_count(machine: Machine) -> None:
    limit = "/sys/fs/cgroup/user/memory.max"
    assert "256 MiB" in machine({**GROUP, limit: f"{256 << 20}\n"})["memory"].text
    assert "memory" not in machine({**GROUP, limit: "max\n"})


def test_a_limit_of_a_container_whose_group_is_the_root_is_told(machine: Machine) -> None:
    files = {**GROUP, "/sys/fs/cgroup/user/memory.max": None}
    files |= {"/sys/fs/cgroup/memory.max": f"{64 << 20}\n"}
    assert "64 MiB" in machine(files)["memory"].text


def test_a_quota_of_cpu_is_told_because_spinning_uses_it_up(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = "/sys/fs/cgroup/user/cpu.max"
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    found = machine({**GROUP, quota: "50000 100000\n"})["CPUs"]
    assert (found.state, "spin=False" in found.text) == ("note", True)
    found = machine({**GROUP, quota: "max 100000\n"})["CPUs"]
    assert (found.state, found.text) == ("good", "3")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    found = machine({**GROUP, quota: "max 100000\n"})["CPUs"]
    assert (found.state, found.text[:5]) == ("note", "1 CPU")


@pytest.mark.parametrize(("source", "told"), [("hpet", True), ("tsc", False), (None, False)])
def test_a_clock_that_takes_a_system_call_is_told(
    machine: Machine, source: str | None, told: bool
) -> None:
    file = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    found = machine({file: source})
    assert ("clock" in found) == told
    if told:
        assert found["clock"].text.startswith("hpet: ")
        assert found["clock"].remedy.endswith(file)


def test_a_proc_that_does_not_show_this_process_is_told(machine: Machine) -> None:
    found = machine({f"/proc/{os.getpid()}/stat": None})["pid namespace"]
    assert found.state == "bad"
    assert found.remedy == "mount -t proc proc /proc"


def test_a_missing_dev_shm_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def statvfs(path: object) -> Any:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(os, "statvfs", statvfs)
    found = machine({})["/dev/shm"]
    assert (found.state, "No such file" in found.text) == ("bad", True)
    assert "mount -t tmpfs" in found.remedy


def test_a_dev_shm_without_a_limit_is_good(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlimited = SimpleNamespace(f_frsize=4096, f_blocks=0, f_bavail=0)
    monkeypatch.setattr(os, "statvfs", lambda _: unlimited)
    found = machine({"/proc/self/mounts": "tmpfs /dev/shm tmpfs rw 0 0\n"})["/dev/shm"]
    assert (found.state, found.text) == ("good", "of no limited size")


def test_a_file_system_that_cannot_be_told_is_not_taken_for_memory(machine: Machine) -> None:
    found = machine({"/proc/self/mounts": None})["/dev/shm"]
    assert (found.state, found.text) == ("bad", "is unknown, not in memory")


def test_that_no_semaphore_can_be_made_is_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise posix_ipc.PermissionsError("No permission")

    monkeypatch.setattr(posix_ipc, "Semaphore", refuse)
    found = machine({})["semaphores"]
    assert (found.state, found.text) == ("bad", "none can be made: No permission")
