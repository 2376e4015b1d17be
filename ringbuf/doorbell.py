"""Doorbells: one process wakes another, without a system call while both are awake.

A doorbell is a named semaphore and an epoch, a word in shared memory that its one waiting thread
makes odd while it sleeps. The semaphore is only a hint: the waiter looks at the word that it waits
for. So a superfluous ring costs one look, and the system is called only while the waiter sleeps.
"""

import errno
import os
import stat
from typing import Self

import posix_ipc

from ringbuf._kernel import Bell, Mapping
from ringbuf.errors import DoorbellError, DoorbellExists, DoorbellNotFound
from ringbuf.segment import DIRECTORY, MODE, explanation


class Doorbell(Bell):
    """One thread waits at it, others ring; make it with `create` or `attach`.

    The epoch is the word at `offset` of `mapping`, and the waiting side writes it. Leaving its
    `with` block unlinks it where it was created there.
    """

    name: str
    created: bool

    @classmethod
    def create(cls, name: str, mapping: Mapping, offset: int) -> Self:
        """Make the semaphore. Raises DoorbellExists, DoorbellError."""
        make(name)
        try:
            bell = cls(name, mapping, offset)
        except BaseException as problem:
            unlink(name)
            if isinstance(problem, OSError):
                raise refusal(name, problem, "made") from problem
            raise
        bell.name = name
        bell.created = True
        return bell

    @classmethod
    def attach(cls, name: str, mapping: Mapping, offset: int) -> Self:
        """Open the semaphore of the caller's own user. Raises DoorbellNotFound, DoorbellError."""
        try:
            status = os.lstat(path(name))
            # /dev/shm is sticky: no other user can replace what is ours.
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise DoorbellError(name, f"belongs to uid {status.st_uid}, or is no semaphore")
            bell = cls(name, mapping, offset)
        except FileNotFoundError:
            raise DoorbellNotFound(name) from None
        except OSError as problem:
            raise refusal(name, problem, "opened") from problem
        bell.name = name
        bell.created = False
        return bell

    def unlink(self) -> None:
        """Remove the name; who has the doorbell open keeps it. Nothing happens if it is gone."""
        unlink(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.created:
            self.unlink()


def make(name: str) -> None:
    """Make a doorbell's semaphore, which nobody has open yet. Whatever fails, nothing is left
    behind. Raises DoorbellExists, DoorbellError."""
    made: list[posix_ipc.Semaphore] = []
    try:
        # Within one call, as in Segment.create: an exception cannot come between.
        made.extend(map(posix_ipc.Semaphore, ("/" + name,), (posix_ipc.O_CREX,), (MODE,)))
        made[0].close()
        os.chmod(path(name), MODE)  # the umask may have removed bits
    except posix_ipc.ExistentialError:
        raise DoorbellExists(name) from None
    except BaseException as problem:
        if made:
            unlink(name)
        if isinstance(problem, OSError):
            raise refusal(name, problem, "made") from problem
        if isinstance(problem, posix_ipc.Error | ValueError):
            raise DoorbellError(name, f"could not be made: {problem}") from problem
        raise


def refusal(name: str, problem: OSError, done: str) -> DoorbellError:
    """The error to raise where the system refused to make or open one."""
    if problem.errno is None and "files open" in str(problem):  # posix_ipc leaves out the number
        problem = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return DoorbellError(
        name, f"could not be {done}: {explanation(problem)}", errno=problem.errno or 0
    )


def path(name: str) -> str:
    """Where the C library keeps the semaphore of that name."""
    return f"{DIRECTORY}/sem.{name}"


def unlink(name: str) -> None:
    """Remove the semaphore's name if there is one."""
    try:
        posix_ipc.unlink_semaphore("/" + name)
    except posix_ipc.ExistentialError:
        pass
