"""Tasks of the pools of the stress suite. What one has begun and done it writes into a ledger."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ledger import Ledger

BEGUN, DONE = 0, 1
MOST = 1 << 17

_ledger: Ledger | None = None


def ledger_of(directory: Path, pid: int) -> Path:
    return directory / f"tasks-{pid}"


def square(directory: Path, number: int, seconds: float) -> int:
    """The square of the number, after so long."""
    global _ledger
    if _ledger is None:
        _ledger = Ledger(ledger_of(directory, os.getpid()), 2, MOST)
    _ledger.write(number, BEGUN)
    time.sleep(seconds)
    _ledger.write(number, DONE)
    return number * number
