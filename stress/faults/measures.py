"""One fault after another, and the milliseconds until others know of it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from benchmark.stage import cpu_seconds

from .roles import (
    caller,
    deaf,
    dispatcher,
    event_subscriber,
    hog,
    now,
    pusher,
    receiver,
    silent,
    victim,
)
from .stage import NotMeasured, Part, Stage, stage

Samples = dict[str, list[float]]
"""Milliseconds each, by figure."""


@dataclass(frozen=True)
class Scale:
    kills: int  # of each kind
    few: int  # of what costs much memory
    cores: int
    memory: int  # bytes of the largest
    core: int  # bytes of one that dumps core
    stops: int
    restarts: int
    quiet: float  # seconds


def ms(since: int, until: int) -> float:
    return (until - since) / 1e6


def death(this: Stage, subscribed: Part, requesting: Part, way: str, size: int = 0) -> list[float]:
    """Kill one: milliseconds to the event, and to the error of its pending caller."""
    dying = this.ready(victim, this.bus, way, size)
    requesting.send("request")
    at = dying.receive()  # it has the request in hand
    if way == "SIGKILL":
        at = now()
        os.kill(dying.pid, signal.SIGKILL)
    ended, how = requesting.receive()
    if how != "EndpointDied":
        raise NotMeasured(f"a caller got {how} when its server died ({way})")
    came = event(subscribed, "down", dying.pid)
    if way == "exec":
        os.kill(dying.pid, signal.SIGKILL)
    status = dying.wait()
    this.parts.remove(dying)
    if way == "core dump" and not os.WCOREDUMP(status):
        raise NotMeasured("this machine does not let a process dump core")
    return [ms(at, came), ms(at, ended)]


def event(subscribed: Part, kind: str, pid: int) -> int:
    """When the event of that kind about that process came."""
    while True:
        what, who, came = subscribed.receive()
        if (what, who) == (kind, pid):
            return int(came)


def deaths(
    ways: tuple[str, ...], count: int, *, size: int = 0, hogs: int = 0, others: int = 0
) -> Samples:
    samples: Samples = {}
    with stage() as this:
        this.ready(dispatcher, this.bus)
        for part in [this.start(silent, this.bus) for _ in range(others)]:
            part.receive()
        subscribed = this.ready(event_subscriber, this.bus)
        requesting = this.ready(caller, this.bus)
        for _ in range(hogs):
            this.ready(hog)
        for way in ways:
            for _ in range(count):
                both = death(this, subscribed, requesting, way, size)
                for whom, took in zip(("event", "caller"), both, strict=True):
                    samples.setdefault(f"{way}, {whom}", []).append(took)
    return samples


def stopped(scale: Scale) -> Samples:
    took: list[float] = []
    with stage() as this:
        this.ready(dispatcher, this.bus)
        subscribed = this.ready(event_subscriber, this.bus)
        sleeper = this.ready(silent, this.bus)
        for _ in range(scale.stops):
            at = now()
            os.kill(sleeper.pid, signal.SIGSTOP)
            try:
                took.append(ms(at, event(subscribed, "stalled", sleeper.pid)))
            finally:
                os.kill(sleeper.pid, signal.SIGCONT)
            event(subscribed, "resumed", sleeper.pid)
    return {"stalled": took}


def watching(scale: Scale) -> Samples:
    """Percent of a core that the dispatcher's process takes while all are silent."""
    with stage() as this:
        serving = this.ready(dispatcher, this.bus)
        for part in [this.start(silent, this.bus) for _ in range(100)]:
            part.receive()
        time.sleep(1.0)  # what the attaching left to do
        began, used = now(), cpu_seconds(serving.pid)
        time.sleep(scale.quiet)
        used = cpu_seconds(serving.pid) - used
        return {"CPU": [1e11 * used / (now() - began)]}


def bus_down(count: int, size: int = 0) -> Samples:
    """A caller that waits for a reply, and a receiver, when the dispatcher is killed."""
    samples: Samples = {"request": [], "receive": []}
    for _ in range(count):
        with stage() as this:
            serving = this.ready(dispatcher, this.bus, size)
            dying = this.ready(victim, this.bus, "SIGKILL")
            waiting = {
                "request": this.ready(caller, this.bus),
                "receive": this.ready(receiver, this.bus),
            }
            waiting["request"].send("request")
            dying.receive()
            at = now()
            os.kill(serving.pid, signal.SIGKILL)
            for who, part in waiting.items():
                ended, how = part.receive()
                if how != "BusDown":
                    raise NotMeasured(f"a {who} got {how} when the dispatcher died")
                samples[who].append(ms(at, ended))
            serving.wait()
            for part in this.parts:
                part.end(signal.SIGKILL)
            this.ready(dispatcher, this.bus)  # which frees what they left
    return samples


def released(count: int) -> Samples:
    """A sender that waits for space in the ring of one that is killed, or leaves."""
    samples: Samples = {"SIGKILL": [], "close": []}
    with stage() as this:
        this.ready(dispatcher, this.bus)
        pushing = this.ready(pusher, this.bus)
        for way, took in samples.items():
            for _ in range(count):
                full = this.ready(deaf, this.bus)
                pushing.send("push")
                pushing.receive()
                time.sleep(0.02)  # until it waits
                at = now()
                if way == "SIGKILL":
                    os.kill(full.pid, signal.SIGKILL)
                else:
                    full.send("leave")
                    at = full.receive()
                took.append(ms(at, pushing.receive()))
                full.wait()
                this.parts.remove(full)
    return samples
