"""A server that is a program of somebody else's, for as long as its role plays."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from benchmark.stage import Stage

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def program(stage: Stage, command: list[str]) -> None:
    """Run it, and end it with this role, however that ends."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_end_with_parent,
    )
    try:
        stage.ready_before_others()  # those that connect wait until they can
        raise RuntimeError(f"{command[0]} ended by itself with {process.wait()}")
    finally:
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until_it_listens(connect: Callable[[], T], error: type[Exception], patience: float = 20.0) -> T:
    """What `connect` returns once it no longer raises `error`."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return connect()
        except error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def free_port() -> int:
    """A port of the loopback interface that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
