"""The hand-written stub declares what the compiled kernel has."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
def test_the_kernels_stub_is_true(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    # Classes have `__buffer__` from Python 3.12 on.
    allowed.write_text("(ringbuf\\._kernel\\.Mapping\\.__buffer__)?\n")
    options = ["--mypy-config-file", "pyproject.toml", "--allowlist", str(allowed)]
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "ringbuf._kernel", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
