"""Who may have a pool's processes do something."""

from __future__ import annotations

import pytest

import shmbus
from shmbus.testing import run_python

STRANGER = """
    import sys, shmbus
    with shmbus.attach(sys.argv[1], name=sys.argv[2]) as stranger:
        for word in ("task", "ready", "report", "end"):
            type = f"{sys.argv[3]}.{word}"
            for do in (stranger.request, stranger.send, stranger.publish, stranger.handle):
                try:
                    do(type, print) if do == stranger.handle else do(type, b"")
                except shmbus.Forbidden as why:
                    print("Forbidden")
"""


@pytest.mark.slow
def test_nobody_else_does_anything_on_the_bus_that_an_executor_serves() -> None:
    with shmbus.Executor(1) as executor:
        assert executor.submit(abs, -1).result(60) == 1  # there is a worker who could be asked
        pool = f"pool.{executor.name}"
        printed = run_python(STRANGER, f"pool-{executor.name}", f"{pool}.1", pool)
        assert printed.split() == ["Forbidden"] * 16
