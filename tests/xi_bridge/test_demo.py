"""The demonstration prints what it promises, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "xi_bridge" / "demo.py"
PRINTED = """poem.txt is open, and ann and bob type
the core was killed: another one has the view again
the extension was killed, and started again
the host was killed, and the bus with it: the next one goes on
ann, bob and the file have the same 8 lines
the extension counts 45 words
"""


@pytest.mark.slow
def test_the_demonstration_prints_what_it_promises() -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(DEMO)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        printed, complaints = process.communicate(timeout=120)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (process.returncode, printed, complaints) == (0, PRINTED, "")
    assert not [file for file in os.listdir("/dev/shm") if f"xi-{process.pid}" in file]
