"""However a program with an executor ends, it ends, and so do its workers, and nothing is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import shmbus
from shmbus.shared import processes
from shmbus.testing import eventually, in_shm, run_python, start_python
from shmbus.testing.leavings import of_this_process

pytestmark = pytest.mark.slow  # programs of their own

ROOT = Path(__file__).resolve().parents[2]

HEAD = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
import shmbus
from tests.executor import tasks
"""


def program(body: str) -> str:
    """The code of a program that begins with the usual imports."""
    return HEAD + body


def test_a_forgotten_shutdown_lets_the_tasks_be_done(tmp_path: Path) -> None:
    body = """
executor = shmbus.Executor(2)
for _ in range(50):
    executor.submit(tasks.append, tasks.Path(sys.argv[1]), "x")
"""
    run_python(program(body), tmp_path / "written")
    assert (tmp_path / "written").read_text() == "x" * 50


def test_an_exit_of_the_main_program_lets_the_tasks_be_done(tmp_path: Path) -> None:
    body = """
executor = shmbus.Executor(1)
for _ in range(5):
    executor.submit(tasks.append, tasks.Path(sys.argv[1]), "x")
sys.exit(0)
"""
    run_python(program(body), tmp_path / "written")
    assert (tmp_path / "written").read_text() == "x" * 5


def test_an_exception_in_the_main_program_shows_and_does_not_hang() -> None:
    body = """
executor = shmbus.Executor(1)
executor.submit(abs, -1)
raise LookupError("in main")
"""
    with start_python(program("sys.stderr = sys.stdout\n" + body)) as main:
        assert main.wait() == 1
        assert "LookupError: in main" in main.printed


def test_an_executor_that_is_dropped_does_what_was_submitted() -> None:
    executor = shmbus.Executor(1)
    waiting = [executor.submit(abs, -number) for number in range(50)]
    pool = executor.name
    del executor
    assert [task.result() for task in waiting] == list(range(50))
    eventually(lambda: not any(pool in file for file in of_this_process()), "nothing of it is left")


def test_a_program_whose_tasks_leave_at_once_ends() -> None:
    body = """
with shmbus.Executor(2) as executor:
    dead = [executor.submit(os._exit, 0) for _ in range(2)]
    print(sorted(type(task.exception()).__name__ for task in dead))
executor = shmbus.Executor(1)
executor.submit(os._exit, 0)  # and nobody asks
"""
    assert run_python(program(body)).strip() == "['WorkerDied', 'WorkerDied']"


def test_ctrl_c_ends_a_wait_for_a_result_and_the_executor_can_go_on() -> None:
    body = """
with shmbus.Executor(1) as executor:
    try:
        task = executor.submit(tasks.interrupt, os.getpid())
        task.result()
    except KeyboardInterrupt:
        print("interrupted", task.cancel(), executor.submit(abs, -1).result())
"""
    assert run_python(program(body)).strip() == "interrupted True 1"


@pytest.mark.parametrize("doing", ["stay", "compute"])
def test_no_worker_outlives_a_program_that_is_killed(doing: str) -> None:
    body = """
executor = shmbus.Executor(2)
print(executor.name)
for _ in range(2):
    executor.submit_with(getattr(tasks, sys.argv[1]), progress=print)
time.sleep(600)
"""
    with start_python(program(body), doing) as main:
        name = main.line()
        pids = [int(main.line()) for _ in range(2)]
        assert all(runs(pid) for pid in pids)
        main.kill()
        eventually(lambda: not any(map(runs, pids)), "its workers have ended")
    remove(name)


@pytest.mark.parametrize("method", ["forkserver", "spawn", "fork"])
def test_no_worker_outlives_it_that_is_stopped_then(method: str) -> None:
    body = """
executor = shmbus.Executor(1, mp_context=sys.argv[1])
print(executor.name)
executor.submit_with(tasks.stay, progress=print)
time.sleep(600)
"""
    with start_python(program(body), method) as main:
        name = main.line()
        pid = int(main.line())
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: processes.stopped(pid), f"worker {pid} is stopped")
        main.kill()
        eventually(lambda: not runs(pid), f"worker {pid} has ended")
    remove(name)


def remove(pool: str) -> None:
    """What a killed program has left, as the next executor does."""
    with shmbus.Executor(1):
        eventually(lambda: not in_shm(f"pool-{pool}"), "nothing is left")


def runs(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_told_to_end_by_sigterm_leaves_no_worker() -> None:
    body = """
executor = shmbus.Executor(1)
print(executor.name)
executor.submit_with(tasks.stay, progress=print)
time.sleep(600)
"""
    with start_python(program(body)) as main:
        name = main.line()
        pid = int(main.line())
        assert main.stop() == -signal.SIGTERM
        eventually(lambda: not runs(pid), f"worker {pid} has ended")
    remove(name)


def test_nothing_is_left_in_dev_shm_and_no_process_either() -> None:
    body = """
with shmbus.Executor(2) as executor:
    pids = {executor.submit(os.getpid).result() for _ in range(10)}
    assert len(list(executor.map(abs, range(100)))) == 100
    print([name for name in os.listdir("/dev/shm") if str(os.getpid()) in name] != [])
print([name for name in os.listdir("/dev/shm") if str(os.getpid()) in name])
print([pid for pid in pids if os.path.exists(f"/proc/{pid}")])
"""
    assert run_python(program(body)).split("\n") == ["True", "[]", "[]", ""]
