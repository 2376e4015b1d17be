"""The editor as a person starts it, in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from shmbus.testing import eventually

pytest.importorskip("textual")

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 30.0


class Terminal:
    """The editor in a pseudo-terminal of 80 by 12."""

    def __init__(self, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "xi_bridge" / "editor.py"), *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)
        self._drawn = b""

    def read(self) -> str:
        """All that it has drawn so far, without what places and colours it."""
        with suppress(OSError):  # it has ended
            while select.select([self.ours], [], [], 0.05)[0]:
                self._drawn += os.read(self.ours, 1 << 16)
        return re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", self._drawn).decode(errors="replace")

    def until(self, text: str) -> None:
        eventually(lambda: text in self.read(), timeout=TIMEOUT)

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def ended(self) -> int:
        eventually(
            lambda: self.read() is not None and self.process.poll() is not None, timeout=TIMEOUT
        )
        return self.process.wait(0)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@contextmanager
def editor(*arguments: str | Path) -> Iterator[Terminal]:
    terminal = Terminal(*map(str, arguments))
    try:
        yield terminal
    finally:
        terminal.close()


@contextmanager
def host(bus: str, state: Path, *core: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "xi_bridge", bus, "--state", str(state), *core]
    with subprocess.Popen(command, cwd=EXAMPLES) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_person_types_though_core_and_host_are_killed_saves_and_quits(
    bus_name: str, tmp_path: Path
) -> None:
    file = tmp_path / "file.txt"
    named = [sys.executable, "-m", "xi_bridge.core"]
    with ExitStack() as stack:
        first = stack.enter_context(host(bus_name, tmp_path / "state", "--", *named))
        terminal = stack.enter_context(editor(bus_name, file))
        terminal.until("core up")
        terminal.type("one\r")
        terminal.until("2:1")
        (core,) = psutil.Process(first.pid).children()
        assert core.cmdline() == named
        core.kill()
        terminal.until("core down")
        first.kill()
        first.wait()
        terminal.type("two\r")
        terminal.until("waiting for the host")
        stack.enter_context(host(bus_name, tmp_path / "state"))
        terminal.until("3:1")
        terminal.type("\x13")  # Ctrl-S
        eventually(file.exists, timeout=TIMEOUT)
        terminal.type("\x11")  # Ctrl-Q
        assert terminal.ended() == 0
    assert file.read_text() == "one\ntwo\n"


@pytest.mark.slow
def test_where_its_own_core_dies_it_ends_and_says_of_what(tmp_path: Path) -> None:
    with editor("--alone", tmp_path / "new.txt") as terminal:
        terminal.until("core up")
        (core,) = psutil.Process(terminal.process.pid).children()
        core.send_signal(signal.SIGKILL)
        assert terminal.ended() == 1
        assert "was killed by SIGKILL" in terminal.read()
