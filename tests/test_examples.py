"""The programs in examples/ print what they promise, and leave nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

SHOWN = {
    "request_reply.py": r"""the sum is 6\.5, from calculator
22 / 7 is 3\.1429
all at once: \[0\.0, 2\.0, 4\.0, 6\.0, 8\.0\]
it raised ZeroDivisionError: float division by zero
no endpoint handles calculator\.root
""",
    "work_queue.py": r"""300 of 300 jobs done, by [23] workers
handed on at the death of worker-1: [1-9]\d* jobs
lost: 0
""",
    "fan_out.py": r"""buffer\.7\.changed would go to indexer, linter, monitor
indexer received 1000 changes
linter received 100 changes
monitor received [1-9]\d* changes
""",
    "gui_loop.py": r"""60 of 60 tiles drawn, 0 lost
routing latency beside the busy loop: \d+ µs
""",
    "supervisor.py": r"""worker-1 died \(killed\), and was started again with another pid
worker-2 died \(killed\), and was started again with another pid
worker-1 died \(killed\), and was started again with another pid
3 deaths, 2 workers at the end
""",
}


def test_every_example_is_run() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize("example", SHOWN)
def test_the_example_prints_what_it_promises(example: str) -> None:
    command = [sys.executable, "-W", "error", str(EXAMPLES / example)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        printed, complaints = process.communicate(timeout=120)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
            process.communicate()
    assert process.returncode == 0, complaints
    assert complaints == ""
    assert re.fullmatch(SHOWN[example], printed), printed
    left = [file for file in os.listdir("/dev/shm") if f"-{process.pid}:" in file]
    assert left == []
