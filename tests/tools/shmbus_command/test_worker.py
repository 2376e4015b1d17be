"""worker: tasks of an executor, done by a process that it has not started."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import shmbus
from shmbus.testing import eventually

from .conftest import Ran, Start

Command = Callable[..., Ran]


def test_worker_does_tasks_of_the_pool_and_ends_after_so_many(
    bus: shmbus.Bus, shmbus_command: Command
) -> None:
    found: list[int] = []

    def ask() -> None:
        with shmbus.Executor(0, bus=bus, name="frames") as executor:
            found.extend(task.result(60) for task in [executor.submit(abs, -n) for n in range(3)])

    asking = threading.Thread(target=ask)
    asking.start()
    ran = shmbus_command(
        "worker", bus.name, "frames", "--max-tasks", 3, "--initializer", "gc:collect"
    )
    asking.join()
    assert (ran.code, ran.out, found) == (0, "", [0, 1, 2])
    working = f"working for pool frames on {bus.name}, process {os.getpid()}"
    assert ran.err == f"shmbus worker: {working}\n"


@pytest.mark.parametrize("wrong", ["nothing:there", "gc:nothing", "gc", "", "sys:path"])
def test_worker_says_what_is_wrong_with_an_initializer(
    bus: shmbus.Bus, shmbus_command: Command, wrong: str
) -> None:
    ran = shmbus_command("worker", bus.name, "frames", "--initializer", wrong)
    assert ran.code == 2
    assert "--initializer" in ran.err


def test_worker_needs_a_bus_that_runs(shmbus_command: Command, bus_name: str) -> None:
    assert shmbus_command("worker", bus_name, "frames").code == 3


@pytest.mark.slow
def test_worker_finds_modules_here_and_sigterm_lets_it_finish_its_task(
    bus: shmbus.Bus, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_tasks.py").write_text(
        "import os, time\n"
        "def stay(begun, end):\n"
        "    open(begun, 'w').close()\n"
        "    while not os.path.exists(end):\n"
        "        time.sleep(0.01)\n"
        "    return os.getpid()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    from my_tasks import stay  # type: ignore[import-not-found]

    with shmbus.Executor(0, bus=bus, name="frames") as executor:
        task = executor.submit(stay, "begun", "end")
        with start("worker", bus.name, "frames") as process:
            eventually(Path("begun").exists)
            process.send_signal(signal.SIGTERM)
            Path("end").touch()
            assert task.result(60) == process.pid
            assert process.wait(60) == 0


@pytest.mark.slow
def test_ctrl_c_ends_a_worker_and_its_task_can_be_done_by_another(
    bus: shmbus.Bus, start: Start, tmp_path: Path
) -> None:
    with shmbus.Executor(0, bus=bus, name="frames", retries=1) as executor:
        task = executor.submit(os.mkfifo, tmp_path / "fifo")
        waits = executor.submit(Path.read_bytes, tmp_path / "fifo")
        with start("worker", bus.name, "frames") as process:
            assert task.result(60) is None
            eventually(waits.running)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        with start("worker", bus.name, "frames") as process:
            eventually(waits.running)
            (tmp_path / "fifo").write_bytes(b"done")
            assert waits.result(60) == b"done"
            process.terminate()
