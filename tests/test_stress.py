"""What the stress suite's own options promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("long", [False, True])
def test_the_soak_prints_no_stacks_of_a_test_that_only_takes_long(
    tmp_path: Path, long: bool
) -> None:
    slow = tmp_path / "test_slow.py"
    slow.write_text("import time\n\n\ndef test_slow():\n    time.sleep(0.5)\n")
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "conftest", str(slow)]
    command += ["-o", "faulthandler_timeout=0.1", "--long"][: 3 if long else 2]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'stress'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ("most recent call first" in ran.stderr) is not long
