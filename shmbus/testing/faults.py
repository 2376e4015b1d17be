"""Faults: a process of the test is killed, or stands still."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from .waiting import eventually


def kill(pid: int) -> None:
    """Kill a process that this one started with SIGKILL, and return when it is dead."""
    process = _descendant(pid)
    process.kill()
    eventually(lambda: _state(pid) in "ZX", f"process {pid} is dead")


def pause(pid: int) -> None:
    """Stop a process that this one started (SIGSTOP), and return when it stands still."""
    _descendant(pid).suspend()
    eventually(lambda: _state(pid) in "Tt", f"process {pid} is stopped")


def resume(pid: int) -> None:
    """Let a paused process go on."""
    _descendant(pid).resume()
    eventually(lambda: _state(pid) not in "Tt", f"process {pid} runs")


def _descendant(pid: int) -> psutil.Process:
    """So that a wrong number in a test hits nobody else."""
    process = psutil.Process(pid)
    if os.getpid() not in (parent.pid for parent in process.parents()):
        raise ValueError(f"process {pid} ({process.name()}) was not started by this test")
    return process


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
