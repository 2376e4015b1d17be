"""The cases of multiprocessing's queues, with `shmbus.Queue` and `shmbus.JoinableQueue` in their
place, under each start method."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import multiprocessing.queues
import unittest
from typing import Any

import shmbus

from .subject import Subject

METHODS = ("fork", "forkserver", "spawn")
PARTS = ("processes", "misc")
OTHERS = ("TestSyncManagerTypes", "TestManagerExceptions", "WithProcessesTestManagerRestart")
"""Their queues are those of a manager: of threads, in its process."""

EXCEPTED = {
    "test_queue_feeder_donot_stop_onexc": "what cannot be pickled is an error of put here, not a "
    "traceback of a thread",
    "test_queue_feeder_on_queue_feeder_error": "there is no thread, so no hook for its errors",
    "test_closed_queue_empty_exceptions": "close() of a queue that was not used closes it, too",
    "test_mixed_startmethod": "ours has no start method, and goes to children of any",
    "TestSimpleQueue.test_closed": "it looks at the ends of a pipe",
}


class Queue(shmbus.Queue[Any]):
    """Made as the contexts of multiprocessing make theirs."""

    def __init__(self, maxsize: int = 0, *, ctx: object = None) -> None:
        super().__init__(maxsize)


class JoinableQueue(shmbus.JoinableQueue[Any]):
    """The same."""

    def __init__(self, maxsize: int = 0, *, ctx: object = None) -> None:
        super().__init__(maxsize)


def _wanted(case: unittest.TestCase) -> bool:
    """Those that make a queue, by their text or name."""
    if type(case).__name__ in OTHERS:
        return False
    method = case.id().rpartition(".")[2]
    return "queue" in method or "Queue(" in inspect.getsource(getattr(case, method))


def _exchange() -> None:
    support = importlib.import_module("test.support")
    vars(support)["use_resources"] = []  # by default: without those that take long
    for made in (Queue, JoinableQueue):
        vars(multiprocessing.queues)[made.__name__] = made  # where contexts take them from
    vars(multiprocessing)["SimpleQueue"] = Queue  # but not contexts: pools write to its pipe


def _prepare(case: unittest.TestCase) -> None:
    pass


SUBJECT = Subject(
    modules=tuple(
        f"test.test_multiprocessing_{method}.test_{part}" for method in METHODS for part in PARTS
    ),
    wanted=_wanted,
    exchange=_exchange,
    prepare=_prepare,
    excepted=EXCEPTED,
)
