"""A task of an executor that ends without its result, or a pool that can do no more tasks."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor

from .groups import PeerFailed
from .phrases import duration
from .requests import EndpointDied


class WorkerDied(EndpointDied):
    """The worker that had begun a task is gone."""

    task: str
    """Its function by its qualified name, and its number at the executor, such as
    ``resize #12``."""
    signal: str = ""
    """That ended the worker, such as SIGKILL; empty where it was none, or is not known."""
    code: int | None = None
    """With which the worker exited, where it did and that is known."""

    def _explain(self) -> str:
        how = self.signal or ("" if self.code is None else f"exit code {self.code}")
        reason = f"{self.reason}, {how}" if how else self.reason
        pid = "" if self.pid is None else f" (process {self.pid})"
        short = ""
        if self.signal == "SIGKILL":
            short = "; if nobody sent SIGKILL, the system was short of memory"
        return (
            f"worker {self.endpoint!r}{pid} is gone ({reason}) with task {self.task} "
            f"({self.type!r}) in hand, which may have been done in part. Submit it again if that "
            f"is harmless (retries=), and look at that process's output{short}"
        )


class TaskTimeout(PeerFailed, TimeoutError):
    """A task has taken longer than its timeout: its worker was killed, and is replaced."""

    task: str
    """Its function by its qualified name, and its number at the executor, such as
    ``resize #12``."""
    seconds: float
    """For which it had run."""
    endpoint: str | None = None
    """The worker's."""
    pid: int | None = None
    """The worker's process."""

    def _explain(self) -> str:
        who = "its worker" if self.endpoint is None else f"worker {self.endpoint!r}"
        pid = "" if self.pid is None else f" (process {self.pid})"
        return (
            f"task {self.task} has taken {duration(self.seconds)}, more than its timeout, and "
            f"{who}{pid} was killed. Shorten it, or give it more time: timeout="
        )


class PoolBroken(PeerFailed, BrokenExecutor):
    """The executor can do no more tasks: its workers end before they are ready, or their
    initializer raises."""

    pool: str
    reason: str
    traceback: str = ""
    """Of what the initializer raised."""

    def _explain(self) -> str:
        trace = f"\n\nTraceback of the worker:\n{self.traceback.rstrip()}" if self.traceback else ""
        return (
            f"the workers of pool {self.pool!r} cannot work: {self.reason}. Look at their output, "
            f"correct it, and make a new executor{trace}"
        )
