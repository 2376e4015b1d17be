"""What an executor leaves in /dev/shm whose process is killed."""

from __future__ import annotations

import pytest

import shmbus
from shmbus.testing import eventually, in_shm, start_python

PROGRAM = """
    import shmbus
    executor = shmbus.Executor(1)
    executor.submit(abs, -1).result()
    print(executor.name)
    executor.submit(input).result()
"""


@pytest.mark.slow
def test_the_next_executor_removes_what_a_killed_one_has_left() -> None:
    with start_python(PROGRAM) as program:
        killed = program.line()
        assert in_shm(f"pool-{killed}")
        program.kill()
    with shmbus.Executor(1) as executor:
        eventually(lambda: not in_shm(f"pool-{killed}"))
        assert executor.submit(abs, -1).result(60) == 1
