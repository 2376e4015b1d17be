"""What users of queues do, in processes of their own."""

from __future__ import annotations

import os
import signal
from typing import Any

import shmbus

Queue = shmbus.JoinableQueue[Any]


def put(queue: Queue, *values: Any) -> None:
    for value in values:
        queue.put(value)


def put_for_ever(queue: Queue, begun: Queue) -> None:
    begun.put(os.getpid())
    number = 0
    while True:
        queue.put((os.getpid(), number, b"x" * (number % 3000)))
        number += 1


def echo(questions: Queue, answers: Queue) -> None:
    """Until it gets None."""
    while (value := questions.get()) is not None:
        answers.put(value)


def echo_done(questions: Queue, answers: Queue) -> None:
    while True:
        answers.put(questions.get())
        questions.task_done()


def get_for_ever(queue: Queue, begun: Queue) -> None:
    begun.put(os.getpid())
    while True:
        queue.get()


def take_and_say(queue: Queue, said: Queue) -> None:
    """Take one, say so, and keep it in hand."""
    said.put((os.getpid(), queue.get()))
    signal.pause()


def pass_on(method: str, questions: Queue, answers: Queue) -> None:
    """To a child of this child."""
    import multiprocessing

    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=echo, args=(questions, answers))
    child.start()
    child.join()


def end_at_once(queue: Queue) -> None:
    os._exit(0)
