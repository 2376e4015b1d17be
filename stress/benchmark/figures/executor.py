"""Pools of two worker processes: small tasks, one by one and in chunks, arrays of 1 MiB, a worker
that is killed, and a map over a million items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median

from benchmark.claims import Bench, Figure, Sample
from benchmark.pools import WORKERS, Opened, futures, multiprocessing
from benchmark.roles import pools
from benchmark.stage import Role, perform

FUTURES, POOL = "ProcessPoolExecutor", "multiprocessing.Pool"
OPTIONAL = {"loky": "loky", "joblib": "joblib"}
"""By its name, the package; the file in pools/ is named alike."""

MILLION = 1_000_000
CHUNK = 100
PAUSE = 1e-3
"""Seconds that a slow consumer takes over each result."""


def optional() -> dict[str, Opened]:
    return {
        name: import_module(f"benchmark.pools.{name}").opened
        for name, package in OPTIONAL.items()
        if find_spec(package)
    }


def absent() -> Mapping[str, str]:
    return {
        name: f"pip install {package} (or '.[peers]')"
        for name, package in OPTIONAL.items()
        if not find_spec(package)
    }


def used(bench: Bench, opened: Opened) -> Sample:
    args = (opened, bench.scale.seconds / 2)
    (sample,) = perform([Role(pools.user, args, parent=True)])
    rates: Sample = sample
    return rates


def killed(bench: Bench, executors: Callable[[], AbstractContextManager[Executor]]) -> Sample:
    args = (executors, bench.subdirectory(), int(10 * bench.scale.seconds))
    (took,) = perform([Role(pools.known_after, args, parent=True)])
    return {"p50": median(took), "most": max(took)}


def mapped(
    bench: Bench, opened: Opened, way: str, chunk: int = CHUNK, pause: float = 0.0
) -> Sample:
    items = int(bench.scale.seconds / PAUSE) if pause else bench.flood(MILLION).messages
    args = (opened, way, chunk, items, pause)
    (sample,) = perform([Role(pools.mapper, args, parent=True)])
    memory: Sample = sample
    return memory


def _executor(bench: Bench) -> Figure:
    pools_opened: dict[str, Opened] = {
        FUTURES: futures.opened,
        POOL: multiprocessing.opened,
        **optional(),
    }
    return Figure(
        "executor",
        {name: partial(used, bench, opened) for name, opened in pools_opened.items()},
        [],
        absent=absent(),
    )


def _death(bench: Bench) -> Figure:
    executors = {FUTURES: partial(ProcessPoolExecutor, WORKERS)}
    return Figure(
        "executor_death",
        {name: partial(killed, bench, executor) for name, executor in executors.items()},
        [],
    )


def _map(bench: Bench) -> Figure:
    return Figure(
        "executor_map",
        {
            FUTURES: partial(mapped, bench, futures.opened, "map"),
            f"{POOL}.imap": partial(mapped, bench, multiprocessing.opened, "imap"),
        },
        [],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_executor(bench), _death(bench), _map(bench)]
