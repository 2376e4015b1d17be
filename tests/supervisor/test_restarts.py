"""How soon a process is started again, and in which order all are: without any process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmbus import errors
from shmbus.supervisor import Backoff, Process
from shmbus.supervisor.order import cycle, waves
from shmbus.supervisor.process import check_processes
from shmbus.supervisor.restarts import Restarts

NAMES = st.sampled_from("abcdef")
NEEDED = st.dictionaries(NAMES, st.sets(NAMES))


def test_the_first_is_at_once_and_the_delay_doubles_until_it_is_given_up() -> None:
    restarts = Restarts(Backoff(first=0.1, longest=0.5, limit=6, within=60))
    found = [restarts.after(now, ran=0.0) for now in range(7)]
    assert found == [0.0, 0.1, 0.2, 0.4, 0.5, 0.5, None]
    assert restarts.total == 6


def test_who_has_run_for_long_begins_anew() -> None:
    restarts = Restarts(Backoff(limit=2, within=10))
    assert [restarts.after(now, ran=10.0) for now in range(5)] == [0.0] * 5


@given(st.lists(st.floats(0, 20)), st.integers(0, 5))
def test_within_the_time_there_are_never_more_than_the_limit(
    pauses: list[float], limit: int
) -> None:
    restarts, now = Restarts(Backoff(limit=limit, within=10)), 0.0
    when: list[float] = []
    for pause in pauses:
        now += pause
        if restarts.after(now, ran=0.0) is not None:
            when.append(now)
        assert len([one for one in when if one > now - 10]) <= limit


@given(NEEDED)
def test_each_comes_once_and_behind_all_that_it_needs(needed: dict[str, set[str]]) -> None:
    found = waves(needed)
    assert sorted(name for wave in found for name in wave) == sorted(needed)
    if cycle({name: others - {name} for name, others in needed.items()}):
        return
    place = {name: number for number, wave in enumerate(found) for name in wave}
    for name, others in needed.items():
        assert all(place[other] < place[name] for other in others - {name} if other in place)


@given(NEEDED)
def test_a_ring_is_one(needed: dict[str, set[str]]) -> None:
    ring = cycle(needed)
    for name, other in zip(ring, [*ring[1:], *ring[:1]], strict=True):
        assert other in needed[name]


def of(name: str, **options: object) -> Process:
    return Process(name=name, command=("true",), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("processes", "why"),
    [
        ([of("a"), of("a")], "another has the same name"),
        ([of("a", on=("x",), needs=("y",)), of("b", on=("y",), needs=("x",))], "a -> b -> a"),
        ([of("a", needs=("a..b",))], "is not a pattern"),
        ([of("a b")], "cannot name"),
        ([of("supervisor")], "the supervisor's own endpoint"),
        ([of("a", start="first message")], "which message starts it"),
        ([of("a", stop_timeout=-1.0)], "below 0"),
        ([Process(name="a", target="a.py")], "cannot be imported"),
        ([Process(name="a", command=("a",), target="a:b")], "both a command and a target"),
        (["a"], "of type str"),
        ([Process(name="a", command=("a", 5))], "expected `str`, got `int`"),  # type: ignore[arg-type]
        ([of("a", directory=Path("/"))], "directory=.*expected `str"),
        ([of("a", needs="index")], "needs='index': expected `array`"),
        ([of("a", on="job")], "on='job': expected `array`"),
        ([of("a", endpoints="p")], "endpoints='p'"),
        ([of("a", environment={"PORT": 8080})], "environment=.*expected `str`, got `int`"),
        ([of("a", environment={"A=B": "1"})], "a variable 'A=B'"),
        ([of("a", environment={"A": "x\0"})], "NUL"),
        ([of("a", restart="sometimes")], "restart='sometimes'"),
        ([of("a", start="later")], "start='later'"),
        ([of("a", overdue="kill")], "overdue='kill'"),
        ([of("a", group=5)], "group=5"),
        ([of("a", grant={"publish": ["a"]})], "grant=.*got `dict`"),
        ([of("a", stop_timeout="5")], "stop_timeout='5'"),
        ([of("a", stop_timeout=float("nan"))], "not finite"),
        ([of("a", backoff=None)], "backoff=None"),
        ([of("a", backoff=Backoff(first="1"))], "backoff.first='1'"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_supervised_is_named(processes: list[Process], why: str) -> None:
    with pytest.raises(errors.InvalidProcess, match=why):
        check_processes(processes)


def test_many_may_wait_in_a_row() -> None:
    row = {f"p{n}": [f"p{n + 1}"] for n in range(1200)}
    assert cycle(row) == []
    assert cycle({**row, "p1200": ["p1198"]}) == ["p1198", "p1199", "p1200"]
