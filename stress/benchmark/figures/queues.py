"""Queues between processes: ints, a small dict and 1 KiB of bytes, from one to one and from four to
four. Each queue is made as its makers do by default, and each message is put by itself."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import import_module
from typing import Any

import shmbus
from benchmark.claims import Bench, Claim, Figure, Sample, ratio
from benchmark.measure.floods import Flood
from benchmark.peers import PEERS
from benchmark.roles.queues import BATCH, Ends, by_get_many, consumer, one_by_one, producer
from benchmark.stage import Role, perform

PAYLOADS = {
    "int": 1234,
    "dict": {"name": "camera-1", "at": (12.5, 7), "ok": True},
    "1 KiB": bytes(1024),
}
ENDS = {"1:1": 1, "4:4": 4}
GET_MANY = f"1:1, get_many of {BATCH}"
WAYS = (*ENDS, GET_MANY)


def measure(way: str, payload: str) -> str:
    return f"{way}, {payload}"


def passed(ends: Ends, each: int, payload: Any, flood: Flood) -> float:
    """Messages per second through a queue with `each` producers and consumers."""
    put, take = ends
    share = Flood(flood.messages // each)
    spans = perform(
        [
            *(Role(producer, (put, payload, share)) for _ in range(each)),
            *(Role(consumer, (take, share)) for _ in range(each)),
        ]
    )[each:]
    took: int = max(span.end for span in spans) - min(span.start for span in spans)
    return each * (share.messages - share.warm) * 1e9 / took


def rates(
    bench: Bench,
    make: Callable[[], Any],
    messages: int,
    many: Callable[[Any, int], list[Any]] | None = None,
) -> Sample:
    """`many(queue, most)` gets several at once, where it can do that."""
    sample = {}
    for name, payload in PAYLOADS.items():
        for way in WAYS:
            if way == GET_MANY and many is None:
                continue
            with closing(make()) as queue:
                put, take = one_by_one(queue)
                if many and way == GET_MANY:
                    take = by_get_many(partial(many, queue))
                flood = bench.flood(messages)
                sample[measure(way, name)] = passed((put, take), ENDS.get(way, 1), payload, flood)
    return sample


def by_faster_fifo(bench: Bench) -> Sample:
    def many(queue: Any, most: int) -> list[Any]:
        found: list[Any] = queue.get_many(max_messages_to_get=most)
        return found

    return rates(bench, import_module("faster_fifo").Queue, 150_000, many)


def ours(bench: Bench) -> Sample:
    return rates(bench, shmbus.Queue, 1_000_000, shmbus.Queue.get_many)


OURS, STANDARD, FIFO = "shmbus.Queue", "multiprocessing.Queue", "faster-fifo"


def _queues(bench: Bench) -> Figure:
    variants: dict[str, Callable[[], Sample]] = {
        OURS: partial(ours, bench),
        STANDARD: partial(rates, bench, multiprocessing.Queue, 100_000),
        "multiprocessing.SimpleQueue": partial(rates, bench, multiprocessing.SimpleQueue, 100_000),
    }
    claims = [
        Claim(
            f"{ends}, {payload}: {OURS} / {STANDARD}",
            ratio(OURS, STANDARD, measure(ends, payload)),
            10 if payload == "int" else 1,
        )
        for ends in ENDS
        for payload in PAYLOADS
    ]
    fifo = next(peer for peer in PEERS if peer.name == FIFO)
    if not (missing := fifo.absent()):
        variants[FIFO] = partial(by_faster_fifo, bench)
        claims += [
            Claim(f"{way}, {payload}: {OURS} / {FIFO}", ratio(OURS, FIFO, measure(way, payload)), 1)
            for way in WAYS
            for payload in PAYLOADS
        ]
    return Figure("queue", variants, claims, absent={FIFO: missing} if missing else {})


def figures(bench: Bench) -> list[Figure]:
    return [_queues(bench)]
