"""The fence: at most one dispatcher for a bus, in this process or any other.

An ``fcntl`` lock on a file of its own, which Linux releases when the process ends. It is also
released when the process closes any descriptor of the file, and does not exclude the process
itself. So the file is opened only here, once for each bus, and this module keeps which fences this
process holds. ``flock`` and open file description locks would not do: a forked child that outlives
its killed parent would keep them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
from typing import NamedTuple

from . import names, processes

_mutex = threading.Lock()
_held: dict[str, int] = {}  # bus -> descriptor, of this process
_owner = os.getpid()

_FLOCK = struct.Struct("@hhqqi0q")  # struct flock


class Holder(NamedTuple):
    """Who holds a fence; 0 where that could not be read."""

    pid: int
    start: int


def acquire(bus: str) -> Holder | None:
    """Take the fence. None: it is ours now; otherwise who has it. Raises OSError where something
    else has its name."""
    global _owner
    path = names.SHM / names.names_of(bus).lock
    me = Holder(os.getpid(), processes.start_time(os.getpid()))
    with _mutex:
        if _owner != os.getpid():  # a fork: locks are not inherited, so closing releases none
            for fd in _held.values():
                os.close(fd)
            _held.clear()
            _owner = os.getpid()
        if bus in _held:
            return me
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                status = os.fstat(fd)
                if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if status.st_ino == os.stat(path).st_ino:
                    os.fchmod(fd, 0o600)
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, f"{me.pid} {me.start}".encode(), 0)
                    _held[bus] = fd
                    return None
            except BlockingIOError:
                found = _read(fd)
                os.close(fd)
                return found or Holder(0, 0)
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its name was removed meanwhile: the lock excludes nobody


def holder(bus: str) -> Holder | None:
    """Who has the fence, or had it last and is still alive. Takes and makes nothing."""
    path = names.SHM / names.names_of(bus).lock
    with _mutex:
        if bus in _held and _owner == os.getpid():  # opening it here would give it up
            return Holder(os.getpid(), processes.start_time(os.getpid()))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            free = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, wanted))[0] == fcntl.F_UNLCK
            found = _read(fd)
        except OSError:
            return None
        finally:
            os.close(fd)
    if free:
        return found if found is not None and processes.process_alive(*found) else None
    return found or Holder(0, 0)


def _read(fd: int) -> Holder | None:
    """The holder that the file names; None where it names none yet, or is garbage."""
    words = os.pread(fd, 64, 0).split()
    return Holder(*map(int, words)) if len(words) == 2 and b"".join(words).isdigit() else None


def release(bus: str, *, remove: bool) -> None:
    """Release the fence; ``remove`` the file where nothing of the bus is left."""
    with _mutex:
        fd = _held.pop(bus, None)
        if fd is None or _owner != os.getpid():
            return
        if remove:
            try:
                os.unlink(names.SHM / names.names_of(bus).lock)
            except FileNotFoundError:
                pass
        else:
            os.ftruncate(fd, 0)  # this process may go on without it
        os.close(fd)
