"""The user of a pool of worker processes; each function is a role (stage.py)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmark.measure.calls import call_rate
from benchmark.pools import SUBMIT, WORKERS, Opened, Way
from benchmark.roles import tasks
from benchmark.stage import Stage
from shmbus.errors import WorkerDied

BURST = 1000
"""Small tasks that are given before the first result is asked for."""
ARRAYS = 32
"""The same, of 1 MiB each."""
CHUNKS = {1: BURST, 100: 10 * BURST}
"""Their sizes, and how many small tasks are given at a time in such."""
ARRAY_TO, ARRAY_FROM = "array to a task", "array from a task"
PATIENCE = 60.0

Executors = Callable[[], AbstractContextManager[Executor]]


def chunks_of(name: str, chunk: int) -> str:
    return f"{name}, chunks of {chunk}"


def wait_for_workers(way: Way) -> None:
    """Until every worker has done something: their start is not measured."""
    deadline, seen = time.monotonic() + PATIENCE, set[int]()
    while len(seen) < WORKERS:
        assert time.monotonic() < deadline, f"{len(seen)} workers have begun"
        seen.update(way(tasks.process, range(2 * WORKERS), 1))


def small_tasks(way: Way, chunk: int) -> Callable[[int], None]:
    def take(calls: int) -> None:
        if sum(way(tasks.increment, range(calls), chunk)) != calls * (calls + 1) // 2:
            raise ValueError("the results are not those of the tasks")

    return take


def arrays_to(way: Way) -> Callable[[int], None]:
    arrays = [np.full(tasks.MIB // 8, number, np.uint64) for number in range(ARRAYS)]

    def take(calls: int) -> None:
        if list(way(tasks.first_of, arrays, 1)) != list(range(calls)):
            raise ValueError("arrays came mixed up")

    return take


def arrays_from(way: Way) -> Callable[[int], None]:
    def take(calls: int) -> None:
        if [array.item(0) for array in way(tasks.array_of, range(calls), 1)] != list(range(calls)):
            raise ValueError("arrays came mixed up")

    return take


def user(stage: Stage, opened: Opened, seconds: float) -> dict[str, float]:
    """Tasks per second, of each way that the pool has."""
    with opened() as pool:
        first = next(iter(pool.values()))
        wait_for_workers(first)
        stage.ready()
        rates = {}
        for name, way in pool.items():
            if name == SUBMIT:
                rates[name] = call_rate(small_tasks(way, 1), seconds, BURST)
            else:
                for chunk, burst in CHUNKS.items():
                    take = small_tasks(way, chunk)
                    rates[chunks_of(name, chunk)] = call_rate(take, seconds, burst)
        rates[ARRAY_TO] = call_rate(arrays_to(first), seconds, ARRAYS)
        rates[ARRAY_FROM] = call_rate(arrays_from(first), seconds, ARRAYS)
        return rates


def known_after(
    stage: Stage,
    executors: Executors,
    directory: str,
    kills: int,
) -> list[float]:
    """Milliseconds from the SIGKILL of a worker until its task has failed; each in a new pool."""
    took = []
    stage.ready()
    for number in range(kills):
        with executors() as executor:
            path = Path(directory, str(number))
            task = executor.submit(tasks.lie_down, str(path))
            while not path.exists():
                time.sleep(0.001)
            pid = int(path.read_text())
            before = perf_counter()
            os.kill(pid, signal.SIGKILL)
            error = task.exception(PATIENCE)
            took.append(1e3 * (perf_counter() - before))
            assert isinstance(error, BrokenExecutor | WorkerDied), error
    return took


def _memory(what: str) -> float:
    """MiB; VmRSS or VmHWM of proc_pid_status(5)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise AssertionError


def mapper(
    stage: Stage, opened: Opened, name: str, chunk: int, items: int, pause: float
) -> dict[str, float]:
    """Items per second of a map whose results are taken one by one, `pause` seconds between two;
    by how many MiB its peak was above what this process had before, and how many items at most it
    had taken from its source beyond those whose results had been used."""
    drawn = 0

    def source(number: int) -> Iterator[int]:
        nonlocal drawn
        for item in range(number):
            drawn = item
            yield item

    with opened() as pool:
        way = pool[name]
        wait_for_workers(way)
        list(way(tasks.increment, source(max(items // 100, 1)), chunk))
        stage.ready()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        memory, ahead, start = _memory("VmRSS"), 0, perf_counter()
        for number, result in enumerate(way(tasks.increment, source(items), chunk)):
            if result != number + 1:
                raise ValueError("results came out of order")
            ahead = max(ahead, drawn - number)
            if pause:
                time.sleep(pause)
        took = perf_counter() - start
        if number + 1 != items:
            raise ValueError(f"{number + 1} results of {items} items")
        return {"rate": items / took, "growth": _memory("VmHWM") - memory, "ahead": float(ahead)}
