"""The near end of a measurement: it makes requests, sends events, and takes the time."""

from __future__ import annotations

import array
import os
import platform
import time
from collections.abc import Callable

from shmbus import Endpoint, attach

from .figures import Crowd, Figures, Flood, Latency, new_histogram
from .processes import PATIENCE, children

SIZE = 64
SIZES = (64, 256, 1024, 4096, 16384, 65536)
LARGEST = 1_000_000
PACE = 10_000  # messages a second
BATCH = 256

Step = Callable[[float], None]


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
    with children(bus, clients or 0):
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
    histogram, rate = new_histogram(), 0.0
    for answer in (one.result().payload for one in under_way):
        histogram.decode_and_add(answer["histogram"])
        rate += answer["rate"]
    return Crowd(clients=clients, rate=rate, request=Latency.counted(histogram))
