"""Frames from one process to others: the same work, whoever carries them; each function is a role
(stage.py).

A producer writes each frame into memory that its carrier gives it, or that it has itself, and sends
it; a consumer reads each where its carrier shows it, and checks what it reads. How much of it they
write and read is the :class:`Work`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmark.roles.plain import Opened
from benchmark.stage import Stage

Frame = npt.NDArray[np.uint64]
Use = Callable[[Frame], None]
Send = Callable[[int, Use], None]
"""Sends a frame of so many bytes, once it is written."""
Take = Callable[[Use], None]
"""Takes the next frame, until it is read."""


class Work(NamedTuple):
    """How much of each frame is written and read: the first cache line, or all."""

    name: str
    write_all: bool
    read_all: bool


LINE = Work("a line", write_all=False, read_all=False)
WRITTEN = Work("written", write_all=True, read_all=False)
ALL = Work("written and read", write_all=True, read_all=True)


class Spell(NamedTuple):
    """Frames of one size for so many seconds; the first ones warm up and are not measured."""

    nbytes: int
    work: Work
    seconds: float

    def __str__(self) -> str:
        size = f"{self.nbytes >> 20} MiB" if self.nbytes >> 20 else f"{self.nbytes >> 10} KiB"
        return f"{size}, {self.work.name}"


WARM = 32  # frames: as many places as any carrier has for them
LEAST = 8  # frames that are measured
WARMS, COUNTS, ENDS = 0, 1, 2
"""The second word of a frame; the first is its number."""


def produce(send: Send, spell: Spell) -> None:
    number, what = 0, WARMS

    def write(frame: Frame) -> None:
        if spell.work.write_all:
            frame.fill(number)
        frame[0] = number
        frame[1] = what

    start = perf_counter()
    for number in count():
        now = perf_counter()
        if what == WARMS:
            if number >= WARM and now - start > spell.seconds / 5:
                what, start, first = COUNTS, now, number
        elif now - start > spell.seconds and number >= first + LEAST:
            what = ENDS
        send(spell.nbytes, write)
        if what == ENDS:
            return


def consume(take: Take, spell: Spell) -> float:
    """Microseconds per frame; ``ValueError`` if one is missing or is not what was written."""
    number, what = 0, WARMS

    def read(frame: Frame) -> None:
        nonlocal what
        what = frame.item(1)
        if frame.item(0) != number:
            raise ValueError(f"frame {frame.item(0)} came in place of {number}")
        if spell.work.read_all and frame.sum() != number * (frame.size - 1) + what:
            raise ValueError(f"frame {number} is not what was written")

    for number in count():
        before = what
        take(read)
        if what != before:
            if what == COUNTS:
                start, first = perf_counter(), number
            else:
                return 1e6 * (perf_counter() - start) / (number - first)
    raise AssertionError


def producer(stage: Stage, opened: Opened[Send], spells: Sequence[Spell]) -> None:
    with opened() as send:
        stage.ready()
        for spell in spells:
            produce(send, spell)
        stage.report(None)
        stage.wait_until_stopped()  # what it has sent may need it still


def consumer(stage: Stage, opened: Opened[Take], spells: Sequence[Spell]) -> list[float]:
    """Microseconds per frame, of each spell."""
    with opened() as take:
        stage.ready()
        return [consume(take, spell) for spell in spells]
