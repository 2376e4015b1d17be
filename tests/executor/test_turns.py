"""Who gets the next task: whoever is free."""

from __future__ import annotations

import os
from pathlib import Path

import shmbus
from shmbus.testing import eventually


def test_no_task_waits_behind_one_that_takes_long_while_another_worker_is_free(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with shmbus.Executor(2) as executor:
        takes_long = executor.submit(Path.read_bytes, tmp_path / "fifo")
        eventually(takes_long.running)
        others = [executor.submit(abs, -number) for number in range(50)]
        assert [task.result(60) for task in others] == list(range(50))
        (tmp_path / "fifo").write_bytes(b"enough")
        assert takes_long.result(60) == b"enough"
