"""What a process has of the system's resources."""

from __future__ import annotations

import os
from pathlib import Path

import psutil


class Burden:
    """System resources that a process has."""

    def __init__(self, pid: int) -> None:
        self.descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        self.mappings = len(Path(f"/proc/{pid}/maps").read_text().splitlines())
        self.threads = len(os.listdir(f"/proc/{pid}/task"))
        self.memory = psutil.Process(pid).memory_info().rss

    def __repr__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.mappings} mappings, {self.threads} threads, "
            f"{self.memory >> 10} KiB"
        )
