"""``shmbus bench``: latency and throughput of a bus on this machine."""

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
from pathlib import Path

import click
import msgspec
from hdrh.histogram import HdrHistogram
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from shmbus_console.options import json_option, seconds_option
from shmbus_console.output import print_json
from shmbus_console.text import columns, duration

from shmbus import Endpoint, Message, Settings, attach
from shmbus.host import uninterrupted

from . import plot

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)
SIZES = (64, 256, 1024, 4096, 16384, 65536)
PAYLOAD = b"\0" * 64
PACE = 10_000  # messages a second
BATCH = 256
PATIENCE = 60.0
RING = 4 << 20

Step = Callable[[float], None]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of times, in seconds."""

    count: int
    mean: float
    percentiles: dict[str, float]
    histogram: str
    """The whole distribution, in nanoseconds, as HdrHistogram encodes it."""

    @classmethod
    def of(cls, nanoseconds: array.array[int]) -> Latency:
        histogram = HdrHistogram(1, 60_000_000_000, 3)
        for value in nanoseconds:
            histogram.record_value(max(value, 1))
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


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, between two processes through the dispatcher, a third."""

    machine: str
    seconds: float
    request: Latency
    """From the call of ``request`` to its return."""
    event: Latency
    """From ``publish`` to the receiver's callback, at 10,000 messages a second."""
    routing_mean: float
    """Of these events, from ring to ring."""
    routing_p99: float
    floods: tuple[Flood, ...]


@click.command(short_help="Measure latency and throughput of a bus on this machine.")
@seconds_option("--seconds", "30s", least="1s", most="1h", help="About how long it takes.")
@click.option("--svg", type=click.Path(dir_okay=False, writable=True), help="Write the plot there.")
@json_option
def bench(seconds: float, svg: str | None, as_json: bool) -> None:
    """Measure latency and throughput of a bus on this machine, in half a minute.

    Two processes exchange messages of 64 bytes through the dispatcher, a third: requests one after
    the other, events at a steady pace, and as many events as possible, for several sizes. It serves
    a bus of its own. What else runs on the machine affects the figures.
    """
    bar = Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        console=Console(stderr=True),
        transient=True,
        disable=as_json or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("bench", total=1.0)

        def progress(what: str, part: float) -> None:
            bar.update(task, description=what, completed=part)

        figures = measure(seconds, progress)
    if svg is not None:
        Path(svg).write_text(plot.svg(_curves(figures), _rates(figures), figures.machine))
    if as_json:
        print_json(figures)
    else:
        _show(figures)


# Measuring --------------------------------------------------------------------------------------


def measure(seconds: float, progress: Callable[[str, float], None]) -> Figures:
    """Measure everything, in about so many seconds."""
    bus = f"bench-{os.getpid()}"
    parts = {"requests": 0.25, "events": 0.2, "flood": 0.1, "batches": 0.1}
    parts |= {f"{size} bytes": 0.35 / len(SIZES) for size in SIZES}
    passed = 0.0

    def step(what: str) -> tuple[float, Step]:
        """How long it takes, and what to call meanwhile."""
        nonlocal passed
        before, share = passed, parts[what]
        passed += share
        return seconds * share, lambda done: progress(what, before + share * min(done, 1.0))

    began = time.monotonic()
    with _children(bus):
        with attach(bus, name="near", timeout=PATIENCE) as near:
            near.wait_for("bench.echo", timeout=PATIENCE)
            near.wait_for("bench.flood", timeout=PATIENCE)
            near.wait_for("bench.paced", timeout=PATIENCE)
            _requests(near, 0.2, lambda done: None)  # warm
            request = _requests(near, *step("requests"))
            near.bus.health()  # `recent_latency` begins here
            event = _events(near, *step("events"))
            routing = near.bus.health().recent_latency
            floods = [
                _flood(near, 64, 1, *step("flood")),
                _flood(near, 64, BATCH, *step("batches")),
            ]
            floods += [_flood(near, size, BATCH, *step(f"{size} bytes")) for size in SIZES]
    return Figures(
        machine=f"{len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}",
        seconds=time.monotonic() - began,
        request=request,
        event=event,
        routing_mean=routing.mean,
        routing_p99=routing.p99,
        floods=tuple(floods),
    )


