"""What ``shmbus up --check`` shows: what would be started, after what, and when again; and what
could not be."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
from pathlib import Path

from shmbus_console.text import columns

from shmbus import BusError, Process, observe
from shmbus.errors import InvalidName

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


def problems(file: File) -> list[str]:
    """What does not work on this machine as it is now; a line for each."""
    found = []
    try:
        observe(file.bus).close()
    except InvalidName as problem:
        found.append(f"[bus] {problem}")
    except BusError:  # it need not run
        pass
    told = ((process.name, _problem(process)) for process in file.processes)
    return found + [f"[process.{name}] {problem}" for name, problem in told if problem]


def _problem(process: Process) -> str:
    directory = Path(process.directory or "")
    if not directory.is_dir():
        return f"directory: there is no directory {directory}: make it"
    if process.target:
        package = process.target.partition(":")[0].partition(".")[0]
        there = package != "" and importlib.util.find_spec(package) is not None
        return "" if there else f"target: no module {package!r} is found: install it"
    program = process.command[0]
    if os.path.dirname(program):
        there = shutil.which(directory / program) is not None
    else:
        path = process.environment.get("PATH", os.environ.get("PATH"))
        there = shutil.which(program, path=path) is not None
    return "" if there else f"command: no program {program!r} is found: install it, or correct that"
