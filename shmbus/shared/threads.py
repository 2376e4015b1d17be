"""Threads, started only where they can also begin.

`Thread.start` waits until the new thread runs. Where the system has memory for its stack and no
more, CPython gives the thread up with a `MemoryError`, and whoever started it would wait for ever.
"""

from __future__ import annotations

import mmap
import resource
import threading

_BEGIN = 4 << 20  # bytes for what CPython and the C library allocate in a thread that begins
_STACK = 2 << 20  # bytes of a stack for which the system sets no limit


def start(thread: threading.Thread) -> None:
    """Start it. Raises `RuntimeError` where it cannot be started, or could not begin."""
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    stack = threading.stack_size() or (_STACK if limit == resource.RLIM_INFINITY else limit)
    try:
        mmap.mmap(-1, stack + _BEGIN, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError) as why:
        raise RuntimeError(f"no memory for a thread: {why}") from None
    thread.start()
