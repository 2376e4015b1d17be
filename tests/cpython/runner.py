"""Cases of unittest, each in a process of its own, many side by side.

Most of the time of such cases is waiting, so that there may be several for each processor. The
process of a case is forked from this one, which has one thread and has imported everything.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import sys
import time
import unittest
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import NamedTuple, NoReturn

PASSED, SKIPPED, FAILED = 0, 3, 4  # how the process of a case exits
PR_SET_CHILD_SUBREAPER = 36
MOMENT = 5.0  # seconds that processes of a case may take to end after it


class Outcome(NamedTuple):
    """How a case ended."""

    case: unittest.TestCase
    code: int
    seconds: float
    output: str


class _Running(NamedTuple):
    case: unittest.TestCase
    process: ForkProcess
    output: int  # a file in memory
    began: float

    def outcome(self) -> Outcome:
        self.process.join()
        os.lseek(self.output, 0, os.SEEK_SET)
        with open(self.output, errors="replace") as file:
            text = file.read()
        code = self.process.exitcode
        assert code is not None
        if code < 0:
            text += f"\nended by signal {-code}\n"
        return Outcome(self.case, code, time.monotonic() - self.began, text)


def run_cases(
    cases: Iterable[unittest.TestCase],
    *,
    beside: int,
    limit: float,
    prepare: Callable[[unittest.TestCase], None],
) -> Iterator[Outcome]:
    """Run each in a process, `beside` at a time, with at most `limit` seconds for each."""
    fork = multiprocessing.get_context("fork")
    waiting = deque(cases)
    running: dict[int, _Running] = {}
    gc.freeze()  # what the cases collect is theirs alone, and soon done
    while waiting or running:
        while waiting and len(running) < beside:
            case = waiting.popleft()
            output = os.memfd_create("output")
            process = fork.Process(target=_be, args=(case, output, limit, prepare))
            process.start()
            running[process.sentinel] = _Running(case, process, output, time.monotonic())
        for ended in connection.wait(list(running)):
            assert isinstance(ended, int)
            yield running.pop(ended).outcome()


def _be(
    case: unittest.TestCase,
    output: int,
    limit: float,
    prepare: Callable[[unittest.TestCase], None],
) -> NoReturn:
    """The process of one case."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    faulthandler.enable()
    faulthandler.dump_traceback_later(limit, exit=True)
    # What a process of the case leaves becomes a child of this one, which sees it.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    prepare(case)
    result = unittest.TestResult()
    unittest.TestSuite([case]).run(result)  # with what the module sets up and cleans up
    for _, text in [*result.errors, *result.failures, *result.skipped]:
        print(text)
    left = _left()
    if left:
        print("processes that are left:", *left, sep="\n")
    if left or not result.wasSuccessful():
        sys.exit(FAILED)
    sys.exit(SKIPPED if result.skipped else PASSED)


def _left() -> list[str]:
    """The children that this process still has, after a moment in which they may end."""
    end = time.monotonic() + MOMENT
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return []
        if time.monotonic() > end:
            break
        time.sleep(0.005)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [
        f"{pid}: " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for pid in children
    ]
