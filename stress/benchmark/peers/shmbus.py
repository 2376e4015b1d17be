"""The bus itself: requests to a handler, events to subscribers, all through its dispatcher."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Sample
from benchmark.figures.events import bus_paced
from benchmark.figures.oneway import bus_flood
from benchmark.figures.requests import bus_requests
from benchmark.stage import FREE

from .row import BATCH, BATCHES, FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row, fan_out_pace


def _fan_out(bench: Bench) -> Sample:
    return bus_paced(bench, fan_out_pace(bench), SUBSCRIBERS)


ROWS = [
    Row(
        "shmbus",
        "default settings; batches: `Endpoint.batch`",
        {
            REQUEST: partial(bus_requests, place=FREE),
            ONE_WAY: bus_flood,
            BATCHES: partial(bus_flood, batch=BATCH),
            FAN_OUT: _fan_out,
        },
    )
]
