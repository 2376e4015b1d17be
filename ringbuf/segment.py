"""Segments: named pieces of shared memory with a checked beginning.

The standard library's SharedMemory, with four differences. Nothing registers with the resource
tracker, which at an abrupt exit unlinks what others still use. A failed attach never unlinks.
The memory is reserved when it is made, because a file that was only truncated kills the process
with SIGBUS at the first write after /dev/shm is full. And `_kernel.Mapping` maps it, which stays
mapped as long as it is viewed, so that closing never raises BufferError.
"""

import _posixshmem
import errno
import os
import stat
import sys
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Self

from ringbuf import _kernel
from ringbuf._kernel import MAGIC, PREFIX_SIZE, Mapping
from ringbuf.errors import (
    SegmentError,
    SegmentExists,
    SegmentForeign,
    SegmentMismatch,
    SegmentNoSpace,
    SegmentNotFound,
    SegmentNotReady,
)
from ringbuf.prefix import Prefix

DIRECTORY = "/dev/shm"  # where Linux's C libraries keep segments and semaphores
MODE = 0o600

# tmpfs takes back what an interrupted call had reserved: one large call would start anew at every
# signal, for ever if signals come often enough.
PIECE = 1 << 20

REMEDIES = {
    errno.ENOSPC: "make /dev/shm larger (in a container --shm-size, else "
    "mount -o remount,size=...) or the segments smaller",
    errno.ENOMEM: "raise the memory limit of this container or cgroup, or make the segments "
    "smaller",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) or make the segments smaller",
}


ADVICE = {
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the system's limit on open files (sysctl fs.file-max)",
    errno.ENOMEM: "raise the limit on address space (ulimit -v) or on memory (of this container or "
    "cgroup), or end what takes it",
    errno.ENOSPC: "make /dev/shm larger (in a container --shm-size, else mount -o "
    "remount,size=...,nr_inodes=...), or remove what fills it",
}
SHORTAGES = frozenset(ADVICE)


