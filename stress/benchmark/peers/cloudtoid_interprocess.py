"""Cloudtoid's queue of bytes in shared memory, through its Python package."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Self

from cloudtoid_interprocess import Publisher, Subscriber

from benchmark.claims import Bench, Sample
from benchmark.measure.calls import PAYLOAD
from benchmark.roles import plain

from .row import BATCH, BATCHES, FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row
from .row import fan_out as measure_fan_out
from .row import one_way as measure_one_way
from .row import request as measure_request

CAPACITY = 1 << 20


class Queues:
    """Queues of this run alone: their files in `directory`, their semaphores with its prefix."""

    def __init__(self, bench: Bench) -> None:
        self.directory, self._prefix = bench.subdirectory(), bench.bus()

    def named(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """A process that was killed leaves its semaphore."""
        for left in Path("/dev/shm").glob(f"sem.*{self._prefix}-*"):
            left.unlink(missing_ok=True)


def _put(publisher: Publisher, payload: bytes) -> None:
    while not publisher.try_send(payload):  # full: it has no waiting send
        time.sleep(0)


@contextmanager
def _sending(queues: Queues, *names: str) -> Iterator[plain.Send]:
    with ExitStack() as stack:
        publishers = [
            stack.enter_context(Publisher(queues.named(name), CAPACITY, queues.directory))
            for name in names
        ]

        def send(payload: bytes) -> None:
            for publisher in publishers:
                _put(publisher, payload)

        yield send if len(names) > 1 else partial(_put, publishers[0])


@contextmanager
def _receiving(queues: Queues, name: str) -> Iterator[plain.Receive]:
    with Subscriber(queues.named(name), CAPACITY, queues.directory) as subscriber:
        yield subscriber.receive


@contextmanager
def _server(queues: Queues) -> Iterator[plain.Serve]:
    with _receiving(queues, "asks") as receive, _sending(queues, "answers") as send:
        yield plain.echo(receive, send)


@contextmanager
def _caller(queues: Queues) -> Iterator[Callable[[bytes], bytes]]:
    with _receiving(queues, "answers") as receive, _sending(queues, "asks") as send:

        def call(payload: bytes) -> bytes:
            send(payload)
            return receive()

        yield call


@contextmanager
def _sender(queues: Queues, batch: int) -> Iterator[plain.Many]:
    with Publisher(queues.named("flood"), CAPACITY, queues.directory) as publisher:
        chunk = [PAYLOAD] * batch

        def send_batches(count: int) -> None:
            for _ in repeat(None, count // batch):
                left = chunk
                while left := left[publisher.try_send_batch(left) :]:
                    time.sleep(0)  # full

        yield send_batches if batch > 1 else plain.many_times(partial(_put, publisher))


@contextmanager
def _receiver(queues: Queues) -> Iterator[plain.Many]:
    with _receiving(queues, "flood") as receive:
        yield plain.one_by_one(receive)


def _requests(bench: Bench) -> Sample:
    with Queues(bench) as queues:
        return measure_request(bench, partial(_server, queues), partial(_caller, queues))


def _one_way(messages: int, batch: int, bench: Bench) -> Sample:
    with Queues(bench) as queues:
        return measure_one_way(
            bench, partial(_sender, queues, batch), partial(_receiver, queues), messages
        )


def _fan_out(bench: Bench) -> Sample:
    names = [f"paced-{number}" for number in range(SUBSCRIBERS)]
    with Queues(bench) as queues:
        return measure_fan_out(
            bench,
            partial(_sending, queues, *names),
            [partial(_receiving, queues, name) for name in names],
        )


ROWS = [
    Row(
        "cloudtoid-interprocess",
        f"queues of 1 MiB; a full one is tried again after a yield; batches: `try_send_batch` of "
        f"{BATCH}; requests and fan-out as with multiprocessing's queues",
        {
            REQUEST: _requests,
            ONE_WAY: partial(_one_way, 1_000_000, 1),
            BATCHES: partial(_one_way, 1_000_000, BATCH),
            FAN_OUT: _fan_out,
        },
        by_hand=frozenset({REQUEST, FAN_OUT}),
    )
]
