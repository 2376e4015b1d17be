"""iceoryx2: samples in place, received by polling, and after an event for each.

Its files lie under a root and with a prefix of this benchmark's own, which alone are removed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import iceoryx2

from benchmark.claims import Bench, Sample
from benchmark.measure.calls import PAYLOAD
from benchmark.roles import plain

from .row import FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row
from .row import fan_out as measure_fan_out
from .row import one_way as measure_one_way
from .row import request as measure_request

BUFFER = 1024
"""Samples that a subscriber may be behind."""


class Payload(ctypes.Structure):
    _fields_ = (("data", ctypes.c_uint8 * len(PAYLOAD)),)


_look = iceoryx2.Duration.from_millis(50)


@contextmanager
def _files(bench: Bench) -> Iterator[iceoryx2.config.Config]:
    root, prefix = bench.subdirectory(), f"{bench.bus()}_"
    config = iceoryx2.config.default()
    config.global_cfg.root_path = iceoryx2.Path.new(root)
    config.global_cfg.prefix = iceoryx2.FileName.new(prefix)
    try:
        yield config
    finally:
        for left in Path("/dev/shm").glob(f"{prefix}*"):
            left.unlink(missing_ok=True)


def _node(config: iceoryx2.config.Config) -> iceoryx2.Node:
    iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
    return (
        iceoryx2.NodeBuilder.new()
        .config(config)
        .signal_handling_mode(iceoryx2.SignalHandlingMode.Disabled)
        .create(iceoryx2.ServiceType.Ipc)
    )


def _event(node: iceoryx2.Node, name: str) -> iceoryx2.PortFactoryEvent:
    return node.service_builder(iceoryx2.ServiceName.new(name)).event().open_or_create()


def _samples(node: iceoryx2.Node) -> iceoryx2.PortFactoryPublishSubscribe:
    return (
        node.service_builder(iceoryx2.ServiceName.new("samples"))
        .publish_subscribe(Payload)
        .enable_safe_overflow(False)  # else the oldest is overwritten
        .subscriber_max_buffer_size(BUFFER)
        .open_or_create()
    )


def _calls(node: iceoryx2.Node) -> iceoryx2.PortFactoryRequestResponse:
    return (
        node.service_builder(iceoryx2.ServiceName.new("calls"))
        .request_response(Payload, Payload)
        .open_or_create()
    )


Poll = Callable[[], Any]


def _polled(poll: Poll, wait: Callable[[], object] | None) -> Poll:
    """What `poll` brings, once it brings something; `wait` rests until then."""

    def take() -> Any:
        while (taken := poll()) is None:
            if wait is not None:
                wait()
        return taken

    return take


def _waiting(node: iceoryx2.Node, name: str, events: bool) -> Callable[[], object] | None:
    if not events:
        return None
    listener = _event(node, name).listener_builder().create()
    return partial(listener.timed_wait, _look)


def _notifying(node: iceoryx2.Node, name: str, events: bool) -> Callable[[], object]:
    if not events:
        return lambda: None
    notify: Callable[[], object] = _event(node, name).notifier_builder().create().notify
    return notify


@contextmanager
def _server(config: iceoryx2.config.Config, events: bool) -> Iterator[plain.Serve]:
    node = _node(config)
    server = _calls(node).server_builder().create()
    receive = _polled(server.receive, _waiting(node, "asked", events))
    notify = _notifying(node, "answered", events)

    def serve() -> None:
        while True:
            asked = receive()
            asked.send_copy(asked.payload().contents)
            notify()

    yield serve


@contextmanager
def _caller(config: iceoryx2.config.Config, events: bool) -> Iterator[Callable[[bytes], bytes]]:
    node = _node(config)
    client = _calls(node).client_builder().create()
    wait = _waiting(node, "answered", events)
    notify = _notifying(node, "asked", events)

    def call(payload: bytes) -> bytes:
        pending = client.send_copy(Payload.from_buffer_copy(payload))
        notify()
        return bytes(_polled(pending.receive, wait)().payload().contents)

    yield call


@contextmanager
def _publisher(config: iceoryx2.config.Config, names: list[str]) -> Iterator[plain.Send]:
    """`names`: of the events that it notifies of."""
    node = _node(config)
    publisher = (
        _samples(node)
        .publisher_builder()
        .backpressure_strategy(iceoryx2.BackpressureStrategy.RetryUntilDelivered)
        .create()
    )
    notifiers = [_notifying(node, name, True) for name in names]

    def send(payload: bytes) -> None:
        publisher.send_copy(Payload.from_buffer_copy(payload))
        for notify in notifiers:
            notify()

    yield send


@contextmanager
def _subscriber(config: iceoryx2.config.Config, name: str | None) -> Iterator[plain.Receive]:
    """`name`: of the event that it waits for; without, it polls."""
    node = _node(config)
    subscriber = _samples(node).subscriber_builder().create()
    receive = _polled(subscriber.receive, _waiting(node, name or "", name is not None))

    def take() -> bytes:
        return bytes(receive().payload().contents)

    yield take


@contextmanager
def _sender(config: iceoryx2.config.Config, names: list[str]) -> Iterator[plain.Many]:
    with _publisher(config, names) as send:
        yield plain.many_times(send)


@contextmanager
def _receiver(config: iceoryx2.config.Config, name: str | None) -> Iterator[plain.Many]:
    with _subscriber(config, name) as receive:
        yield plain.one_by_one(receive)


def _requests(events: bool, bench: Bench) -> Sample:
    with _files(bench) as config:
        return measure_request(
            bench, partial(_server, config, events), partial(_caller, config, events)
        )


def _one_way(events: bool, messages: int, bench: Bench) -> Sample:
    with _files(bench) as config:
        return measure_one_way(
            bench,
            partial(_sender, config, ["sent"] if events else []),
            partial(_receiver, config, "sent" if events else None),
            messages,
        )


def _fan_out(bench: Bench) -> Sample:
    with _files(bench) as config:
        return measure_fan_out(
            bench,
            partial(_publisher, config, ["sent"]),
            [partial(_subscriber, config, "sent")] * SUBSCRIBERS,
        )


_OPTIONS = f"a `ctypes.Structure`, no overflow, `RetryUntilDelivered`, buffers of {BUFFER}"
ROWS = [
    Row(
        "iceoryx2, polling",
        f"{_OPTIONS}; receivers look without a pause, each with a core for itself: so no fan-out",
        {
            REQUEST: partial(_requests, False),
            ONE_WAY: partial(_one_way, False, 300_000),
        },
    ),
    Row(
        "iceoryx2, events",
        f"{_OPTIONS}; an event service wakes the receivers",
        {
            REQUEST: partial(_requests, True),
            ONE_WAY: partial(_one_way, True, 100_000),
            FAN_OUT: _fan_out,
        },
    ),
]
