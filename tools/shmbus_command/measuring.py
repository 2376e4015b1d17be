"""What `shmbus bench` measures: a bus between processes on this machine."""

from __future__ import annotations

import array
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from shmbus import Endpoint, Message, Settings, attach
from shmbus.host import uninterrupted

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)
SIZE = 64
SIZES = (64, 256, 1024, 4096, 16384, 65536)
LARGEST = 1_000_000
PACE = 10_000  # messages a second
BATCH = 256
PATIENCE = 60.0
RING = 4 << 20
_SETTINGS = Settings(in_bytes=RING, out_bytes=RING, reply_bytes=RING)

Step = Callable[[float], None]


def _histogram() -> HdrHistogram:
    return HdrHistogram(1, 60_000_000_000, 3)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of times, in seconds."""

    count: int
    mean: float
    percentiles: dict[str, float]
    histogram: str
    """The whole distribution, in nanoseconds, as HdrHistogram encodes it."""

    @classmethod
    def of(cls, nanoseconds: array.array[int]) -> Latency:
        histogram = _histogram()
        for value in nanoseconds:
            histogram.record_value(max(value, 1))
        return cls.counted(histogram)

    @classmethod
    def counted(cls, histogram: HdrHistogram) -> Latency:
        """What a histogram says, of nanoseconds."""
        return cls(
            count=histogram.get_total_count(),
            mean=histogram.get_mean_value() / 1e9,
            percentiles={f"{p:g}": histogram.get_value_at_percentile(p) / 1e9 for p in PERCENTILES},
            histogram=histogram.encode().decode(),
        )

    def curve(self) -> list[tuple[float, float]]:
        """Percentiles (0 to 100) and seconds, from end to end."""
        histogram = HdrHistogram.decode(self.histogram)
        return [
            (step.percentile_level_iterated_to, step.value_iterated_to / 1e9)
            for step in histogram.get_percentile_iterator(5)
        ]


class Flood(msgspec.Struct, frozen=True, kw_only=True):
    """As many messages as possible, in one direction."""

    size: int
    """Bytes of each payload."""
    batch: int
    """Messages published at a time."""
    rate: float
    """Messages a second, each received in Python."""
    bytes_per_second: float
    """Of payload."""
    lost: int


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of several clients at the same time, each a process that makes one after another."""

    clients: int
    rate: float
    """Requests a second, of all of them together."""
    request: Latency
    """Of all of them."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, between two processes through the dispatcher, a third."""

    machine: str
    seconds: float
    size: int = 64
    """Bytes of the payloads of requests and events."""
    request: Latency
    """From the call of ``request`` to its return."""
    event: Latency
    """From ``publish`` to the receiver's callback, at 10,000 messages a second at most."""
    routing_mean: float
    """Of these events, from ring to ring."""
    routing_p99: float
    floods: tuple[Flood, ...]
    crowd: Crowd | None = None
    """None: it was not asked for."""


def measure(
    seconds: float,
    progress: Callable[[str, float], None],
    *,
    size: int | None = None,
    clients: int | None = None,
) -> Figures:
    """Measure everything, in about so many seconds. ``size``: of all payloads, in bytes; None: 64,
    and floods of several sizes. ``clients``: so many at the same time, too."""
    bus = f"bench-{os.getpid()}"
    payload, series = bytes(SIZE if size is None else size), SIZES if size is None else ()
    parts = {"requests": 0.25, "events": 0.2, "flood": 0.1, "batches": 0.1}
    parts |= {f"{size} bytes": 0.35 / len(series) for size in series}
    parts |= {"clients": 0.25} if clients else {}
    whole = sum(parts.values())
    passed = 0.0

    def step(what: str) -> tuple[float, Step]:
        """How long it takes, and what to call meanwhile."""
        nonlocal passed
        before, share = passed, parts[what] / whole
        passed += share
        return seconds * share, lambda done: progress(what, before + share * min(done, 1.0))

    began = time.monotonic()
    with _children(bus, clients or 0):
        with attach(bus, name="near", timeout=PATIENCE) as near:
            near.wait_for("bench.echo", timeout=PATIENCE)
            near.wait_for("bench.flood", timeout=PATIENCE)
            near.wait_for("bench.paced", timeout=PATIENCE)
            requests(near, payload, 0.2, lambda done: None)  # warm
            request = Latency.of(requests(near, payload, *step("requests")))
            near.bus.health()  # `recent_latency` begins here
            event = _events(near, payload, *step("events"))
            routing = near.bus.health().recent_latency
            floods = [
                _flood(near, len(payload), 1, *step("flood")),
                _flood(near, len(payload), BATCH, *step("batches")),
            ]
            floods += [_flood(near, size, BATCH, *step(f"{size} bytes")) for size in series]
            crowd = _crowd(near, clients, len(payload), *step("clients")) if clients else None
    return Figures(
        machine=f"{len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}",
        seconds=time.monotonic() - began,
        size=len(payload),
        request=request,
        event=event,
        routing_mean=routing.mean,
        routing_p99=routing.p99,
        floods=tuple(floods),
        crowd=crowd,
    )


