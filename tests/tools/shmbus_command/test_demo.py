"""`shmbus demo`: the main job on real files, one worker killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shmbus_command.demo.play import Outcome

from .conftest import COMMAND, Ran, Start


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


@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_index_is_told_by_line_and_by_the_exit_code(
    shmbus_command: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    as_json: bool,
) -> None:
    outcome = Outcome(
        path=str(tmp_path),
        files=10,
        bytes=1_000_000,
        words=5000,
        workers=3,
        ring_bytes=65536,
        seconds=1.0,
        plain_seconds=0.5,
        messages=20,
        rate=20.0,
        latency_mean=1e-5,
        latency_p50=1e-5,
        latency_p99=1e-4,
        requests=2000,
        correct=1999,
        lost=0,
        redelivered=1,
        killed="worker-2",
        death_seen=None,
        taken_over=0.002,
        handed_on=1,
        differences=("a.py is missing", "1 of 2000 requests was wrong"),
    )

    def play(root: Path, *, workers: int, progress: Callable[[str, int, int], None]) -> Any:
        progress("index", 1, 2)
        return outcome

    monkeypatch.setattr("shmbus_command.demo.command.play", play)
    ran = shmbus_command("demo", tmp_path, *(["--json"] if as_json else []))
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "shmbus: a.py is missing",
        "shmbus: 1 of 2000 requests was wrong",
    ]
    if as_json:
        assert ran.json["differences"] == list(outcome.differences)
    else:
        cells = [[cell.strip() for cell in line.split("│")] for line in ran.lines]
        shown = {cell[1]: cell[2] for cell in cells if len(cell) == 4}
        assert shown["same index"] == "no"
        assert shown["death of worker-2 seen after"] == "-"
        assert shown["requests correct"] == "1,999 of 2,000"
