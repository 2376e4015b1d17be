"""A Unix socket that one gateway listens on, and only its own user can open."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from shmbus_console.run import Failure

_BACKLOG = 128

PATIENCE = 2.0
"""Seconds that a gateway may take to start, for which another in the same directory waits."""


@contextlib.contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """Listen there, and remove the file at the end. One that a killed gateway left is replaced.

    Raises `Failure` where somebody listens there, or the file is something else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            with _alone(path.parent):
                _remove_stale(path)
                _bind(listener, path)
                listener.listen(_BACKLOG)  # until then it looks like one that a killed gateway left
            mine = os.stat(path).st_ino
        except OSError as why:
            raise Failure(f"{path}: {why.strerror or why}. Give another --socket") from None
        listener.setblocking(False)
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):  # nobody else's: who replaced it, did so on purpose
                if os.stat(path).st_ino == mine:
                    os.unlink(path)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """As the only gateway that starts there, so that of two neither removes the other's socket."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end = time.monotonic() + PATIENCE
        while not _locked(held):
            if time.monotonic() >= end:
                raise Failure(
                    f"another gateway that starts in {directory} has it locked (flock), for more "
                    f"than {PATIENCE:g} s. End that, or give a --socket in another directory"
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(held)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_stale(path: Path) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Failure(f"{path} exists and is no socket. Remove it, or give another --socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(str(path))
    if refused in (0, errno.EAGAIN):  # the latter: its queue is full
        raise Failure(f"somebody listens on {path} already. End that, or give another --socket")
    if refused != errno.ECONNREFUSED:
        raise OSError(refused, os.strerror(refused))
    os.unlink(path)


def _bind(listener: socket.socket, path: Path) -> None:
    """The file is there with its mode at once: no moment in which others can open it."""
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
