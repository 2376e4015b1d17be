"""faster-fifo's queue, between forked processes, with bytes that nothing pickles."""

from __future__ import annotations

from functools import partial
from itertools import repeat

import faster_fifo

from benchmark.claims import Bench, Sample
from benchmark.measure.calls import PAYLOAD
from benchmark.roles import plain

from .row import BATCH, BATCHES, FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row
from .row import fan_out as measure_fan_out
from .row import one_way as measure_one_way
from .row import request as measure_request


def _queue() -> faster_fifo.Queue:
    return faster_fifo.Queue(1_000_000, dumps=bytes, loads=bytes)  # its default size


def _requests(bench: Bench) -> Sample:
    asks, answers = _queue(), _queue()

    def call(payload: bytes) -> bytes:
        asks.put(payload)
        answer: bytes = answers.get()
        return answer

    return measure_request(
        bench,
        plain.held(plain.echo(asks.get, answers.put)),
        plain.held(call),
        abrupt=True,
    )


def _one_way(messages: int, bench: Bench) -> Sample:
    queue = _queue()
    return measure_one_way(
        bench,
        plain.held(plain.many_times(queue.put)),
        plain.held(plain.one_by_one(queue.get)),
        messages,
    )


def _batches(messages: int, bench: Bench) -> Sample:
    queue, chunk = _queue(), [PAYLOAD] * BATCH

    def send(count: int) -> None:
        for _ in repeat(None, count // BATCH):
            queue.put_many(chunk)

    def take(count: int) -> None:
        while count > 0:
            count -= len(queue.get_many(max_messages_to_get=min(BATCH, count)))

    return measure_one_way(bench, plain.held(send), plain.held(take), messages)


def _fan_out(bench: Bench) -> Sample:
    queues = [_queue() for _ in range(SUBSCRIBERS)]

    def publish(payload: bytes) -> None:
        for queue in queues:
            queue.put(payload)

    return measure_fan_out(bench, plain.held(publish), [plain.held(q.get) for q in queues])


ROWS = [
    Row(
        "faster-fifo",
        f"`dumps` and `loads` that leave bytes alone; batches: `put_many`, `get_many` of {BATCH}; "
        "requests and fan-out as with multiprocessing's queues",
        {
            REQUEST: _requests,
            ONE_WAY: partial(_one_way, 150_000),
            BATCHES: partial(_batches, 500_000),
            FAN_OUT: _fan_out,
        },
        by_hand=frozenset({REQUEST, FAN_OUT}),
    )
]
