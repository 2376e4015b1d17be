"""The ends of any transport that carries bytes; each function is a role (stage.py).

A role gets a function that opens its end in its own process, as a context manager, and gives what
there is to call.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from benchmark.measure.calls import PAYLOAD, Latency, time_calls
from benchmark.measure.floods import Flood, receive_rate, sender_cpu
from benchmark.measure.paced import Pace, receive_stamped, send_stamped, warm_up
from benchmark.stage import Stage

T = TypeVar("T")
Opened = Callable[[], AbstractContextManager[T]]
Send = Callable[[bytes], object]
Receive = Callable[[], bytes]
Many = Callable[[int], None]
"""Sends or takes so many messages."""
Serve = Callable[[], object]
"""Answers requests with what they bring, for ever."""


def held(end: T) -> Opened[T]:
    """For an end that was there before its process was forked."""
    return lambda: nullcontext(end)


def echo(receive: Receive, send: Send) -> Serve:
    def serve() -> None:
        while True:
            send(receive())

    return serve


def many_times(send: Send) -> Many:
    """Sends one after another."""

    def send_many(count: int) -> None:
        for _ in repeat(None, count):
            send(PAYLOAD)

    return send_many


def one_by_one(receive: Callable[[], object]) -> Many:
    """Takes one after another."""

    def take(count: int) -> None:
        for _ in repeat(None, count):
            receive()

    return take


def server(stage: Stage, opened: Opened[Serve], abrupt: bool = False) -> None:
    """`abrupt` where its waits do not return for a signal: then SIGTERM ends it at once."""
    with opened() as serve:
        if abrupt:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stage.ready()
        serve()


def caller(stage: Stage, opened: Opened[Callable[[bytes], object]], seconds: float) -> Latency:
    with opened() as call:
        stage.ready()
        return time_calls(call, seconds)


def sender(stage: Stage, opened: Opened[Many], flood: Flood) -> None:
    """CPU microseconds per message."""
    with opened() as send:
        stage.ready()
        stage.report(sender_cpu(flood, send))
        stage.wait_until_stopped()  # what it has sent may need it still


def receiver(stage: Stage, opened: Opened[Many], flood: Flood) -> float:
    """Messages per second."""
    with opened() as take:
        stage.ready()
        return receive_rate(flood, take)


def publisher(stage: Stage, opened: Opened[Send], pace: Pace) -> None:
    """The rate that it held: Paced."""
    with opened() as send:
        # What is sent before all have subscribed only warms up.
        stage.ready(meanwhile=lambda: warm_up(pace, send))
        stage.report(send_stamped(pace, send, warm=20))
        stage.wait_until_stopped()


def subscriber(stage: Stage, opened: Opened[Receive], pace: Pace) -> npt.NDArray[np.int64]:
    with opened() as receive:
        receive()  # it has subscribed
        stage.ready()
        return receive_stamped(pace, iter(receive, None))
