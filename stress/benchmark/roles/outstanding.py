"""Requests to several repliers, one after another and many at a time; each is a role (stage.py)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat

import shmbus
from benchmark.measure.calls import PAYLOAD, call_rate
from benchmark.stage import Stage

OUTSTANDING = 256
THREADS = 8
TYPE = "bench.echo"

Take = Callable[[int], None]
"""Bring so many replies to Python."""


def one_after_another(endpoint: shmbus.Endpoint) -> Take:
    request = endpoint.request

    def take(count: int) -> None:
        for _ in repeat(None, count):
            request(TYPE, PAYLOAD).payload  # noqa: B018 (decoded when it is asked for)

    return take


def by_futures(endpoint: shmbus.Endpoint) -> Take:
    ask = endpoint.request_async
    under_way = deque(ask(TYPE, PAYLOAD) for _ in repeat(None, OUTSTANDING))

    def take(count: int) -> None:
        for _ in repeat(None, count):
            under_way.popleft().result().payload  # noqa: B018
            under_way.append(ask(TYPE, PAYLOAD))

    return take


def by_request_many(endpoint: shmbus.Endpoint) -> Take:
    replies = endpoint.request_many(repeat((TYPE, PAYLOAD)), window=OUTSTANDING)

    def take(count: int) -> None:
        for reply in islice(replies, count):
            if isinstance(reply, shmbus.BusError):
                raise reply
            reply.payload  # noqa: B018

    return take


def replier(stage: Stage, bus: str, number: int) -> None:
    with shmbus.attach(bus, name=f"replier-{number}", timeout=20.0) as endpoint:

        @endpoint.handle(TYPE)
        def echo(message: shmbus.Message) -> object:
            return message.payload

        stage.ready()
        endpoint.run()


def requester(
    stage: Stage,
    bus: str,
    repliers: int,
    way: Callable[[shmbus.Endpoint], Take],
    threads: int,
    seconds: float,
) -> float:
    """Replies per second, of so many threads of one endpoint."""
    with shmbus.attach(bus, name="requester", timeout=20.0) as endpoint:
        endpoint.wait_for(TYPE, receivers=repliers, timeout=20.0)
        stage.ready()
        if threads == 1:
            return call_rate(way(endpoint), seconds)
        with ThreadPoolExecutor(threads) as pool:
            rates = [pool.submit(call_rate, way(endpoint), seconds) for _ in range(threads)]
            return sum(rate.result() for rate in rates)


def locks_handed_round(stage: Stage, threads: int, seconds: float) -> float:
    """Hand-overs per second, of threads without any bus of which each waits for the one before it:
    the least that it takes to block in Python and be woken."""
    locks = [threading.Lock() for _ in range(threads)]
    for lock in locks:
        lock.acquire()
    over = False

    def follow(number: int) -> None:
        wait, wake = locks[number].acquire, locks[(number + 1) % threads].release
        last = False
        while not last:
            wait()
            last = over
            wake()

    def take(count: int) -> None:
        wait, wake = locks[0].acquire, locks[1].release
        for _ in repeat(None, count):
            wake()
            wait()

    followers = [threading.Thread(target=follow, args=(n,)) for n in range(1, threads)]
    for follower in followers:
        follower.start()
    stage.ready()
    rate = threads * call_rate(take, seconds)
    over = True
    take(1)
    for follower in followers:
        follower.join()
    return rate
