"""ProcessPoolExecutor's cases, with `shmbus.Executor` in its place."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import importlib
import unittest

from .subject import Subject

PACKAGE = "test.test_concurrent_futures"
MODULES = ("process_pool", "wait", "as_completed", "init", "shutdown", "deadlock")

EXCEPTED: dict[str, str] = {}


def _wanted(case: unittest.TestCase) -> bool:
    """Those of processes; threads have an executor of their own."""
    return "ThreadPool" not in type(case).__name__


def _exchange() -> None:
    shmbus = importlib.import_module("shmbus")
    for module in (concurrent.futures, concurrent.futures.process):
        vars(module)["ProcessPoolExecutor"] = shmbus.Executor


def _prepare(case: unittest.TestCase) -> None:
    pass


SUBJECT = Subject(
    modules=tuple(f"{PACKAGE}.test_{name}" for name in MODULES),
    wanted=_wanted,
    exchange=_exchange,
    prepare=_prepare,
    excepted=EXCEPTED,
)
