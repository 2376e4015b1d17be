"""Users of a queue die at every fail point, at each pass: the others can go on."""

import re
from pathlib import Path

import pytest

from .conftest import Program, run

ROOT = Path(__file__).resolve().parent.parent.parent
HEADERS = [*(ROOT / "shmbus/queues/native").glob("*.h"), ROOT / "ringbuf/native/ring.h"]
FAIL_POINTS = sorted(
    {
        point
        for header in HEADERS
        for point in re.findall(r'RB_FAIL\("([a-z.]+)"\);', header.read_text())
    }
)


@pytest.mark.slow
def test_users_killed_at_every_fail_point(program: Program) -> None:
    killed = program("killed_queue", ["killed_queue.c"], ["-O0", "-DSB_FAILPOINTS"])
    ended = run([str(killed), *FAIL_POINTS])
    assert (ended.code, ended.complaint, ended.left) == (0, "", [])
    assert ended.printed.split() == FAIL_POINTS  # each killed somebody
