"""`joblib.Parallel` over an `Executor`."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from typing import Any

import joblib
from joblib._parallel_backends import FallbackToBackend, SequentialBackend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from shmbus.executor.executor import Executor
from shmbus.executor.wire import Failure

from .kept import kept
from .large import LargeArrays
from .packed import Packed, call
from .starting import context

IDLE = 300.0
"""Seconds that workers stay after a call, as loky's."""


class Backend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """The backend "shmbus" of joblib: `joblib.parallel_config(backend="shmbus")`.

    What may be given beside `backend`, there or to `Parallel`: `inner_max_num_threads`,
    `idle_worker_timeout` (seconds that workers stay for the next call; default 300), and what an
    `Executor` takes: `bus`, `initializer`, `initargs`, `max_tasks_per_child`, `retries`.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    _workers: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers `n_jobs` means: 1 where they cannot be started, or would be too many.

        Raises ValueError for 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or n_jobs == 1:
            return 1
        if multiprocessing.current_process().daemon:
            return _alone("in a daemonic process")
        if self.nesting_level and threading.current_thread() is not threading.main_thread():
            return _alone("below threads")
        return n_jobs if n_jobs > 0 else max(joblib.cpu_count() + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        *,
        max_nbytes: int | None = 1024 * 1024,
        mmap_mode: str | None = "r",
        idle_worker_timeout: float | None = None,
        **given: Any,
    ) -> int:
        """For the next call: at its beginning, or when a `with Parallel(...)` is entered."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        for of_joblib in ("prefer", "require", "verbose", "temp_folder", "context"):
            given.pop(of_joblib, None)
        options = {**self.backend_kwargs, **given}
        self._idle = options.pop("idle_worker_timeout", None) or idle_worker_timeout or IDLE
        self._made_from = {
            **options,
            "max_workers": n_jobs,
            "environment": self._prepare_worker_env(n_jobs),
        }
        self._large = LargeArrays(max_nbytes, mmap_mode)
        self._under_way: set[Future[Any]] = set()
        self.parallel = parallel
        self._broken = False
        self._workers = kept.take(self._made_from) or _made(**self._made_from)
        return n_jobs

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], None] | None = None
    ) -> Future[Any]:
        """A batch, to whichever worker is free."""
        assert self._workers is not None
        packed: Any = Packed(func, self._large, "the task to send to the workers")
        future: Future[Any]
        try:
            future = self._workers.submit(call, packed)
        except (pickle.PicklingError, RuntimeError) as error:  # BrokenExecutor is a RuntimeError
            future = Future()
            future.set_exception(error)
        self._under_way.add(future)

        # Until then what `packed` maps is there.
        def done(future: Future[Any], packed: Packed = packed) -> None:
            self._under_way.discard(future)
            if not future.cancelled() and isinstance(future.exception(), BrokenExecutor):
                self._broken = True
            if callback is not None:
                callback(future)

        future.add_done_callback(done)
        return future

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """What the batch returned. Raises what it raised, or what has happened to its worker."""
        result = future.result()
        if isinstance(result, Failure):
            raise result.exception
        return result

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what is under way: its workers are killed and replaced, the others stay."""
        for future in list(self._under_way):
            future.cancel()

    def stop_call(self) -> None:
        """The end of a call."""
        self._large.forget()

    def terminate(self) -> None:
        """The end of what `configure` began: the workers stay for the next."""
        workers, self._workers = self._workers, None
        if workers is not None:
            self._large.forget()
            if self._broken:
                workers.shutdown(wait=False)
            else:
                kept.keep(workers, self._made_from, self._idle)
        self.reset_batch_stats()


def _made(environment: dict[str, str], **options: Any) -> Executor:
    return Executor(mp_context=context(environment), **options)


def _alone(where: str) -> int:
    warnings.warn(f"shmbus-backed parallel loops cannot be nested {where}: n_jobs=1", stacklevel=4)
    return 1
