"""The process in which a link runs: a child of ``shmbus link``, so that a link that dies is started
again, and something is there that keeps what is sent meanwhile.

Both have a socket between them. First comes the child's config. Then it says what its keeper is to
do, and waits until that is done; and that it is up. It ends in good order when its parent closes
the socket, or has died.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import click
import msgspec
from shmbus_console.output import note
from shmbus_console.run import FAILED, run, usual_end

from shmbus.links import Keep, Link, LinkConfig

from .status import summary

_START = "from shmbus_command.link.child import main; main()"


class Told(msgspec.Struct):
    """What a child is told first."""

    bus: str
    config: LinkConfig
    quiet: bool
    former: tuple[str, ...] = ()
    """Sites that links before have sent to, of which it keeps what they may have."""


class Up(msgspec.Struct, array_like=True, tag="up"):
    """What a child says once its link takes part."""


class Child:
    """One run of a link. `fileno`: readable once it has said something, or has ended."""

    def __init__(self, told: Told) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C in a terminal is for its parent
            )
        with suppress(BrokenPipeError):  # it has ended, which `fileno` says
            _put(self._socket, told)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def said(self) -> Keep | Up | None:
        """What it has said. None: it has ended, or is about to."""
        try:
            return msgspec.msgpack.decode(_get(self._socket), type=Keep | Up)
        except (OSError, EOFError):
            return None

    def kept(self) -> None:
        """What it asked of its keeper is done."""
        with suppress(OSError):
            self._socket.sendall(b"\1")

    def end(self, seconds: float) -> int:
        """Have it end, after this time by SIGKILL: its exit code; below 0, by which signal."""
        self._socket.close()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


# In that process ------------------------------------------------------------------------------


class _Parent:
    """It, as a child sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._lock = connection, threading.Lock()
        self._answers = threading.Semaphore(0)
        self._gone, self._close = False, _nothing
        threading.Thread(target=self._listen, daemon=True).start()

    def keep(self, keep: Keep) -> None:
        """Have the keeper do it; returns at once where it is gone."""
        with self._lock, suppress(OSError):
            _put(self._socket, keep)
            self._answers.acquire()

    def up(self) -> None:
        """This link takes part."""
        with self._lock, suppress(OSError):
            _put(self._socket, Up())

    def on_end(self, close: Callable[[], None]) -> None:
        """Call this when it is gone."""
        self._close = close
        if self._gone:
            close()

    def _listen(self) -> None:
        with suppress(OSError):
            while self._socket.recv(1):
                self._answers.release()
        self._gone = True
        self._answers.release()
        self._close()


def _nothing() -> None:
    pass


def main() -> None:
    """Run a link as the socket says whose descriptor is the last argument."""
    with socket.socket(fileno=int(sys.argv[-1])) as connection:
        try:
            told = msgspec.msgpack.decode(_get(connection), type=Told)
        except EOFError:
            sys.exit(FAILED)  # its parent has died
        link = click.Command("link", callback=partial(_run, told, _Parent(connection)))
        sys.exit(run(link, "shmbus link", []))


def _run(told: Told, parent: _Parent) -> None:
    keep = parent.keep if told.config.delivery == "confirmed" else None
    with Link(told.bus, told.config, keep, told.former) as link, usual_end():
        if not told.quiet:
            note("link", summary(link.status()))
        parent.up()
        parent.on_end(link.close)
        link.wait()


# Between them ---------------------------------------------------------------------------------


def _put(connection: socket.socket, value: object) -> None:
    content = msgspec.msgpack.encode(value)
    connection.sendall(len(content).to_bytes(4, "big") + content)


def _get(connection: socket.socket) -> bytes:
    """Raises ``EOFError``."""
    return _exactly(connection, int.from_bytes(_exactly(connection, 4), "big"))


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        if not (part := connection.recv(size - len(content))):
            raise EOFError
        content += part
    return content