class Segment(SharedMemory):
    """A named piece of shared memory; make it with `create` or `attach`.

    Leaving its `with` block closes it and, where it was created there, unlinks it too.
    """

    mapping: Mapping | None

    def __init__(self, name: str, mapping: Mapping, *, created: bool) -> None:
        self._name = "/" + name
        self._size = mapping.size
        self.mapping = mapping
        self.created = created

    @classmethod
    def create(
        cls,
        name: str,
        size: int,
        *,
        kind: int,
        layout: int,
        generation: int = 0,
        prepare: Callable[[Mapping], object] | None = None,
    ) -> Self:
        """Make a segment of `size` bytes, its prefix included, zeroed but for the prefix.

        `prepare` writes what must be in it before another process can attach. Whatever fails,
        nothing is left behind. Raises SegmentExists, SegmentNoSpace, SegmentError.
        """
        if size < PREFIX_SIZE or size % 8:
            raise ValueError(f"a segment has at least {PREFIX_SIZE} bytes, in eights: not {size}")
        opened: list[int] = []
        done = "created"
        try:
            # One call makes the file and keeps its descriptor: no exception from a signal handler
            # can come in between. For the same reason nothing follows this try.
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            try:
                opened.extend(map(_posixshmem.shm_open, ("/" + name,), (flags,), (MODE,)))
                os.fchmod(opened[0], MODE)
                reserve(opened[0], size)
                done = "mapped"
                mapping = Mapping(opened[0], size, writable=True)
            finally:
                for fd in opened:
                    os.close(fd)
            if prepare is not None:
                prepare(mapping)
            mapping.write_prefix(layout, kind, generation)
            return cls(name, mapping, created=True)
        except BaseException as problem:
            if opened:
                unlink(name)
            if not isinstance(problem, OSError):
                raise
            if opened and done == "created" and problem.errno in REMEDIES:
                free = min(available(), unused_memory())
                remedy = REMEDIES[problem.errno]
                raise SegmentNoSpace(name, size, free, remedy, errno=problem.errno) from None
            raise refusal(name, problem, done) from problem

    @classmethod
    def attach(
        cls,
        name: str,
        *,
        kind: int | None = None,
        layout: int | None = None,
        size: int | None = None,
        writable: bool = False,
    ) -> Self:
        """Open a segment that is the caller's own user's and complete; never unlinks it.

        None accepts any kind, layout or size. Raises SegmentNotFound, SegmentForeign,
        SegmentNotReady (try again), SegmentMismatch, SegmentError.
        """
        # Not blocking: the name might be a pipe's.
        flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NONBLOCK
        opened: list[int] = []
        try:
            opened.extend(map(_posixshmem.shm_open, ("/" + name,), (flags,)))  # as in `create`
            found = check_file(name, opened[0])
            mapping = Mapping(opened[0], found, writable=writable)
        except OSError as problem:
            raise refusal(name, problem, "mapped" if opened else "opened") from problem
        finally:
            for fd in opened:
                os.close(fd)
        prefix = mapping.read_prefix()
        if prefix.magic == 0:
            raise SegmentNotReady(name)
        for what, expected, actual in (
            ("magic", MAGIC, prefix.magic),
            ("layout", layout, prefix.layout),
            ("kind", kind, prefix.kind),
            ("size", prefix.size, found),
            ("size", size, found),
        ):
            if expected is not None and expected != actual:
                raise SegmentMismatch(name, what, expected, actual)
        return cls(name, mapping, created=False)

    @property
    def prefix(self) -> Prefix:
        """The prefix as it is now."""
        return self.memory.read_prefix()

    @property
    def memory(self) -> Mapping:
        """The mapping. Raises ValueError after `close`."""
        if self.mapping is None:
            raise ValueError(f"segment {self.name!r} is closed")
        return self.mapping

    @property
    def buf(self) -> memoryview:
        """A view of it all. Raises ValueError after `close`."""
        return memoryview(self.memory)

    def close(self) -> None:
        """Unmap the memory, once no view of it is alive."""
        self.mapping = None

    def unlink(self) -> None:
        """Remove the name; who has the segment open keeps it. Nothing happens if it is gone."""
        unlink(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self.created:
            self.unlink()

    # Does nothing, and is no Python code as that of SharedMemory is: what a signal's handler raises
    # in a finalizer is lost. The mapping goes when nothing refers to it.
    __del__ = object.__init__

    def __reduce__(self) -> Any:
        raise TypeError("segments are not pickled: pass the name and attach to it")


def unlink(name: str) -> None:
    """Remove the segment's name if there is one. Raises OSError (not permitted)."""
    try:
        _posixshmem.shm_unlink("/" + name)
    except FileNotFoundError:
        pass


def reserve(fd: int, size: int) -> None:
    """Give the file `size` bytes of memory that are its own. Raises OSError."""
    # Reserving more than there is would first take all that is free; and where /dev/shm may grow
    # beyond the machine's memory, Linux would kill other processes before it refused.
    if size > available():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    idle = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf(
        "SC_PAGE_SIZE"
    )  # quick to read, and at most what is unused
    if size > idle and size > unused_memory():
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    for start in range(0, size, PIECE):
        while (error := _kernel.reserve(fd, start, min(PIECE, size - start))) == errno.EINTR:
            pass
        if error:
            raise OSError(error, os.strerror(error))


def available() -> int:
    """Bytes left in the file system that holds the segments."""
    system = os.statvfs(DIRECTORY)
    if not system.f_blocks:  # a tmpfs without a limit
        return sys.maxsize
    return system.f_bavail * system.f_frsize


def unused_memory() -> int:
    """Bytes that the machine could still give, swap included."""
    try:
        with open("/proc/meminfo", "rb") as lines:
            facts = dict(line.split(b":", 1) for line in lines)
        return sum(int(facts[key].split()[0]) * 1024 for key in (b"MemAvailable", b"SwapFree"))
    except (OSError, KeyError):
        return sys.maxsize


def check_file(name: str, fd: int) -> int:
    """The size of an opened file, if it may be a segment of ours. Checked once it is open, so that
    it cannot be exchanged afterwards."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentForeign(name, "type", "a regular file", stat.filemode(status.st_mode)[0])
    if status.st_uid != os.geteuid():
        raise SegmentForeign(name, "owner", f"uid {os.geteuid()}", f"uid {status.st_uid}")
    if status.st_size < PREFIX_SIZE:
        raise SegmentNotReady(name)
    if stat.S_IMODE(status.st_mode) != MODE:
        mode = stat.S_IMODE(status.st_mode)
        raise SegmentForeign(name, "mode", f"{MODE:04o}", f"{mode:04o}")
    return status.st_size


def refusal(name: str, problem: OSError, done: str) -> SegmentError:
    """The error to raise where the system refused to open or map."""
    match problem.errno:
        case errno.EEXIST:
            return SegmentExists(name)
        case errno.ENOENT:
            return SegmentNotFound(name)
        case errno.EACCES | errno.EPERM:
            return SegmentForeign(name, "owner or mode", f"uid {os.geteuid()}", "another")
        case errno.ELOOP | errno.EISDIR | errno.ENXIO:
            return SegmentForeign(name, "type", "a regular file", "a link, directory or socket")
    return SegmentError(
        name, f"could not be {done}: {explanation(problem)}", errno=problem.errno or 0
    )


def explanation(problem: OSError) -> str:
    """What the system says, and where there is one the remedy: "REASON; do this"."""
    advice = ADVICE.get(problem.errno or 0)
    return f"{problem.strerror or problem}" + (f"; {advice}" if advice else "")
