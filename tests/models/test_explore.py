"""The explorer finds what is to be found: reorderings, deadlocks, livelocks, and nothing else."""

from __future__ import annotations

import pytest

from .explore import (
    Model,
    Program,
    View,
    explore,
    fence,
    load,
    sem_post,
    sem_wait,
    store,
    store_seq,
    until,
    until_dead,
)


def nothing_wrong(view: View) -> str | None:
    return None


def store_buffering(*, fenced: bool, buffered: bool = True) -> Model:
    """The litmus test: may both loads miss the other's store?"""

    def side(mine: str, other: str, seen: str) -> Program:
        yield store(mine, 1)
        if fenced:
            yield fence()
        found = yield load(other)
        yield store_seq(seen, found)

    def at_rest(view: View) -> str | None:
        return "both have missed" if view["seen x"] == view["seen y"] == 0 else None

    return Model(
        words={"x": 0, "y": 0, "seen x": -1, "seen y": -1},
        programs={
            "left": lambda: side("x", "y", "seen y"),
            "right": lambda: side("y", "x", "seen x"),
        },
        at_rest=at_rest,
        buffered=buffered,
    )


@pytest.mark.smoke
def test_a_store_may_wait_in_its_buffer() -> None:
    found = explore(store_buffering(fenced=False))
    assert found.wrong == "both have missed"
    assert "left: store x = 1" in found.trace


@pytest.mark.parametrize(("fenced", "buffered"), [(True, True), (False, False)])
def test_a_fence_empties_it_and_sequential_consistency_has_none(
    fenced: bool, buffered: bool
) -> None:
    assert explore(store_buffering(fenced=fenced, buffered=buffered)).wrong is None


def test_a_program_reads_its_own_buffered_store() -> None:
    def program() -> Program:
        yield store("x", 1)
        found = yield load("x")
        assert found == 1, f"read {found}"

    assert explore(Model({"x": 0}, {"program": program}, nothing_wrong)).wrong is None


def test_a_livelock_is_an_end_that_cannot_be_reached() -> None:
    def patient() -> Program:
        while (yield load("x")) == 0:
            pass

    def late() -> Program:
        yield store("x", 1)

    assert explore(Model({"x": 0}, {"patient": patient, "late": late}, nothing_wrong)).wrong is None
    found = explore(Model({"x": 0}, {"patient": patient}, nothing_wrong))
    assert found.wrong == "no end can be reached any more"


def test_faults_may_come_but_are_not_counted_upon() -> None:
    def waiter() -> Program:
        yield sem_wait("bell")

    def poster() -> Program:
        yield sem_post("bell")

    def at_rest(view: View) -> str | None:
        return "still waiting" if view.status("waiter") == "waiting" else None

    def model(kills: int = 0, freezes: int = 0, interrupts: int = 0, posts: bool = True) -> Model:
        return Model(
            words={"bell": 0},
            programs={"waiter": waiter} | ({"poster": poster} if posts else {}),
            at_rest=at_rest,
            kills=kills,
            mortal=("poster",) if posts else (),
            freezes=freezes,
            freezable=("poster",) if posts else (),
            interrupts=interrupts,
        )

    assert explore(model()).wrong is None
    assert explore(model(kills=1)).trace == ("poster is killed",)
    assert explore(model(freezes=1)).trace == ("poster is frozen",)
    assert explore(model(interrupts=1, posts=False)).wrong == "still waiting"


def test_an_heir_finds_what_was_stored() -> None:
    def first() -> Program:
        yield store("x", 1)
        yield store("x", 2)

    def heir() -> Program:
        yield fence()
        found = yield load("x")
        yield store_seq("inherited", found)

    model = Model(
        words={"x": 0, "inherited": -1},
        programs={"process": first},
        at_rest=lambda view: "two" if view["inherited"] == 2 else None,
        kills=1,
        mortal=("process",),
        heirs={"process": heir},
    )
    assert explore(model).wrong is None  # after its last step there is nothing left to kill


def test_a_death_is_known_only_when_its_stores_have_arrived() -> None:
    def doomed() -> Program:
        yield store("x", 1)
        yield until("never", 1)

    def watcher() -> Program:
        yield until_dead("doomed")
        found = yield load("x")
        yield store_seq("seen", found)

    def at_rest(view: View) -> str | None:
        seen_too_early = view.status("doomed") == "killed" and view["seen"] != view["x"]
        return "seen too early" if seen_too_early else None

    model = Model(
        words={"x": 0, "never": 0, "seen": -1},
        programs={"doomed": doomed, "watcher": watcher},
        at_rest=at_rest,
        kills=1,
        mortal=("doomed",),
    )
    assert explore(model).wrong is None


def test_what_tells_two_places_apart_must_not_be_hidden() -> None:
    def program() -> Program:
        for word in iter(["x", "x", "y"]):  # the second x looks like the first
            yield load(word)

    with pytest.raises(TypeError, match="something hidden"):
        explore(Model({"x": 0, "y": 0}, {"program": program}, nothing_wrong))
