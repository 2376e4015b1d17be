"""`shmbus demo`: the main job on real files, one worker killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from .conftest import COMMAND, Start


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def left(pid: int) -> list[str]:
    return [name for name in os.listdir("/dev/shm") if f":demo-{pid}:" in name]


@pytest.mark.slow
def test_the_index_is_right_though_a_worker_was_killed() -> None:
    run = demo(Path(__file__).parents[2], "--json")
    assert run.returncode == 0, run.stderr
    outcome = json.loads(run.stdout)
    assert outcome["differences"] == []
    assert outcome["correct"] == outcome["requests"] > 100
    assert outcome["lost"] == 0
    assert outcome["handed_on"] >= 1
    assert outcome["redelivered"] >= 1
    assert outcome["death_seen"] is not None
    assert outcome["taken_over"] is not None
    assert outcome["messages"] > 2 * outcome["files"]


@pytest.mark.slow
def test_what_was_measured_is_shown_as_a_table() -> None:
    run = demo(Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    for line in ("files", "messages/s", "routing latency, p99", "redelivered", "taken over after"):
        assert line in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_leaves_nothing(number: signal.Signals, start: Start) -> None:
    process = start("demo", "--json")
    while process.poll() is None and not left(process.pid):
        pass  # until its bus is there
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert left(process.pid) == []


def test_a_directory_without_source_files_is_a_bad_command_line(tmp_path: Path) -> None:
    run = demo(tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("shmbus demo: there are no source files below")
    assert run.stderr.count("\n") == 1
