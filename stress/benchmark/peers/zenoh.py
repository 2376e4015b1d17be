"""Zenoh, peer to peer: queries to a queryable, and its pub/sub. Here over a private unix socket;
the figures of links have it over loopback, as they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import zenoh

from benchmark.claims import Bench, Sample
from benchmark.roles import plain
from benchmark.roles.program import until_it_listens

from .row import FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row
from .row import fan_out as measure_fan_out
from .row import one_way as measure_one_way
from .row import request as measure_request

BLOCK = {"congestion_control": zenoh.CongestionControl.BLOCK}


@contextmanager
def _session(where: str, *, listen: bool) -> Iterator[zenoh.Session]:
    config = zenoh.Config()
    config.insert_json5("mode", '"peer"')
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("scouting/gossip/enabled", "false")
    # For larger payloads only, and it leaves files where a process is killed.
    config.insert_json5("transport/shared_memory/enabled", "false")
    endpoints = "listen" if listen else "connect"
    config.insert_json5("listen/endpoints", "[]")
    config.insert_json5(f"{endpoints}/endpoints", json.dumps([where]))
    config.insert_json5("connect/retry", "{period_init_ms: 20}")
    with zenoh.open(config) as session:
        yield session


def _until_matched(one: zenoh.Publisher | zenoh.Querier) -> None:
    def look() -> None:
        if not one.matching_status.matching:
            raise LookupError("nobody matches")

    until_it_listens(look, LookupError)


@contextmanager
def _queryable(where: str) -> Iterator[plain.Serve]:
    with _session(where, listen=True) as session:
        queryable = session.declare_queryable("bench/echo")

        def serve() -> None:
            for query in queryable:
                with query:
                    query.reply("bench/echo", query.payload)

        yield serve


@contextmanager
def _querier(where: str) -> Iterator[Callable[[bytes], bytes]]:
    with _session(where, listen=False) as session:
        querier = session.declare_querier("bench/echo")
        _until_matched(querier)

        def call(payload: bytes) -> bytes:
            for reply in querier.get(payload=payload):
                answer: bytes = reply.ok.payload.to_bytes()
                return answer
            raise RuntimeError("no reply")

        yield call


@contextmanager
def _publisher(where: str, express: bool) -> Iterator[plain.Send]:
    with _session(where, listen=True) as session:
        yield session.declare_publisher("bench/paced", express=express, **BLOCK).put


@contextmanager
def _subscriber(where: str) -> Iterator[plain.Receive]:
    with _session(where, listen=False) as session:
        subscriber = session.declare_subscriber("bench/paced")

        def receive() -> bytes:
            payload: bytes = subscriber.recv().payload.to_bytes()
            return payload

        yield receive


@contextmanager
def _sender(where: str) -> Iterator[plain.Many]:
    with _session(where, listen=True) as session:
        publisher = session.declare_publisher("bench/flood", **BLOCK)
        _until_matched(publisher)
        yield plain.many_times(publisher.put)


@contextmanager
def _receiver(where: str) -> Iterator[plain.Many]:
    with _session(where, listen=False) as session:
        received = wanted = 0
        enough = threading.Event()

        def each(sample: zenoh.Sample) -> None:
            nonlocal received
            sample.payload.to_bytes()
            received += 1
            if received >= wanted:
                enough.set()

        def take(count: int) -> None:
            nonlocal wanted
            wanted += count
            while received < wanted:
                enough.wait()
                enough.clear()

        session.declare_subscriber("bench/flood", each)
        yield take


def requests(bench: Bench, where: str) -> Sample:
    """`where`: an endpoint, as zenoh writes it."""
    return measure_request(bench, partial(_queryable, where), partial(_querier, where))


def one_way(bench: Bench, where: str, messages: int) -> Sample:
    return measure_one_way(bench, partial(_sender, where), partial(_receiver, where), messages)


def _socket(bench: Bench) -> str:
    return f"unixsock-stream/{bench.subdirectory()}/zenoh"


def _requests(bench: Bench) -> Sample:
    return requests(bench, _socket(bench))


def _one_way(bench: Bench) -> Sample:
    return one_way(bench, _socket(bench), 300_000)


def _fan_out(bench: Bench) -> Sample:
    where = _socket(bench)
    return measure_fan_out(
        bench,
        partial(_publisher, where, True),
        [partial(_subscriber, where)] * SUBSCRIBERS,
    )


ROWS = [
    Row(
        "Zenoh",
        "peers over a unix socket, discovery off, `BLOCK`; querier and queryable; one-way: a "
        "callback; fan-out: `express`",
        {REQUEST: _requests, ONE_WAY: _one_way, FAN_OUT: _fan_out},
    )
]
