"""A run of pytest whose processes and names in /dev/shm are gone when it has ended."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from shmbus.shared import names

_MARK = "SHMBUS_MUTATE_RUN"
_CODE_FAILED, _CODE_NONE = 1, 5  # of pytest: tests failed; none was found


class Ran(NamedTuple):
    """How a run ended."""

    failed: tuple[str, ...]
    """The tests that failed, as pytest names them."""
    seconds: float
    hung: bool = False
    trouble: str = ""
    """What kept pytest from running them; empty: nothing."""
    uncompiled: str = ""
    """The errors of a C program that does not compile; empty: all do."""

    @property
    def good(self) -> bool:
        return not (self.failed or self.hung or self.trouble)


def pytest(python: Path, directory: Path, arguments: list[str], *, limit: float) -> Ran:
    """Run these tests in `directory`, for `limit` seconds at most, until the first that fails."""
    mark = secrets.token_hex(8)
    began, there = time.monotonic(), set(os.listdir(names.SHM))
    command = [str(python), "-m", "pytest", "-q", "-rfE", "--maxfail=1", "--tb=short"]
    command += ["-p", "no:cacheprovider", "-o", "faulthandler_timeout=0", *arguments]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment.pop("VIRTUAL_ENV", None)
    environment.pop("PYTHONPATH", None)
    environment["CC"] = f"{os.environ.get('CC', 'cc')} -w"  # a warning is no test that notices
    with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open in whoever is left over
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment | {_MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        kin = _Kin(process.pid)
        try:
            process.wait(limit)
            hung = False
        except subprocess.TimeoutExpired:
            hung = True
        finally:
            kin.end(mark)
            process.kill()
            process.wait()
        output.seek(0)
        printed = output.read()
    _remove_names(set(os.listdir(names.SHM)) - there, kin.pids)
    found = re.findall(r"^(?:FAILED|ERROR) (\S+)", printed, re.M)
    known = (0, _CODE_FAILED) if found else (0,)
    trouble = "" if hung or process.returncode in known else printed[-1500:]
    errors = "\n".join(re.findall(r"\S+\.[ch]:\d+:\d+: error: .*", printed))
    return Ran(tuple(dict.fromkeys(found)), time.monotonic() - began, hung, trouble, errors)


class _Kin:
    """The processes that a run starts, as far as a look every 0.1 s shows."""

    def __init__(self, pid: int) -> None:
        self.pids = {pid}
        self._process = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(0.1):
            with contextlib.suppress(psutil.Error):
                self.pids.update(each.pid for each in self._process.children(recursive=True))

    def end(self, mark: str) -> None:
        """Kill all that inherited the mark, whoever its parent is by now."""
        self._done.set()
        self._thread.join()
        while marked := [pid for pid in psutil.pids() if _has(pid, mark)]:
            self.pids.update(marked)
            for pid in marked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def _has(pid: int, mark: str) -> bool:
    try:
        marked = f"{_MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return marked


def _remove_names(new: set[str], pids: set[int]) -> None:
    """Remove what these processes made: a bus or ring of a test has a process in its name."""
    for file in new:
        entry = names.parse(file)
        bus = file if entry is None else entry.bus
        makers = {int(pid) for pid in re.findall(r"-(\d+)(?=-|$|:)", bus)}
        if entry is not None and entry.owner is not None:
            makers.add(entry.owner.pid)
        if makers & pids:
            (names.SHM / file).unlink(missing_ok=True)
