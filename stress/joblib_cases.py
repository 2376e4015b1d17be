"""joblib's own tests of `Parallel`, with the backend of shmbus in the place of loky.

They come from the joblib that is installed here. What names loky, or no backend, gets ours, in the
tests, in their workers and in the programs that they start; `--loky` leaves it, which says whether
they pass here at all. `--quick` takes one of the parameters of each test, and no long ones.

    python stress/joblib_cases.py [--loky] [--quick] [PYTEST OPTION...]
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import types
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import joblib._parallel_backends
import joblib.externals.loky
import joblib.parallel
import pytest

import shmbus.joblib
from shmbus.joblib.kept import kept

DIFFERENT = {
    "test_error_capture[loky]": "an error ends the tasks under way, and the pool stays",
    "test_memmapping_leaks[loky]": "large arrays are in no temporary folder",
    "test_multiple_generator_call_separated_gc": "calls have workers of their own: the end of "
    "one is no error of another",
    "test_nested_parallelism_limit": "looks for the name LokyBackend",
    "test_parallel_with_interactively_defined_bound_method_loky": "looks for the name LokyProcess",
}
"""The tests that must fail here, each with the reason."""

LONG = {
    "test_parallel_with_unpicklable_functions_in_args",
    "test_auto_memmap_on_arrays_from_generator",
    "test_backend_batch_statistics_reset",
    "test_initializer_not_reused",
    "test_initializer_parallel",
    "test_multiple_generator_call_separated",
    "test_nested_parallel_warnings",
    "test_parallel_as_context_manager",
    "test_parallel_with_interactively_defined_bound_method_loky",
    "test_parallel_with_interactively_defined_functions",
    "test_parallel_with_interactively_defined_functions_loky",
    "test_threadpool_limitation_in_child_override",
}
"""Those that `--quick` leaves out."""

_OTHERS = ("threading", "sequential", "multiprocessing", "spawn", "dask", "1-", "[1]")
"""In the parameters of a test that is of another backend, or of one job, which needs none."""


class Exchanged(shmbus.joblib.Backend):
    """Ours, by the name of loky."""

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], None] | None = None
    ) -> Future[Any]:
        return super().submit(functools.partial(_in_worker, func), callback)


def _in_worker(func: Callable[[], Any]) -> Any:
    exchange()
    return func()


def _reusable(**_: Any) -> types.SimpleNamespace:
    """What tests do with loky's executor: compare it, and end it."""
    return types.SimpleNamespace(executor=kept._executor, shutdown=shmbus.joblib.shutdown)


def exchange() -> None:
    """Have joblib use ours where it is asked for loky."""
    joblib.parallel.BACKENDS["loky"] = Exchanged
    joblib.parallel.BACKENDS.pop("shmbus", None)
    joblib._parallel_backends.LokyBackend = Exchanged
    joblib.externals.loky.get_reusable_executor = _reusable


class Cases:
    """The plugin of pytest that picks the tests."""

    def __init__(self, *, ours: bool, quick: bool) -> None:
        self.ours, self.quick = ours, quick

    def pytest_collection_modifyitems(self, items: list[pytest.Function]) -> None:
        taken = dict[str, pytest.Function]()
        for item in items:
            own = not any(other in item.name for other in _OTHERS)
            if own and not (self.quick and (item.originalname in LONG)):
                taken.setdefault(item.originalname if self.quick else item.name, item)
        items[:] = taken.values()
        if self.ours:
            self._exchange(items)

    def _exchange(self, items: list[pytest.Function]) -> None:
        programs = {item.module for item in items}
        for module in programs:
            for name, text in list(vars(module).items()):
                if isinstance(text, str) and "from joblib import" in text:
                    first = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
                    first += "import joblib_cases; joblib_cases.exchange()\n"
                    setattr(module, name, first + text)
        for item in items:
            for name in (item.name, item.originalname):
                if reason := DIFFERENT.get(name):
                    item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def main() -> int:
    """Run them; returns pytest's exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--loky", action="store_true", help="leave joblib's own backend")
    parser.add_argument("--quick", action="store_true", help="one of each test, and no long ones")
    options, rest = parser.parse_known_args()
    import joblib_cases  # as workers import it, rather than as a program

    if not options.loky:
        joblib_cases.exchange()
    cases = Cases(ours=not options.loky, quick=options.quick)
    own = ["-c", os.devnull, "--rootdir", "/", "-p", "no:cacheprovider", "-q", "--timeout=60"]
    own += [
        "-W",
        "ignore::pytest.PytestUnknownMarkWarning",
        "--pyargs",
        "joblib.test.test_parallel",
    ]
    return int(pytest.main([*own, *rest], plugins=[cases]))


if __name__ == "__main__":
    sys.exit(main())
