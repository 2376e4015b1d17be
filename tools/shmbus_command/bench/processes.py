"""The processes of a measurement beside the one that measures, started and ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from shmbus.host import uninterrupted

PATIENCE = 60.0
"""Seconds for whatever should take none."""
RING = 4 << 20
"""Bytes of each ring: a batch of the largest messages fits, and none is lost to a full ring."""


@contextmanager
def children(bus: str, clients: int) -> Iterator[None]:
    """The dispatcher and the other processes, which are ended afterwards."""
    python = [sys.executable, "-P"]
    serve = f"from shmbus import Settings, host; host.host({bus!r}, "
    serve += f"settings=Settings(in_bytes={RING}, out_bytes={RING}, reply_bytes={RING}, "
    serve += f"block_timeout={PATIENCE}))"
    commands = [
        [*python, "-c", serve],
        [*python, "-c", f"from shmbus_command.bench import roles; roles.far({bus!r})"],
    ]
    for number in range(clients):
        code = f"from shmbus_command.bench import roles; roles.client({bus!r}, '{number}')"
        commands.append([*python, "-c", code])
    begun = []
    try:
        for command in commands:
            # In process groups of their own: Ctrl-C reaches this process alone.
            with uninterrupted():
                child = subprocess.Popen(command, process_group=0, stderr=subprocess.DEVNULL)
                begun.append(child)
        yield
    finally:
        for child in reversed(begun):  # the dispatcher last, so that the others can detach
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
