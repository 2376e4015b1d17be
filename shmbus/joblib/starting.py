"""Workers are started as loky's are: not forked, in an environment of their own, and without a look
at `__main__`, which so needs no guard."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

from joblib.externals.loky.backend import popen_loky_posix
from joblib.externals.loky.backend.context import LokyContext
from joblib.externals.loky.backend.process import LokyProcess


class Popen(popen_loky_posix.Popen):  # type: ignore[misc]
    """With what `multiprocessing` asks of it and loky does not."""

    __module__ = popen_loky_posix.__name__  # which it starts as a program

    def kill(self) -> None:
        """End it at once."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """What is open is closed with this object."""


class Process(LokyProcess):  # type: ignore[misc]
    """A process of a worker."""

    @staticmethod
    def _Popen(process: Any) -> Popen:
        return Popen(process)


def context(environment: dict[str, str]) -> LokyContext:
    """That starts such processes."""
    made = LokyContext()
    made.Process = functools.partial(Process, env=environment)
    return made
