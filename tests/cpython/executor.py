"""ProcessPoolExecutor's cases, with `shmbus.Executor` in its place."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import importlib
import sys
import threading
import unittest
from pickle import UnpicklingError
from typing import Any

import psutil

import shmbus
from shmbus import errors
from shmbus.executor.wire import RemoteTraceback

from .subject import Subject

PACKAGE = "test.test_concurrent_futures"
MODULES = ("process_pool", "wait", "as_completed", "init", "shutdown", "deadlock")

ITS_OWN = "it counts processes for tasks that cannot be pickled, for which we start none"
EXCEPTED = {
    "test_killed_child": "only the killed worker's task fails, and the executor goes on",
    "test_saturation": ITS_OWN,
    "test_processes_terminate": ITS_OWN,
    "test_max_workers_negative": "0 workers means those that are started elsewhere",
    "test_max_tasks_per_child_defaults_to_spawn_context": "that is never needed: each start method "
    "can replace workers",
    "ProcessPoolForkProcessPoolExecutorTest.test_max_tasks_per_child": "likewise",
    "ProcessPoolForkFailingInitializerTest.test_initializer": "the error that every task gets has "
    "the traceback, which the original has in a log of the worker only",
    "ProcessPoolSpawnFailingInitializerTest.test_initializer": "likewise",
    "ProcessPoolForkserverFailingInitializerTest.test_initializer": "likewise",
    "FailingInitializerResourcesTest.test_spawn": "it runs that case, too",
    "FailingInitializerResourcesTest.test_forkserver": "it runs that case, too",
    "test_cancel_futures": "it relies on some being sent to processes that are not there yet; we "
    "cancel those",
    "test_python_finalization_error": "it counts the threads of the original",
}

TOLD: dict[str, type[BaseException]] = {
    "test_error_at_task_unpickle": UnpicklingError,
    "test_exit_at_task_unpickle": SystemExit,
    "test_error_during_result_unpickle_in_result_handler": UnpicklingError,
    "test_exit_during_result_unpickle_in_result_handler": SystemExit,
}
"""What a task ends with where the original is broken; in all other cases that is WorkerDied."""


class Executor(shmbus.Executor):
    """With the names by which the cases look into the original."""

    @property
    def _processes(self) -> dict[int, Process]:
        return {pid: Process(pid) for pid in self._workers.pids}

    @property
    def _executor_manager_thread(self) -> threading.Thread:
        return self._attending.thread

    @property
    def _call_queue(self) -> Nothing:
        return Nothing()

    @property
    def _max_workers(self) -> int:
        return self._workers._most


class Nothing:
    """In the place of a queue."""

    def join_thread(self) -> None:
        """It has none."""


class Process(psutil.Process):  # type: ignore[misc]
    """A worker, as a process of `multiprocessing`."""

    def join(self) -> None:
        """Wait for its end."""
        self.wait()


def _wanted(case: unittest.TestCase) -> bool:
    """Those of processes; threads have an executor of their own."""
    return "ThreadPool" not in type(case).__name__


def _exchange() -> None:
    for module in (concurrent.futures, concurrent.futures.process):
        vars(module)["ProcessPoolExecutor"] = Executor
    vars(concurrent.futures.process)["_RemoteTraceback"] = RemoteTraceback
    RemoteTraceback.tb = property(str)  # type: ignore[attr-defined]


def _prepare(case: unittest.TestCase) -> None:
    module = vars(sys.modules[type(case).__module__])
    method = case.id().rpartition(".")[2]
    module["BrokenProcessPool"] = TOLD.get(method, errors.WorkerDied)
    if "assert_python_ok" in module:
        module["assert_python_ok"] = _assert_python_ok


def _assert_python_ok(*arguments: str) -> Any:
    """That a program ends well, which has ours instead of the original."""
    theirs = importlib.import_module("test.support.script_helper").assert_python_ok
    names = "from concurrent.futures import Executor", "from shmbus import Executor"
    return theirs(*(each.replace(*names) for each in arguments))


SUBJECT = Subject(
    modules=tuple(f"{PACKAGE}.test_{name}" for name in MODULES),
    wanted=_wanted,
    exchange=_exchange,
    prepare=_prepare,
    excepted=EXCEPTED,
)
