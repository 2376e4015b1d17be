"""The explorer finds what is to be found: reorderings, deadlocks, livelocks, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from .explore import (
    Model,
    Program,
    Step,
    View,
    atomic,
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
from .forwarding import forwarding
from .test_forwarding_model import BACKLOG, GROUP
from .test_work_model import KILLED, TWO
from .work import work


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


@pytest.mark.parametrize(
    "model",
    [
        work(**{**TWO, "waiting": 2, "hangs": True}),
        work(**{**TWO, "waiting": 2, "hangs": True, "all_are_asked": False}),
        work(**KILLED),
        work(**KILLED, delivered_is_counted_by_the_next=False),
        work(threads=2, fence_when_done=False),
        forwarding(**{**BACKLOG, "kills": 1}),
        forwarding(**{**BACKLOG, "kills": 1, "leaving_is_in_journal": False}),
        forwarding(**GROUP, dealt_bits_are_kept=False, journal_is_adopted_first=False),
    ],
)
def test_what_nobody_else_can_see_need_not_be_explored_in_every_order(model: Model) -> None:
    fewer, all_of_them = explore(model), explore(replace(model, writers={}, private=frozenset()))
    assert fewer.wrong == all_of_them.wrong
    assert fewer.steps < all_of_them.steps


def owned(*programs: Any, **more: Any) -> Model:
    """A model in which `x` is private to the first program."""
    named = {f"program {number}": program for number, program in enumerate(programs)}
    return Model(
        {"x": 0, "y": 0},
        named,
        nothing_wrong,
        writers={"x": "program 0"},
        private=frozenset({"x"}),
        **more,
    )


def test_who_uses_the_private_word_of_another_is_found_out() -> None:
    def owner() -> Program:
        yield store_seq("x", 1)

    def reader() -> Program:
        yield load("x")

    def writer() -> Program:
        yield store("x", 2)

    raising = atomic("raise x", lambda words: words.update(x=2) or True)
    looking = atomic("look at x", lambda words: words["x"] >= 0)

    def raiser() -> Program:
        yield raising

    def looker() -> Program:
        yield looking

    assert explore(owned(owner)).wrong is None
    for other in (reader, writer):
        with pytest.raises(TypeError, match="x is private"):
            explore(owned(owner, other))
    for other in (raiser, looker):
        with pytest.raises(KeyError, match="x"):
            explore(owned(owner, other))
    with pytest.raises(TypeError, match="x is private"):
        explore(owned(owner, invariant=lambda view: "raised" if view["x"] else None))


@pytest.mark.parametrize(
    "step", [store("x", 2), atomic("raise x", lambda words: words.update(x=2) or True)]
)
def test_only_its_writer_writes_a_word(step: Step) -> None:
    def other() -> Program:
        yield step

    model = Model({"x": 0}, {"other": other}, nothing_wrong, writers={"x": "owner"})
    with pytest.raises(TypeError, match="other writes x, whose writer is 'owner'"):
        explore(model)


def test_faults_befall_also_before_a_step_that_nobody_sees() -> None:
    def owner() -> Program:
        for value in (1, 2, 3):
            yield store_seq("x", value)
        yield until("y", 1)

    def other() -> Program:
        yield store_seq("y", 1)

    found: set[tuple[int, str]] = set()

    def at_rest(view: View) -> None:
        found.add((view["x"], view.status("program 0")))

    model = owned(owner, other, kills=1, mortal=("program 0",))
    explore(replace(model, at_rest=at_rest))
    assert found == {(0, "killed"), (1, "killed"), (2, "killed"), (3, "killed"), (3, "ended")}
