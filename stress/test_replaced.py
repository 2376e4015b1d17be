"""Workers of an executor are replaced a thousand times: no resource grows, and no task is lost."""

from __future__ import annotations

import os
import signal

import pytest
from burden import Burden

import shmbus
from shmbus.testing import in_shm

MIB = 1 << 20


def kill(executor: shmbus.Executor) -> None:
    """Has a worker killed in the midst of a task."""
    error = executor.submit(signal.raise_signal, signal.SIGKILL).exception(60)
    assert isinstance(error, shmbus.errors.WorkerDied)
    assert error.signal == "SIGKILL"


def wear_out(executor: shmbus.Executor) -> None:
    """Has a worker do its last task."""
    assert executor.submit(abs, -1).result(60) == 1


@pytest.mark.parametrize(("replace", "tasks"), [(kill, None), (wear_out, 1)])
def test_a_thousand_workers_come_and_go_and_leave_nothing(
    long: bool, replace: object, tasks: int | None
) -> None:
    assert callable(replace)
    with shmbus.Executor(2, max_tasks_per_child=tasks) as executor:
        bus = f"pool-{executor.name}"
        for _ in range(20):
            replace(executor)
        before, files = Burden(os.getpid()), len(in_shm(bus))
        for _ in range(1000 if long else 30):
            replace(executor)
        after = Burden(os.getpid())
        print(f"{before}; then {after}")
        assert after.descriptors <= before.descriptors + 4
        assert after.mappings <= before.mappings + 16
        assert after.threads <= before.threads
        assert after.memory <= before.memory + 4 * MIB
        assert len(in_shm(bus)) <= files + 16  # of those that are just coming and going
