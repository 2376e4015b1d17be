"""Death at every instruction and at every fail point: what a process leaves behind must do."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import Program

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCES = ["main.c", "killed.c"]
SCENARIOS = re.findall(r"^PROMISE\((\w+)\)", (HERE / "killed.c").read_text(), re.M)
FAIL_POINTS = sorted(
    {
        point
        for folder in ("ringbuf", "shmbus")
        for header in (ROOT / folder / "native").glob("*.h")
        for call in re.findall(r"RB_FAIL\((.*)\);", header.read_text())
        for point in re.findall(r'"([a-z.]+)"', call)
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_instruction(program: Program, scenario: str) -> None:
    swept = program("swept", SOURCES, ["-O1"])
    done = subprocess.run([swept, f"swept_{scenario}"], capture_output=True, text=True, timeout=240)
    if "PTRACE" in done.stderr:
        pytest.skip("this machine lets nobody be traced")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_killed_at_every_fail_point(program: Program) -> None:
    struck = program("struck", SOURCES, ["-O1", "-DSB_FAILPOINTS"])
    done = subprocess.run(
        struck,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "FAIL_POINTS": " ".join(FAIL_POINTS)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == set(FAIL_POINTS)  # each killed somebody