def requests(near: Endpoint, payload: bytes, seconds: float, step: Step) -> array.array[int]:
    """Make requests one after another; how long each took, in nanoseconds."""
    times = array.array("q")
    clock, request = time.perf_counter_ns, near.request
    began = now = clock()
    end = began + int(seconds * 1e9)
    while now < end:
        for _ in range(50):
            start = clock()
            request("bench.echo", payload, timeout=PATIENCE)
            now = clock()
            times.append(now - start)
        step((now - began) / (seconds * 1e9))
    return times


def _events(near: Endpoint, payload: bytes, seconds: float, step: Step) -> Latency:
    """Ten at a time, a thousand times a second; the sender sleeps in between."""
    began = time.monotonic()
    for chunk in range(int(seconds * PACE / 10)):
        rest = began + chunk * 10 / PACE - time.monotonic()
        if rest < -seconds:  # it cannot keep pace with payloads as large as these
            break
        if rest > 0:
            time.sleep(rest)
        for _ in range(10):
            near.publish("bench.paced", payload, timeout=PATIENCE)
        if chunk % 100 == 0:
            step(chunk * 10 / (seconds * PACE))
    times = near.request("bench.times", timeout=PATIENCE).payload
    return Latency.of(array.array("q", times))


def _flood(near: Endpoint, size: int, batch: int, seconds: float, step: Step) -> Flood:
    payload = bytes(size)
    near.request("bench.count", timeout=PATIENCE)
    many = [("bench.flood", payload)] * batch
    sent, began = 0, time.monotonic()
    now, next_step = began, began
    while now < began + seconds:
        if batch == 1:
            for _ in range(100):
                near.publish("bench.flood", payload, timeout=PATIENCE)
            sent += 100
        else:
            near.publish_many(many, timeout=PATIENCE)
            sent += batch
        now = time.monotonic()
        if now >= next_step:
            next_step = now + 0.1
            step((now - began) / seconds)
    received = near.request("bench.count", timeout=PATIENCE).payload  # after all of them
    took = time.monotonic() - began
    return Flood(
        size=size,
        batch=batch,
        rate=received / took,
        bytes_per_second=received * size / took,
        lost=sent - received,
    )


def _crowd(near: Endpoint, clients: int, size: int, seconds: float, step: Step) -> Crowd:
    """Let all clients make requests at the same time."""
    types = [f"bench.client.{number}" for number in range(clients)]
    for type in types:
        near.wait_for(type, timeout=PATIENCE)
    began = time.monotonic()
    ask = {"size": size, "seconds": seconds}
    under_way = [near.request_async(type, ask, timeout=seconds + PATIENCE) for type in types]
    while not all(one.done() for one in under_way):
        step((time.monotonic() - began) / seconds)
        time.sleep(0.05)
    histogram, rate = _histogram(), 0.0
    for answer in (one.result().payload for one in under_way):
        histogram.decode_and_add(answer["histogram"])
        rate += answer["rate"]
    return Crowd(clients=clients, rate=rate, request=Latency.counted(histogram))


def client(bus: str, number: str) -> None:
    """One of several clients: makes requests for as long as it is told."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with attach(bus, name=f"client-{number}", timeout=PATIENCE, settings=_SETTINGS) as endpoint:

        def work(message: Message) -> dict[str, Any]:
            payload, seconds = bytes(message.payload["size"]), message.payload["seconds"]
            began = time.monotonic()
            times = requests(endpoint, payload, seconds, lambda done: None)
            rate = len(times) / (time.monotonic() - began)
            return {"rate": rate, "histogram": Latency.of(times).histogram}

        endpoint.handle(f"bench.client.{number}", work)
        endpoint.run()


def far(bus: str) -> None:
    """The other process: it echoes, counts, and notes when events arrive."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    times = array.array("q")
    count = 0
    with attach(bus, name="far", timeout=PATIENCE, settings=_SETTINGS) as endpoint:

        def paced(message: Message) -> None:
            times.append(time.monotonic_ns() - message.sent_ns)

        def counted(message: Message) -> int:
            nonlocal count
            found, count = count, 0
            return found

        endpoint.handle("bench.echo", lambda message: message.payload)
        endpoint.handle("bench.times", lambda message: times.tolist())
        endpoint.handle("bench.count", counted)
        endpoint.subscribe("bench.paced", paced)
        endpoint.subscribe("bench.flood")
        for _ in endpoint:
            count += 1


@contextmanager
def _children(bus: str, clients: int) -> Iterator[None]:
    """The dispatcher and the other processes, which are ended afterwards."""
    python = [sys.executable, "-P"]
    # Rings into which a batch of the largest messages fits; no message is lost to a full ring.
    serve = f"from shmbus import Settings, host; host.host({bus!r}, "
    serve += f"settings=Settings(in_bytes={RING}, out_bytes={RING}, reply_bytes={RING}, "
    serve += f"block_timeout={PATIENCE}))"
    commands = [
        [*python, "-c", serve],
        [*python, "-c", f"from shmbus_command import measuring as m; m.far({bus!r})"],
    ]
    for number in range(clients):
        code = f"from shmbus_command import measuring as m; m.client({bus!r}, '{number}')"
        commands.append([*python, "-c", code])
    children = []
    try:
        for command in commands:
            # In process groups of their own: Ctrl-C reaches this process alone.
            with uninterrupted():
                child = subprocess.Popen(command, process_group=0, stderr=subprocess.DEVNULL)
                children.append(child)
        yield
    finally:
        for child in reversed(children):  # the dispatcher last, so that the others can detach
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
