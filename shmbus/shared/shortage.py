"""What the system refuses to give: the bus's error for it, and nothing kept by that error."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from ringbuf import RingbufError
from ringbuf.segment import ADVICE, DIRECTORY
from shmbus import errors

from . import segments


@contextmanager
def told(bus: str | None, what: str) -> Iterator[None]:
    """A block whose errors are the bus's. `what` is had in it: a few words."""
    try:
        yield
    except errors.BusError:
        raise
    except (OSError, MemoryError, RingbufError) as problem:
        if isinstance(problem, OSError) and problem.errno is None:
            raise  # the system numbers its own: this is a signal's handler's, such as TimeoutError
        raise error(bus, what, problem) from problem


def error(
    bus: str | None, what: str, problem: OSError | MemoryError | RingbufError
) -> errors.BusError:
    """The bus's error for one of ringbuf or of the system."""
    if isinstance(problem, RingbufError):
        return segments.error(bus, getattr(problem, "name", what), problem)
    if isinstance(problem, MemoryError):
        problem = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    if isinstance(problem.filename, str):
        folder, name = os.path.split(problem.filename)
        if folder == DIRECTORY:
            return segments.error(bus, name, problem)
    advice = ADVICE.get(problem.errno or 0, "see what shmbus doctor says")
    return errors.NoResource(
        bus=bus,
        what=what,
        reason=problem.strerror or str(problem),
        remedy=advice[:1].upper() + advice[1:],
    )


@contextmanager
def nothing_kept() -> Iterator[None]:
    """A block of which nothing stays where it fails. The frames of its calls have what it had got
    so far, mappings and descriptors, and would keep that for as long as anybody keeps the error."""
    outside = sys.exc_info()[1]  # the caller may be handling it; that one's frames are not ours
    try:
        yield
    except BaseException as problem:
        _clear(problem, outside)
        raise


def _clear(problem: BaseException | None, outside: BaseException | None) -> None:
    while problem is not None and problem is not outside:
        traceback.clear_frames(problem.__traceback__)
        problem = problem.__cause__ or problem.__context__
