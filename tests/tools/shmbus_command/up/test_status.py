"""How the processes of `shmbus up` are shown."""

from __future__ import annotations

import click
import msgspec
from shmbus_command.up.status import has_failed, summary, table

from shmbus.supervisor import ProcessStatus

FOUND = [
    ProcessStatus(name="indexer", state="running", since=100.0, pid=41, attached=("indexer",)),
    ProcessStatus(name="mail", state="running", since=100.0, pid=42, adopted=True, restarts=2),
    ProcessStatus(
        name="web", state="waiting", since=160.0, reason="nobody handles index.query", code=3
    ),
    ProcessStatus(
        name="search", state="failed", since=190.0, reason="10 restarts in 60 s", signal="SIGSEGV"
    ),
    ProcessStatus(name="report", state="asleep", since=100.0),
]


def test_each_process_has_a_row_that_says_how_it_is_and_why() -> None:
    lines = list(map(click.unstyle, table(FOUND, now=220.0)))
    rows = [line.split() for line in lines]
    assert rows[1] == ["indexer", "running", "41", "2", "min", "0", "s", "0", "-", "indexer"]
    assert rows[2][:3] == ["mail", "running,", "adopted"]
    assert rows[3][1:6] == ["waiting", "-", "60", "s", "0"]
    assert lines[3].endswith("exit 3    -          nobody handles index.query")
    assert "SIGSEGV" in lines[4]
    assert lines[4].endswith("10 restarts in 60 s")


def test_one_line_tells_what_needs_attention_first_and_by_name() -> None:
    assert summary(FOUND) == "1 failed (search), 1 waiting (web), 2 running, 1 asleep"
    assert summary(FOUND[:2]) == "2 running"


def test_who_has_ended_for_good_otherwise_than_with_0_has_failed() -> None:
    assert [one.name for one in FOUND if has_failed(one)] == ["search"]
    ended = ProcessStatus(name="once", state="ended", since=100.0, code=0)
    assert not has_failed(ended)
    assert has_failed(msgspec.structs.replace(ended, code=3))
    assert has_failed(msgspec.structs.replace(ended, code=None, signal="SIGKILL"))
    assert not has_failed(msgspec.structs.replace(ended, code=None))  # adopted: nobody knows
