"""What the tests call in workers, which import it from here."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import shmbus
from shmbus.executor.worker import report


def stay() -> None:
    """Says who does it, and never ends."""
    report(os.getpid())
    time.sleep(600)


def compute() -> int:
    """Says who does it, and holds the GIL for good."""
    report(os.getpid())
    return sum(range(10**13))


def die(how: int = signal.SIGKILL) -> None:
    """Ends its process by that signal."""
    os.kill(os.getpid(), how)
    time.sleep(600)


def die_unless(mark: Path) -> int:
    """Killed the first time, it returns the second."""
    if not mark.exists():
        mark.touch()
        die()
    return os.getpid()


def interrupt(pid: int) -> None:
    """As Ctrl-C does in a terminal; never ends."""
    os.kill(pid, signal.SIGINT)
    time.sleep(600)


def append(path: Path, text: str) -> None:
    """To that file."""
    with path.open("a") as file:
        file.write(text)


def crash() -> None:
    """Ends its process by SIGSEGV, without a core dump."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600)


def leave() -> None:
    """Ends its process at once, and says that all is well."""
    os._exit(0)


def end() -> None:
    """As a program ends."""
    sys.exit("enough")


def fail() -> None:
    """Raises what a task may raise."""
    raise LookupError("nothing there")


class At:
    """Something that calls a function when it is unpickled, or, if it is to, when it is pickled."""

    def __init__(self, function: Any, *, pickled: bool = False) -> None:
        self.function, self.pickled = function, pickled

    def __reduce__(self) -> tuple[Any, ...]:
        if self.pickled:
            self.function()
        return self.function, ()


def give(function: Any, *, pickled: bool) -> At:
    """Something that calls a function when it is pickled, or when it is unpickled."""
    return At(function, pickled=pickled)


def nested(number: int) -> int:
    """In a worker of a worker."""
    with shmbus.Executor(1) as executor:
        return executor.submit(abs, number).result()


def nested_stay() -> None:
    """Never ends, nor does a task of its own."""
    with shmbus.Executor(1) as executor:
        executor.submit_with(stay, progress=report).result()


_said: list[str] = []


def say(what: str) -> None:
    """For an initializer."""
    _said.append(what)


def said() -> list[str]:
    """What was said in this process."""
    return _said


def threads() -> int:
    """Those of Python in this process."""
    return threading.active_count()


def await_file(path: Path) -> str:
    """Returns once it is there."""
    while not path.exists():
        time.sleep(0.005)
    return "gone"


def await_file_if(path: Path | None) -> str | None:
    """Likewise, if there is one to wait for."""
    return None if path is None else await_file(path)


def count(most: int) -> int:
    """Reports each number."""
    for number in range(most):
        report(number)
    return most


def append_after(path: Path, number: int) -> int:
    """To that file, but the first."""
    if number:
        append(path, "x")
        time.sleep(0.001)
    return number
