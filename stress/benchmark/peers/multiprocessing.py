"""The standard library's queues and pipes, between forked processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial

from benchmark.claims import Bench, Sample
from benchmark.roles import plain

from .row import FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row, fan_out, one_way, request

Ends = tuple[plain.Send, plain.Receive]


def _queue() -> Ends:
    queue: multiprocessing.Queue[bytes] = multiprocessing.Queue()
    return queue.put, queue.get


def _pipe() -> Ends:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    return sending.send_bytes, receiving.recv_bytes


def _requests(ends: Callable[[], Ends], bench: Bench) -> Sample:
    (ask, take), (answer, get) = ends(), ends()

    def call(payload: bytes) -> bytes:
        ask(payload)
        return get()

    return request(bench, plain.held(plain.echo(take, answer)), plain.held(call))


def _one_way(ends: Callable[[], Ends], messages: int, bench: Bench) -> Sample:
    put, get = ends()
    return one_way(
        bench,
        plain.held(plain.many_times(put)),
        plain.held(plain.one_by_one(get)),
        messages,
    )


def _fan_out(ends: Callable[[], Ends], bench: Bench) -> Sample:
    pairs = [ends() for _ in range(SUBSCRIBERS)]

    def publish(payload: bytes) -> None:
        for put, _ in pairs:
            put(payload)

    return fan_out(
        bench,
        plain.held(publish),
        [plain.held(get) for _, get in pairs],
    )


def _row(name: str, ends: Callable[[], Ends], options: str, messages: int) -> Row:
    figures = {
        REQUEST: partial(_requests, ends),
        ONE_WAY: partial(_one_way, ends, messages),
        FAN_OUT: partial(_fan_out, ends),
    }
    return Row(name, options, figures, by_hand=frozenset({REQUEST, FAN_OUT}))


ROWS = [
    _row(
        "multiprocessing.Queue",
        _queue,
        "requests: a queue there and one back; fan-out: a queue for each",
        100_000,
    ),
    _row(
        "multiprocessing.Pipe",
        _pipe,
        "`send_bytes`, one-way pipes; requests and fan-out as with queues",
        150_000,
    ),
]
