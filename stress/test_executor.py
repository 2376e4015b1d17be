"""Executors whose workers are killed at random, under ten thousand tasks."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import wait
from functools import partial
from pathlib import Path

import jobs
import ledger
import pytest

import shmbus
from shmbus.errors import WorkerDied
from shmbus.executor.task import Task
from shmbus.testing import TIMEOUT

TASKS = 10_000
WORKERS = 2


class Killer:
    """Kills workers of a pool that have begun tasks, at any moment."""

    def __init__(self, directory: Path, chance: random.Random, pause: float) -> None:
        self.killed: set[int] = set()
        self._directory = directory
        self._chance = chance
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def workers(self) -> list[int]:
        """Those that have written a ledger and were not killed."""
        written = {int(path.name.split("-")[1]) for path in self._directory.glob("tasks-*")}
        return sorted(written - self.killed)

    def _run(self) -> None:
        while not self._over.wait(self._chance.expovariate(1 / self._pause)):
            if workers := self.workers():
                pid = self._chance.choice(workers)
                os.kill(pid, signal.SIGKILL)  # none ends otherwise, and none has the pid again
                self.killed.add(pid)


def accounts(directory: Path) -> dict[int, list[tuple[int, int]]]:
    """What each worker has begun and done."""
    return {
        int(path.name.split("-")[1]): [(int(a), int(b)) for a, b in ledger.read(path)[:, :2]]
        for path in directory.glob("tasks-*")
    }


@pytest.mark.parametrize("retries", [0, 50])
def test_each_task_of_a_pool_has_its_result_or_a_true_error_however_many_workers_are_killed(
    tmp_path: Path, chance: random.Random, long: bool, retries: int
) -> None:
    ended = Counter[int]()
    tasks = list[Task[int]]()

    def count(number: int, _: object) -> None:
        ended[number] += 1

    pauses = [chance.random() * (5e-3 if long else 1e-3) for _ in range(TASKS)]
    with shmbus.Executor(WORKERS, retries=retries) as executor:
        with Killer(tmp_path, chance, 0.1) as killer:
            for number, pause in enumerate(pauses):
                task = executor.submit(jobs.square, tmp_path, number, pause)
                task.add_done_callback(partial(count, number))
                tasks.append(task)
            wait(tasks, 3600 if long else 10 * TIMEOUT)
        assert all(task.done() for task in tasks)
    assert ended == Counter(range(TASKS))
    assert len(killer.killed) >= 10

    failed = Counter[int]()
    begun = Counter[int]()
    book = accounts(tmp_path)
    for rows in book.values():
        begun.update(number for number, what in rows if what == jobs.BEGUN)
    for number, task in enumerate(tasks):
        error = task.exception()
        if error is None:
            assert task.result() == number * number
            assert begun[number] >= 1
        else:
            assert isinstance(error, WorkerDied), error
            assert error.signal == "SIGKILL"
            assert error.begun
            assert error.pid in killer.killed
            assert "square" in error.task
            failed[error.pid] += 1
            # What was begun, and by whom, in the last moment before it was killed.
            last = [n for n, what in book.get(error.pid, []) if what == jobs.BEGUN][-1:]
            assert begun[number] == 0 or last == [number]
    if retries:
        assert not failed
    else:
        assert all(count == 1 for count in failed.values())  # each had but one in hand
        assert all(count == 1 for count in begun.values())  # and none was begun again
    print(f"{len(killer.killed)} killed, {sum(failed.values())} tasks failed")
