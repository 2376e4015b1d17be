"""pyzmq over ``ipc``: through its own proxy in a process of its own, and without."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Sample
from benchmark.figures.events import pyzmq_paced
from benchmark.figures.oneway import pyzmq_direct, pyzmq_flood
from benchmark.figures.requests import pyzmq_requests
from benchmark.measure.paced import at_the_last
from benchmark.roles import peers
from benchmark.stage import FREE, Role, perform

from .row import FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row, fan_out_pace


def _proxied_fan_out(bench: Bench) -> Sample:
    return pyzmq_paced(bench, fan_out_pace(bench), SUBSCRIBERS)


def _direct_request(bench: Bench) -> Sample:
    address = peers.Address(bench.subdirectory())
    (latency,) = perform(
        [
            Role(peers.replier, (address, True), supporting=True),
            Role(peers.requester, (address, bench.scale.seconds)),
        ]
    )
    return {"p50": latency.p50, "p99": latency.p99}


def _direct_fan_out(bench: Bench) -> Sample:
    address, pace = peers.Address(bench.subdirectory()), fan_out_pace(bench)
    _, *took = perform(
        [
            Role(peers.publisher, (address, pace, True)),
            *(Role(peers.subscriber, (address, pace)) for _ in range(SUBSCRIBERS)),
        ]
    )
    return at_the_last(took)


ROWS = [
    Row(
        "pyzmq, proxy",
        "`ipc`, `zmq.proxy` in a process of its own; REQ and REP, PUSH and PULL, PUB and SUB with "
        "no high-water mark",
        {
            REQUEST: partial(pyzmq_requests, place=FREE),
            ONE_WAY: pyzmq_flood,
            FAN_OUT: _proxied_fan_out,
        },
    ),
    Row(
        "pyzmq, direct",
        "the same sockets, connected to each other",
        {REQUEST: _direct_request, ONE_WAY: pyzmq_direct, FAN_OUT: _direct_fan_out},
    ),
]
