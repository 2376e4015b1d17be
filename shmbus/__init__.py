"""The message bus for the processes of one machine."""

import sys

if not sys.platform.startswith("linux"):
    raise ImportError(
        f"shmbus runs on Linux only (futexes, pidfd, /dev/shm); this is {sys.platform}"
    )
