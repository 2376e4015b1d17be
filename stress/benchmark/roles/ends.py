"""The ends of a bus under measurement, and its dispatcher; each function is a role (stage.py)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice, repeat

import numpy as np
import numpy.typing as npt

import shmbus
from benchmark.measure.calls import PAYLOAD, Latency, time_calls
from benchmark.measure.floods import Flood, receive_rate, sender_cpu, sender_turns
from benchmark.measure.paced import Pace, Paced, receive_stamped, send_stamped
from benchmark.measure.typed import READING, Reading
from benchmark.stage import Stage, busy_thread


def dispatcher(
    stage: Stage,
    bus: str,
    settings: shmbus.Settings | None = None,
    busy: bool = False,
    grants: dict[str, shmbus.Grant | None] | None = None,
) -> None:
    """An embedded dispatcher; with `busy`, beside a thread that computes in pure Python."""
    with ExitStack() as stack:
        if busy:
            stack.enter_context(busy_thread())
        stack.enter_context(shmbus.serve(bus, settings=settings, grants=grants))
        stage.ready()
        stage.wait_until_stopped()


def replier(stage: Stage, bus: str) -> None:
    with shmbus.attach(bus, name="replier", timeout=20.0) as endpoint:

        @endpoint.handle("bench.echo")
        def echo(message: shmbus.Message) -> object:
            return message.payload

        stage.ready()
        endpoint.run()


class Echo:
    def echo(self, payload: bytes) -> bytes:
        return payload


def offerer(stage: Stage, bus: str) -> None:
    with shmbus.attach(bus, name="offerer", timeout=20.0) as endpoint:
        endpoint.offer(Echo(), "bench")
        stage.ready()
        endpoint.run()


def requester(stage: Stage, bus: str, seconds: float, typed: bool = False) -> Latency:
    with shmbus.attach(bus, name="requester", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.echo", timeout=20.0)
        request = endpoint.request

        def call(payload: bytes) -> object:
            return request("bench.echo", payload).payload

        stage.ready()
        return time_calls(endpoint.client(Echo, "bench").echo if typed else call, seconds)


def sender(
    stage: Stage, bus: str, flood: Flood, batch: int | None = None, typed: bool = False
) -> float:
    """CPU microseconds per message."""
    with shmbus.attach(bus, name="sender", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.flood", timeout=20.0)
        payload = READING if typed else PAYLOAD

        def send(count: int) -> None:
            publish = endpoint.publish
            for _ in repeat(None, count):
                publish("bench.flood", payload)

        def send_batched(count: int) -> None:
            with endpoint.batch(max_messages=batch) as publications:
                publish = publications.publish
                for _ in repeat(None, count):
                    publish("bench.flood", payload)

        stage.ready()
        return sender_cpu(flood, send_batched if batch else send)


def turning_sender(stage: Stage, bus: str, flood: Flood) -> tuple[float, float]:
    """Messages per second of ``publish`` and of batches of one, which take turns."""
    with shmbus.attach(bus, name="sender", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.flood", timeout=20.0)

        def spell(publish: Callable[..., None]) -> Callable[[int], None]:
            def send(count: int) -> None:
                for _ in repeat(None, count):
                    publish("bench.flood", PAYLOAD)

            return send

        stage.ready()
        with endpoint.batch(max_messages=1) as publications:
            return sender_turns(flood, spell(endpoint.publish), spell(publications.publish))


def receiver(
    stage: Stage, bus: str, flood: Flood, typed: bool = False, pattern: str = "bench.flood"
) -> float:
    """Messages per second."""
    with shmbus.attach(bus, name="receiver", timeout=20.0) as endpoint:
        endpoint.subscribe(pattern, payload_type=Reading if typed else None)

        def take(count: int) -> None:
            for message in islice(endpoint, count):
                message.payload  # noqa: B018 (decoded when it is asked for)

        stage.ready()
        return receive_rate(flood, take)


def publisher(stage: Stage, bus: str, pace: Pace, receivers: int) -> tuple[Paced, float, int]:
    """The rate that it held, the bus's mean routing latency meanwhile (µs), and what was lost."""
    with shmbus.attach(bus, name="publisher", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.paced", receivers=receivers, timeout=20.0)
        publish = endpoint.publish
        stage.ready()
        bus_view = endpoint.bus
        before = bus_view.health()
        held = send_stamped(pace, lambda payload: publish("bench.paced", payload), warm=20)
        after = bus_view.health()
        return held, after.recent_latency.mean * 1e6, after.lost - before.lost


def subscriber(stage: Stage, bus: str, number: int, pace: Pace) -> npt.NDArray[np.int64]:
    with shmbus.attach(bus, name=f"subscriber-{number}", timeout=20.0) as endpoint:
        endpoint.subscribe("bench.paced")
        stage.ready()
        return receive_stamped(pace, (message.payload for message in endpoint))


def silent(stage: Stage, bus: str, first: int, count: int, settings: shmbus.Settings) -> None:
    """Endpoints that are attached and do nothing else."""
    with ExitStack() as stack:
        for number in range(first, first + count):
            stack.enter_context(
                shmbus.attach(bus, name=f"silent-{number}", timeout=30.0, settings=settings)
            )
        stage.ready()
        stage.wait_until_stopped()


def idle(stage: Stage, bus: str, number: int) -> None:
    """An endpoint that waits for messages that never come."""
    with shmbus.attach(bus, name=f"idle-{number}", timeout=20.0) as endpoint:
        endpoint.subscribe("bench.never")
        stage.ready()
        endpoint.receive()
