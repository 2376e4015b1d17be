"""The command line, within this process (quick) and as processes (signals, pipes)."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec
import pytest
from shmbus_command.app import shmbus as command
from shmbus_console.run import run as run_command

COMMAND = [sys.executable, "-P", "-c", "from shmbus_command import main; main()"]


class Start(Protocol):
    """The type of the fixture `start`."""

    def __call__(
        self, *arguments: object, command: Sequence[str] = COMMAND
    ) -> subprocess.Popen[str]: ...


class Ran(msgspec.Struct):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def shmbus_command(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ran]]:
    """Run a command here: `shmbus_command("ls", "--json")`."""
    monkeypatch.delenv("SHMBUS_BUS", raising=False)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run_command(command, "shmbus", [str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ran(code, out, err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def complete(
    shmbus_command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What bash is told to complete the last of these words to: `complete("health", "sy")`."""

    def complete(*words: str) -> str:
        monkeypatch.setenv("_SHMBUS_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(["shmbus", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        return shmbus_command().out

    return complete


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a command as a process with pipes: `start("sub", "-b", bus.name)`."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, command: Sequence[str] = COMMAND) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*command, *map(str, arguments)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
