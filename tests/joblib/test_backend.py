"""joblib.Parallel with the backend "shmbus". What joblib's own tests say of a backend is run from
them: `stress/joblib_cases.py`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest

import shmbus.errors
import shmbus.joblib
from shmbus.testing import eventually
from shmbus.testing.leavings import of_this_process

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def _two_workers() -> Iterator[None]:
    before = of_this_process()
    with joblib.parallel_config(backend="shmbus", n_jobs=2):
        yield
    shmbus.joblib.shutdown()
    eventually(lambda: of_this_process() <= before, "nothing is left in /dev/shm")


@pytest.fixture(autouse=True)
def _shmbus_leak_check() -> None:
    """Not after each test: workers stay for the next one."""


def parallel(function: Any, items: Any, **options: Any) -> Any:
    """What `function` returns for each of the items."""
    return joblib.Parallel(**options)(joblib.delayed(function)(item) for item in items)


@pytest.mark.smoke
def test_lambdas_closures_and_errors_of_local_classes_cross() -> None:
    class Odd(Exception):
        pass

    def check(number: int) -> int:
        if number % 2:
            raise Odd(number)
        return number

    assert parallel(lambda number: number + 1, range(5)) == [1, 2, 3, 4, 5]
    assert parallel(check, (2, 4)) == [2, 4]
    with pytest.raises(Odd) as raised:
        parallel(check, (2, 3))
    assert "in check" in str(raised.value.__cause__)


def test_a_large_array_is_copied_once_for_all_tasks_of_a_call_and_read_only() -> None:
    large, small = np.ones(200_000), np.ones(20_000)
    looks = parallel(lambda array: (array.filename, array.flags.writeable), [large] * 5)
    assert len(set(looks)) == 1
    assert not looks[0][1]
    assert parallel(lambda array: array.flags.writeable, [small] * 2) == [True, True]

    large += 1  # the next call has it as it is now
    assert parallel(np.max, [large] * 2) == [2.0, 2.0]


def test_large_arrays_are_of_ones_own_where_that_is_asked_for() -> None:
    def change(array: Any) -> float:
        array += 1
        return float(array.max())

    large = np.ones((500, 500), order="F")
    assert parallel(change, [large] * 3, mmap_mode="c") == [2.0] * 3
    assert parallel(change, [large] * 3, max_nbytes=None) == [2.0] * 3
    assert large.max() == 1.0


def test_results_may_be_written_to() -> None:
    (result,) = parallel(lambda number: np.full(200_000, number), [3])
    result += 1
    assert result.max() == 4


def test_a_file_of_the_users_that_is_mapped_is_written_to_in_place(tmp_path: Path) -> None:
    output = np.memmap(tmp_path / "output", dtype=np.int64, mode="w+", shape=10)

    def write(number: int) -> None:
        output[number] = number

    parallel(write, range(10))
    assert output.tolist() == list(range(10))


def test_workers_stay_for_the_next_call() -> None:
    pids = {pid for _ in range(3) for pid in parallel(lambda _: os.getpid(), range(4))}
    assert len(pids) <= 2


def test_the_batch_of_a_worker_that_dies_fails_or_is_begun_again(tmp_path: Path) -> None:
    def crash_once(number: int) -> int:
        if number == 3 and not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(shmbus.errors.WorkerDied, match="SIGKILL"):
        parallel(crash_once, range(5))
    (tmp_path / "crashed").unlink()
    with joblib.parallel_config(backend="shmbus", n_jobs=2, retries=1):
        assert parallel(crash_once, range(5)) == list(range(5))


@pytest.mark.slow
def test_joblibs_own_tests_pass() -> None:
    command = [sys.executable, "stress/joblib_cases.py", "--quick"]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
