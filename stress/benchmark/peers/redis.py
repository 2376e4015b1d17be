"""Redis on a private unix socket, without persistence: its pub/sub, and lists as queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat

import redis

from benchmark.claims import Bench, Sample
from benchmark.measure.calls import PAYLOAD
from benchmark.roles import plain
from benchmark.roles.program import program, until_it_listens
from benchmark.stage import Role

from .row import BATCH, BATCHES, FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row, fan_out
from .row import one_way as measure_one_way
from .row import request as measure_request

SERVER = "redis-server"


def _server(socket: str) -> Role:
    command = [SERVER, "--port", "0", "--unixsocket", socket, "--daemonize", "no"]
    command += ["--save", "", "--appendonly", "no"]
    # Else a subscriber that is behind is disconnected.
    command += ["--client-output-buffer-limit", "pubsub 0 0 0"]
    return Role(program, (command,), supporting=True)


@contextmanager
def _client(socket: str) -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=socket) as client:
        until_it_listens(client.ping, redis.ConnectionError)
        yield client


# Lists


@contextmanager
def _list_server(socket: str) -> Iterator[plain.Serve]:
    with _client(socket) as client:

        def take() -> bytes:
            payload: bytes = client.blpop("asks")[1]
            return payload

        yield plain.echo(take, partial(client.rpush, "answers"))


@contextmanager
def _list_caller(socket: str) -> Iterator[Callable[[bytes], bytes]]:
    with _client(socket) as client:

        def call(payload: bytes) -> bytes:
            client.rpush("asks", payload)
            answer: bytes = client.blpop("answers")[1]
            return answer

        yield call


@contextmanager
def _list_sender(socket: str, batch: int) -> Iterator[plain.Many]:
    with _client(socket) as client:
        chunk = [PAYLOAD] * batch

        def send(count: int) -> None:
            for _ in repeat(None, count // batch):
                client.rpush("flood", *chunk)

        yield send


@contextmanager
def _list_receiver(socket: str, batch: int) -> Iterator[plain.Many]:
    with _client(socket) as client:

        def take(count: int) -> None:
            while count > 0:
                if batch == 1:
                    client.blpop("flood")
                    count -= 1
                else:
                    _, payloads = client.blmpop(0, 1, "flood", direction="LEFT", count=batch)
                    count -= len(payloads)

        yield take


def _list_requests(bench: Bench) -> Sample:
    socket = f"{bench.subdirectory()}/redis"
    return measure_request(
        bench, partial(_list_server, socket), partial(_list_caller, socket), _server(socket)
    )


def _list_one_way(messages: int, batch: int, bench: Bench) -> Sample:
    socket = f"{bench.subdirectory()}/redis"
    return measure_one_way(
        bench,
        partial(_list_sender, socket, batch),
        partial(_list_receiver, socket, batch),
        messages,
        _server(socket),
    )


# Publish and subscribe


@contextmanager
def _publisher(socket: str) -> Iterator[plain.Send]:
    with _client(socket) as client:
        yield partial(client.publish, "channel")


@contextmanager
def _flood_publisher(socket: str, batch: int) -> Iterator[plain.Many]:
    with _client(socket) as client:
        # A flood that nobody hears yet would be lost.
        until_it_listens(lambda: _heard(client), LookupError)
        pipeline = client.pipeline(transaction=False)

        def send(count: int) -> None:
            for _ in repeat(None, count // batch):
                for _ in repeat(None, batch):
                    pipeline.publish("channel", PAYLOAD)
                pipeline.execute()

        yield send if batch > 1 else plain.many_times(partial(client.publish, "channel"))


def _heard(client: redis.Redis) -> None:
    ((_, subscribers),) = client.pubsub_numsub("channel")
    if not subscribers:
        raise LookupError


@contextmanager
def _subscriber(socket: str) -> Iterator[plain.Receive]:
    with _client(socket) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("channel")
        messages = pubsub.listen()

        def receive() -> bytes:
            payload: bytes = next(messages)["data"]
            return payload

        yield receive


@contextmanager
def _flood_subscriber(socket: str) -> Iterator[plain.Many]:
    with _subscriber(socket) as receive:
        yield plain.one_by_one(receive)


def _published(messages: int, batch: int, bench: Bench) -> Sample:
    socket = f"{bench.subdirectory()}/redis"
    return measure_one_way(
        bench,
        partial(_flood_publisher, socket, batch),
        partial(_flood_subscriber, socket),
        messages,
        _server(socket),
    )


def _fan_out(bench: Bench) -> Sample:
    socket = f"{bench.subdirectory()}/redis"
    return fan_out(
        bench,
        partial(_publisher, socket),
        [partial(_subscriber, socket)] * SUBSCRIBERS,
        _server(socket),
    )


_SERVER_OPTIONS = "unix socket, hiredis parser, no persistence"
ROWS = [
    Row(
        "Redis, lists",
        f"{_SERVER_OPTIONS}; RPUSH and BLPOP, batches: RPUSH of {BATCH} and BLMPOP",
        {
            REQUEST: _list_requests,
            ONE_WAY: partial(_list_one_way, 10_000, 1),
            BATCHES: partial(_list_one_way, 300_000, BATCH),
        },
        by_hand=frozenset({REQUEST}),
    ),
    Row(
        "Redis, pub/sub",
        f"{_SERVER_OPTIONS}, no limit of output buffers; batches: a pipeline of {BATCH}",
        {
            ONE_WAY: partial(_published, 10_000, 1),
            BATCHES: partial(_published, 100_000, BATCH),
            FAN_OUT: _fan_out,
        },
    ),
]
