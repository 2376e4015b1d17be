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
        for header in (ROOT / folder).rglob("native/*.h")
        for call in re.findall(r"RB_FAIL\((.*)\);", header.read_text())
        for point in re.findall(r'"([a-z.]+)"', call)
    }
)


def run(command: list[str], **environment: str) -> tuple[int, str, str]:
    """Exit code and what was said; nothing may be left in /dev/shm."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as running:
        out, err = running.communicate(timeout=240)
    left = list(Path("/dev/shm").glob(f"shmbus:{os.geteuid()}:native-{running.pid}:*"))
    for name in left:
        name.unlink()
    assert not left or running.returncode
    return running.returncode, out, err


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_instruction(program: Program, scenario: str) -> None:
    swept = program("swept", SOURCES, ["-O1"])
    code, _, err = run([str(swept), f"swept_{scenario}"])
    if "PTRACE_TRACEME" in err:
        pytest.skip("nobody may be traced here")
    assert (code, err) == (0, "")


@pytest.mark.slow
def test_killed_at_every_fail_point(program: Program) -> None:
    struck = program("struck", SOURCES, ["-O1", "-DSB_FAILPOINTS"])
    code, out, err = run([str(struck)], FAIL_POINTS=" ".join(FAIL_POINTS))
    assert (code, err) == (0, "")
    kept = {f"struck_{scenario}" for scenario in SCENARIOS}
    assert set(out.split()) - kept == set(FAIL_POINTS)  # each killed somebody
