"""What processes write: in lines, bounded, kept, and followed by others."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

import shmbus
from shmbus import errors
from shmbus.supervisor import Line
from shmbus.testing import eventually
from tests.supervisor.conftest import Supervise, shell


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


def test_lines_of_both_streams_come_in_their_order(supervise: Supervise, lines: list[Line]) -> None:
    script = "echo one; echo two >&2; printf 'three\\r\\n\\377\\nrest'"
    supervisor = supervise(shell("one", script, restart="never"))
    assert supervisor.wait(timeout=30)
    eventually(lambda: len(lines) == 5)
    assert texts(lines) == ["one", "two", "three", "\ufffd", "rest"]
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert supervisor.logs("one", last=2) == lines[-2:]
    with pytest.raises(errors.NoSuchProcess):
        supervisor.logs("two")


def test_a_line_without_end_comes_in_parts_and_is_kept_within_bounds(
    supervise: Supervise, lines: list[Line]
) -> None:
    supervisor = supervise(
        shell("endless", "head -c 3000000 /dev/zero | tr '\\0' x; echo", restart="never")
    )
    assert supervisor.wait(timeout=30)
    eventually(lambda: sum(len(text) for text in texts(lines)) == 3_000_000)
    assert max(len(text) for text in texts(lines)) == 16 << 10
    assert sum(len(line.text) for line in supervisor.logs("endless", last=1000)) <= 1 << 20


def test_one_that_writes_without_end_harms_nobody(supervise: Supervise, lines: list[Line]) -> None:
    supervisor = supervise(shell("flood", "yes"), shell("calm", "echo hi; sleep 100"))
    eventually(lambda: "hi" in texts(lines))
    eventually(lambda: len(lines) > 10_000)
    supervisor.restart("calm")
    eventually(lambda: texts(lines).count("hi") == 2)


@pytest.mark.parametrize("output", [int, sys.exit])
def test_what_takes_the_output_may_raise(
    supervise: Supervise, caplog: pytest.LogCaptureFixture, output: Callable[[Line], object]
) -> None:
    supervisor = supervise(shell("one", "echo 1; echo 2", restart="never"), output=output)
    assert supervisor.wait(timeout=30)
    eventually(lambda: texts(supervisor.logs("one")) == ["1", "2"])
    assert [record.message for record in caplog.records if "output" in record.message] == [
        "what takes the output of processes has raised"
    ]


def test_others_on_the_bus_follow_it(supervise: Supervise) -> None:
    supervisor = supervise(shell("clock", "while :; do echo tick; sleep 0.01; done"))
    with supervisor.bus.attach("client") as client:
        client.subscribe("supervisor.output.clock", payload_type=Line)
        first = client.receive(timeout=30)
        second = client.receive(timeout=30)
        assert first is not None
        assert second is not None
        assert (first.payload.text, second.payload.number) == ("tick", first.payload.number + 1)
        found = client.client(shmbus.supervisor.Control, "supervisor").logs("clock", last=1)
        assert next(found).number >= second.payload.number


def test_nothing_is_kept_of_who_is_left_out(supervise: Supervise) -> None:
    supervisor = supervise(shell("old", "echo one; sleep 1000"), shell("new", "sleep 1000"))
    eventually(lambda: supervisor.logs("old"))
    supervisor.reload([shell("new", "sleep 1000")])
    with pytest.raises(errors.NoSuchProcess):
        supervisor.logs("old")
    supervisor.reload([shell("old", "sleep 1000"), shell("new", "sleep 1000")])
    assert supervisor.logs("old") == []
