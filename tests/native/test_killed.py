"""Death at every instruction and every fail point: the others can go on with what is left."""

import re
from itertools import chain
from pathlib import Path

import pytest

from .conftest import Program, run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SOURCES = [
    [
        "killed_dispatcher.c",
        "killed_requests.c",
        "killed_departure.c",
        "killed_keyed.c",
        "killed_backlog.c",
        "killed_retaining.c",
        "killed_endpoint.c",
        "killed_mailbox.c",
        "killed_links.c",
    ],
    ["killed_pool.c", "killed_pooled_values.c"],
]
"""By what they have of shared memory (arena.h)."""
WITH_FILES = ["killed_share.c"]
"""What these write cannot be put back for each instruction."""


def promises(*sources: list[str]) -> list[str]:
    return [
        name
        for source in chain.from_iterable(sources)
        for name in re.findall(r"^PROMISE\((\w+)\)", (HERE / source).read_text(), re.M)
    ]


SCENARIOS = promises(*SOURCES)
FAIL_POINTS = sorted(
    {
        point
        for folder in ("ringbuf", "shmbus")
        for header in (ROOT / folder).rglob("native/*.h")
        if header.parent.parent.name != "queues"
        for call in re.findall(r"RB_FAIL\((.*)\);", header.read_text())
        for point in re.findall(r'"([a-z.]+)"', call)
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_every_instruction(program: Program, scenario: str) -> None:
    swept = program("swept", ["main.c", *SOURCES], ["-O1"])
    ended = run([str(swept), f"swept_{scenario}"])
    if "PTRACE_TRACEME" in ended.complaint:  # elsewhere than on x86-64
        pytest.skip("nobody may be traced here")
    assert (ended.code, ended.complaint, ended.left) == (0, "", [])


@pytest.mark.slow
def test_killed_at_every_fail_point(program: Program) -> None:
    struck = program("struck", ["main.c", *SOURCES, *WITH_FILES], ["-O0", "-DSB_FAILPOINTS"])
    ended = run([str(struck)], FAIL_POINTS=" ".join(FAIL_POINTS))
    assert (ended.code, ended.complaint, ended.left) == (0, "", [])
    kept = {f"struck_{scenario}" for scenario in SCENARIOS + promises(WITH_FILES)}
    assert set(ended.printed.split()) - kept == set(FAIL_POINTS)  # each killed somebody
