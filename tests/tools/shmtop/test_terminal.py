"""shmtop in a real terminal, and without one: what is typed at once, Ctrl-C, signals."""

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
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import shmbus
from shmbus.testing import eventually

pytest.importorskip("textual")

from shmbus_console.run import run
from shmtop.app import ShmTop
from shmtop.command import live, shmtop
from shmtop.sampler import Sampler


class Terminal:
    """shmtop in a pseudo-terminal of 100 by 30."""

    def __init__(self, bus: str) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(self.theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from shmtop import main; main()", bus, "--interval", "100ms"],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env=os.environ | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        self.drawn = b""

    def read(self) -> str:
        """All that it has drawn so far, without what places and colours it."""
        while select.select([self.ours], [], [], 0.05)[0]:
            self.drawn += os.read(self.ours, 1 << 16)
        return re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", self.drawn).decode(errors="replace")

    def until(self, text: str) -> None:
        eventually(lambda: text in self.read(), timeout=30.0)

    def type(self, text: str) -> None:
        """All at once."""
        os.write(self.ours, text.encode())

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        return self.process.wait(0)

    @property
    def restored(self) -> bool:
        """Whether the terminal is as it was: its modes, its own screen, its cursor."""
        self.read()
        assert self.drawn.rindex(b"\x1b[?1049l") > self.drawn.rindex(b"\x1b[?1049h")
        assert self.drawn.rindex(b"\x1b[?25h") > self.drawn.rindex(b"\x1b[?25l")
        return termios.tcgetattr(self.theirs) == self.before

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for end in (self.ours, self.theirs):
            with suppress(OSError):  # a test has closed it
                os.close(end)


@pytest.fixture
def terminal(bus: shmbus.Bus) -> Iterator[Terminal]:
    with bus.attach("worker-1"), bus.attach("worker-2"):
        terminal = Terminal(bus.name)
        try:
            terminal.until("worker-2")
            yield terminal
        finally:
            terminal.close()


def test_what_is_pasted_after_a_key_goes_to_its_prompt_and_ctrl_c_ends_with_0(
    terminal: Terminal,
) -> None:
    terminal.type("/svrdtq?w")
    terminal.until("no endpoint matches 'svrdtq?w'")
    terminal.type("\x03")
    assert terminal.ended() == 0
    assert terminal.restored


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_0_and_the_tail_has_left_the_bus(
    terminal: Terminal, bus: shmbus.Bus, number: signal.Signals
) -> None:
    terminal.type("t")
    terminal.until("a lossy observer of >")
    terminal.process.send_signal(number)
    assert terminal.ended() == 0
    assert terminal.restored
    eventually(lambda: len(bus.endpoints()) == 2)
    assert not bus.health().deaths


@pytest.fixture
def handlers() -> Iterator[None]:
    """Gives the signals back that `run` takes."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_while_it_starts_is_the_usual_end_too(
    bus: shmbus.Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ShmTop, "__init__", interrupted)
    sampler = Sampler(bus.name)
    live(sampler, 1.0)
    sampler.close()


@pytest.mark.usefixtures("handlers")
def test_a_bus_that_is_not_there_gets_one_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(shmtop, "shmtop", ["no-such-bus"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("shmtop: no bus 'no-such-bus'")
    assert len(said.splitlines()) == 1


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("missing", ["input", "output", "error"])
def test_without_a_terminal_it_refuses_in_one_line(
    bus: shmbus.Bus,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    streams: dict[str, Any] = {"input": sys.stdin, "output": sys.stdout, "error": sys.stderr}
    for name, stream in streams.items():
        monkeypatch.setattr(stream, "isatty", lambda name=name: name != missing)
    assert run(shmtop, "shmtop", [bus.name]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith(f"shmtop: standard {missing} is not a terminal; use --once")
    assert "--json" in said.err
    assert len(said.err.splitlines()) == 1
    assert "\x1b" not in said.err


def test_it_ends_where_its_terminal_is_gone(terminal: Terminal) -> None:
    os.close(terminal.ours)
    os.close(terminal.theirs)
    assert terminal.process.wait(30) == 1
