"""A queue goes to children as one of multiprocessing does, and to nobody else."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest

import shmbus
from shmbus.testing import eventually, in_shm, run_python

from .conftest import Start
from .users import echo, end_at_once, pass_on, put

Make = Callable[..., shmbus.JoinableQueue[Any]]


@pytest.mark.smoke
def test_what_was_put_before_a_child_began_is_there_for_it(make: Make, start: Start) -> None:
    questions, answers = make(), make()
    for number in range(5000):
        questions.put(number)
    questions.put(None)
    start(echo, questions, answers)
    assert [answers.get(timeout=30) for _ in range(5000)] == list(range(5000))


@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_child_may_take_a_queue_up_though_its_parent_has_dropped_it(
    make: Make, method: str
) -> None:
    questions, answers = make(), make()
    put(questions, "hello", None)
    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=echo, args=(questions, answers))
    child.start()
    del questions
    child._args = ()
    assert answers.get(timeout=30) == "hello"
    child.join(30)


def test_a_forked_child_has_the_queues_of_its_parent(bus_name: str) -> None:
    printed = run_python(
        """
        import os, sys, shmbus
        questions, answers = (shmbus.Queue(bus=sys.argv[1]) for _ in range(2))
        questions.put("hello")
        if not os.fork():
            answers.put(questions.get())
            sys.exit()  # and leaves
        questions.close()
        print(answers.get(timeout=30))
        os.wait()
        """,
        bus_name,
    )
    assert printed == "hello\n"
    assert not in_shm(bus_name)


@pytest.mark.slow
def test_a_child_passes_a_queue_on_to_its_children(make: Make, start: Start) -> None:
    questions, answers = make(), make()
    child = multiprocessing.get_context("spawn").Process(
        target=pass_on, args=("forkserver", questions, answers)
    )
    child.start()
    put(questions, "hello", None)
    assert answers.get(timeout=30) == "hello"
    child.join(30)


def test_a_queue_goes_to_children_only_as_they_are_made(make: Make) -> None:
    queue = make()
    for attempt in (pickle.dumps, copy.copy):
        with pytest.raises(RuntimeError, match="inheritance"):
            attempt(queue)
    with pytest.raises(RuntimeError, match="inheritance"):
        make().put(queue)


def test_what_is_taken_up_too_late_says_so(bus_name: str, make: Make) -> None:
    from multiprocessing import context
    from multiprocessing.reduction import ForkingPickler

    queue = make()
    context.set_spawning_popen(cast(Any, queue))
    try:
        passed = bytes(ForkingPickler.dumps(queue))
    finally:
        context.set_spawning_popen(None)
    eventually(lambda: in_shm(bus_name))
    for file in in_shm(bus_name):
        (shmbus.shared.names.SHM / file).unlink()
    with pytest.raises(shmbus.errors.QueueGone, match="is gone") as raised:
        pickle.loads(passed)
    assert raised.value.queue == queue.name


def test_an_initializer_of_a_pool_may_have_one(make: Make) -> None:
    queue = make()
    context = multiprocessing.get_context("forkserver")
    with context.Pool(2, initializer=put, initargs=(queue, "begun")) as pool:
        assert [queue.get(timeout=30) for _ in range(2)] == ["begun", "begun"]
        pool.close()
        pool.join()


def test_a_child_that_ends_at_once_takes_no_message_with_it(make: Make, start: Start) -> None:
    queue = make()
    put(queue, 1, 2)
    start(end_at_once, queue).join()
    assert [queue.get(timeout=30), queue.get(timeout=30)] == [1, 2]
    assert queue.lost == 0