def _requests(near: Endpoint, seconds: float, step: Step) -> Latency:
    times = array.array("q")
    clock, request = time.perf_counter_ns, near.request
    began = now = clock()
    end = began + int(seconds * 1e9)
    while now < end:
        for _ in range(500):
            start = clock()
            request("bench.echo", PAYLOAD, timeout=PATIENCE)
            now = clock()
            times.append(now - start)
        step((now - began) / (seconds * 1e9))
    return Latency.of(times)


def _events(near: Endpoint, seconds: float, step: Step) -> Latency:
    """Ten at a time, a thousand times a second; the sender sleeps in between."""
    began = time.monotonic()
    for chunk in range(int(seconds * PACE / 10)):
        rest = began + chunk * 10 / PACE - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        for _ in range(10):
            near.publish("bench.paced", PAYLOAD, timeout=PATIENCE)
        if chunk % 100 == 0:
            step(chunk * 10 / (seconds * PACE))
    times = near.request("bench.times", timeout=PATIENCE).payload
    return Latency.of(array.array("q", times))


def _flood(near: Endpoint, size: int, batch: int, seconds: float, step: Step) -> Flood:
    payload = b"\0" * size
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


def far(bus: str) -> None:
    """The other process: it echoes, counts, and notes when events arrive."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    times = array.array("q")
    count = 0
    settings = Settings(in_bytes=RING, out_bytes=RING, reply_bytes=RING)
    with attach(bus, name="far", timeout=PATIENCE, settings=settings) as endpoint:

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
def _children(bus: str) -> Iterator[None]:
    """The dispatcher and the other process, which are ended afterwards."""
    python = [sys.executable, "-P"]
    # Rings into which a batch of the largest messages fits; no message is lost to a full ring.
    serve = f"from shmbus import Settings, host; host.host({bus!r}, "
    serve += f"settings=Settings(in_bytes={RING}, out_bytes={RING}, reply_bytes={RING}, "
    serve += f"block_timeout={PATIENCE}))"
    commands = [
        [*python, "-c", serve],
        [*python, "-c", f"from shmbus_command import bench; bench.far({bus!r})"],
    ]
    children = []
    try:
        for command in commands:
            # In process groups of their own: Ctrl-C reaches this process alone.
            with uninterrupted():
                child = subprocess.Popen(command, process_group=0, stderr=subprocess.DEVNULL)
                children.append(child)
        yield
    finally:
        for child in reversed(children):  # the dispatcher last, so that the other can detach
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


# Showing ----------------------------------------------------------------------------------------


def _curves(figures: Figures) -> dict[str, list[tuple[float, float]]]:
    return {"request and reply": figures.request.curve(), "event": figures.event.curve()}


def _rates(figures: Figures) -> list[tuple[str, float]]:
    return [(plot.size(f.size), f.rate) for f in figures.floods[2:]]


def _show(figures: Figures) -> None:
    click.echo(f"{figures.machine}; {figures.seconds:.0f} s\n")
    heads = ["LATENCY", "COUNT", "MEAN", *(f"p{p:g}" if p < 100 else "MAX" for p in PERCENTILES)]
    rows = [
        [name, f"{of.count:,}", duration(of.mean), *map(duration, of.percentiles.values())]
        for name, of in (("request and reply", figures.request), ("event", figures.event))
    ]
    click.echo("\n".join(columns(heads, rows)))
    click.echo(
        f"routing of these events: mean {duration(figures.routing_mean)}, "
        f"p99 {duration(figures.routing_p99)}\n"
    )
    click.echo("\n".join(plot.curves(_curves(figures))) + "\n")
    heads = ["THROUGHPUT", "MESSAGES/s", "MB/s", "LOST"]
    rows = [
        [
            f"{plot.size(f.size)}, {'one by one' if f.batch == 1 else f'batches of {f.batch}'}",
            f"{f.rate:,.0f}",
            f"{f.bytes_per_second / 1e6:,.1f}",
            f"{f.lost:,}",
        ]
        for f in figures.floods[:2]
    ]
    rows += [
        [plot.size(f.size), f"{f.rate:,.0f}", f"{f.bytes_per_second / 1e6:,.1f}", f"{f.lost:,}"]
        for f in figures.floods[2:]
    ]
    click.echo("\n".join(columns(heads, rows)) + "\n")
    click.echo("\n".join(plot.bars(_rates(figures))))
