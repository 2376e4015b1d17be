"""What ``shmbus up --check`` shows: what would be started, after what, and when again."""

from __future__ import annotations

import shlex

from shmbus_console.text import columns

from shmbus import Process

from .file import File

_HEADS = ["NAME", "STARTED", "AGAIN", "WHAT"]


def check(file: File) -> list[str]:
    """Lines about a file: first the processes that wait for nothing."""
    ordered = sorted(file.processes, key=lambda p: (bool(p.on), bool(p.needs)))
    rows = [[p.name, _when(p), p.restart, shlex.join(p.command) or p.target] for p in ordered]
    return [f"bus {file.bus}", *columns(_HEADS, rows, "  ")]


def _when(process: Process) -> str:
    told = "at once"
    if process.start == "first message":
        told = f"by the first message for {' or '.join(process.on)}"
    if process.needs:
        told = ("" if told == "at once" else f"{told}, ") + f"after {' and '.join(process.needs)}"
    return told
