#!/usr/bin/env python3
"""Measure how soon a death is reported, and what a killed dispatcher costs, and check the limits.

    python stress/deaths.py [--quick] [--only NAME ...] [--skip NAME ...] [--json FILE]

Every fault is real: processes that are killed, stopped, that exit, exec or dump core. Times are of
CLOCK_MONOTONIC, from just before the fault until Python has the event or error. It ends by itself,
with exit code 1 where a figure falls short or could not be measured. ``--quick`` makes 5
faults of each kind, with less memory, and asserts only that the times could be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import mmap
import os
import platform
import resource
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

import shmbus
from shmbus.host import host
from shmbus.shared import fence
from shmbus.testing import no_leavings

sys.path.insert(0, str(Path(__file__).parent))

from benchmark.stage import CORES, cpu_seconds

GIB = 1 << 30
TIMEOUT = 30.0  # seconds without what must come, after which a figure is not measured
SMALL = shmbus.Settings(ring_bytes=16 << 10)
TINY = shmbus.Settings(ring_bytes=4 << 10)
LOSSLESS = shmbus.Settings(block_timeout=TIMEOUT)  # also if a receiver does not run for a second
now = time.monotonic_ns


class NotMeasured(Exception):
    """The machine does not allow it, or an event or error did not come."""


# Processes. The parent has no threads and attaches to nothing, so that plain forks are safe.


class Part:
    """``play(connection, *arguments)`` in a process of its own, which ends with this one."""

    def __init__(self, play: Callable[..., object], *arguments: object) -> None:
        self.play = play
        self.connection, theirs = Pipe()
        self.ended: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _run(play, theirs, arguments)
        theirs.close()

    def receive(self) -> Any:
        if not self.connection.poll(TIMEOUT):
            raise NotMeasured(f"{self.play.__name__} sent nothing for {TIMEOUT:g} s")
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise NotMeasured(f"{self.play.__name__} ended and sent nothing") from None

    def send(self, word: object) -> None:
        self.connection.send(word)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, unless it has ended; return its wait status once it has."""
        if self.ended is None:
            os.kill(self.pid, how)
            return self.wait()
        return self.ended

    def wait(self) -> int:
        if self.ended is None:
            self.ended = os.waitpid(self.pid, 0)[1]
            self.connection.close()
        return self.ended


def _run(play: Callable[..., object], connection: Connection, arguments: Any) -> NoReturn:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.sched_setaffinity(0, CORES)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = 1
    try:
        play(connection, *arguments)
        code = 0
    except SystemExit:
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _leave(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit


def dispatcher(connection: Connection, bus: str, size: int = 0) -> None:
    """Sends when it took the fence."""
    held.append(resident(size))
    taken = 0
    acquire = fence.acquire

    def stamped(name: str) -> fence.Holder | None:
        nonlocal taken
        holder = acquire(name)
        taken = now()
        return holder

    fence.acquire = stamped  # type: ignore[assignment]
    host(bus, settings=LOSSLESS, ready=lambda _: connection.send(taken))


def event_subscriber(connection: Connection, bus: str) -> None:
    """Sends each event of an endpoint, and when it came."""
    with shmbus.attach(bus, name="subscriber") as endpoint:
        endpoint.subscribe("$bus.endpoint.>")
        connection.send("ready")
        for message in endpoint:
            came = now()
            connection.send((message.type.rpartition(".")[2], message.payload["pid"], came))


def caller(connection: Connection, bus: str) -> None:
    """At each message makes a request, and sends when that ended, and how."""
    with shmbus.attach(bus, name=f"caller-{os.getpid()}") as endpoint:
        connection.send("ready")
        while True:
            connection.recv()
            endpoint.wait_for("die", timeout=TIMEOUT)
            try:
                endpoint.request("die", timeout=TIMEOUT)
                connection.send((now(), "answered"))
            except shmbus.BusError as error:
                connection.send((now(), type(error).__name__))


def receiver(connection: Connection, bus: str) -> None:
    """Waits for a message of the bus, and sends when that ended, and how."""
    with shmbus.attach(bus, name="receiver") as endpoint:
        endpoint.subscribe("nothing")
        connection.send("ready")
        try:
            endpoint.receive(timeout=TIMEOUT)
            connection.send((now(), "received"))
        except shmbus.BusError as error:
            connection.send((now(), type(error).__name__))


def victim(connection: Connection, bus: str, way: str, size: int = 0) -> None:
    """Sends when it has the request in hand, and dies by ``way``, or waits for SIGKILL."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard if way == "core dump" else 0, hard))
    held.append(resident(size))
    sleep = shutil.which("sleep") or "sleep"

    def die(message: shmbus.Message) -> None:
        connection.send(now())
        if way == "os._exit":
            os._exit(3)
        if way == "exec":
            os.execv(sleep, [sleep, "600"])
        if way in ("abort", "core dump"):
            os.abort()
        while True:
            signal.pause()

    with shmbus.attach(bus, name=f"victim-{os.getpid()}") as endpoint:
        endpoint.handle("die", die)
        connection.send("ready")
        endpoint.run()


def deaf(connection: Connection, bus: str) -> None:
    """Takes nothing of what it is sent; at a message sends the time and leaves."""
    with shmbus.attach(bus, name="deaf", settings=TINY, timeout=TIMEOUT) as endpoint:
        endpoint.subscribe("news")
        connection.send("ready")
        connection.recv()
        connection.send(now())


def pusher(connection: Connection, bus: str) -> None:
    """At each message publishes until its ring is full, and sends when it could go on."""
    with shmbus.attach(bus, name="pusher", settings=TINY) as endpoint:
        connection.send("ready")
        while True:
            connection.recv()
            with contextlib.suppress(shmbus.QueueFull):
                while True:
                    endpoint.publish("news", bytes(500), timeout=0.1)
            connection.send("full")
            endpoint.publish("news", bytes(500), timeout=TIMEOUT)
            connection.send(now())


def silent(connection: Connection, bus: str) -> None:
    name = f"silent-{os.getpid()}"
    with shmbus.attach(bus, name=name, settings=SMALL, timeout=TIMEOUT) as endpoint:
        endpoint.subscribe("nothing")
        connection.send("ready")
        for _ in endpoint:
            pass


def hog(connection: Connection) -> None:
    connection.send("ready")
    while True:
        pass


held: list[mmap.mmap | None] = []  # until the process ends


def resident(size: int) -> mmap.mmap | None:
    """So many bytes, every page of them touched."""
    if not size:
        return None
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece = b"\1" * (1 << 20)
    for start in range(0, size, len(piece)):
        memory[start : start + len(piece)] = piece
    return memory


class Stage:
    """A bus of its own, and the processes on it."""

    def __init__(self) -> None:
        self.bus = f"deaths-{secrets.token_hex(4)}"
        self.parts: list[Part] = []

    def start(self, play: Callable[..., object], *arguments: object) -> Part:
        """Start it in a process of its own."""
        self.parts.append(Part(play, *arguments))
        return self.parts[-1]

    def ready(self, play: Callable[..., object], *arguments: object) -> Part:
        """Start it, and return when it has sent that it is ready."""
        part = self.start(play, *arguments)
        part.receive()
        return part

    def end(self) -> None:
        # Requesters before their servers, and the dispatcher last.
        first = [part for part in reversed(self.parts) if part.play is not dispatcher]
        for part in first + [part for part in self.parts if part.play is dispatcher]:
            part.end(signal.SIGKILL if part.play in (hog, victim) else signal.SIGTERM)


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """A stage, all of which is ended afterwards."""
    this = Stage()
    with no_leavings(this.bus):
        try:
            yield this
        finally:
            this.end()


# What is measured: milliseconds each, by figure

Samples = dict[str, list[float]]


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


FULL = Scale(200, 8, 30, 4 * GIB, GIB // 4, 50, 20, 5.0)
QUICK = Scale(5, 5, 5, GIB // 2, GIB // 16, 5, 5, 2.0)

WAYS = ("SIGKILL", "os._exit", "exec", "abort")


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


# Restarts under load: every process counts its messages


def publisher(connection: Connection, bus: str, number: int) -> None:
    with shmbus.attach(bus, name=f"publisher-{number}", reconnect=True) as endpoint:
        endpoint.wait_for("load", receivers=3, timeout=TIMEOUT)
        connection.send("ready")
        accepted = 0
        while not connection.poll():
            for _ in range(100):
                with contextlib.suppress(shmbus.QueueFull):
                    endpoint.publish("load", (number, accepted), timeout=TIMEOUT)
                    accepted += 1
        connection.recv()
        endpoint.publish("end", timeout=TIMEOUT)
        connection.send(accepted)
        connection.recv()


def subscriber(connection: Connection, bus: str, publishers: int, group: str | None) -> None:
    """Sends how often each message came, once every publisher has published its `end`."""
    times = [bytearray() for _ in range(publishers)]
    with shmbus.attach(bus, reconnect=True) as endpoint:
        endpoint.subscribe("load", group=group)
        endpoint.subscribe("end")
        connection.send("ready")
        going = publishers
        while message := endpoint.receive(None if going else 1.0):  # and none comes after all
            if message.type == "end":
                going -= 1
                continue
            number, serial = message.payload
            seen = times[number]
            if serial >= len(seen):
                seen.extend(bytes(serial + 1 - len(seen)))
            seen[serial] = min(255, seen[serial] + 1)
        connection.send([bytes(seen) for seen in times])


def echo(connection: Connection, bus: str) -> None:
    with shmbus.attach(bus, name="echo", reconnect=True) as endpoint:
        endpoint.handle("probe", lambda message: message.payload)
        connection.send("ready")
        endpoint.run()


def prober(connection: Connection, bus: str) -> None:
    """Makes requests all the time; for each fence sends when the first reply after it came."""
    with shmbus.attach(bus, name="prober", reconnect=True) as endpoint:
        endpoint.wait_for("probe", timeout=TIMEOUT)
        connection.send("ready")
        answers: list[int] = []
        while True:
            endpoint.request("probe", timeout=TIMEOUT)
            answers.append(now())
            if connection.poll():
                fenced = connection.recv()
                answers = [at for at in answers if at > fenced]
                if not answers:
                    endpoint.request("probe", timeout=TIMEOUT)
                    answers = [now()]
                connection.send(answers[0])


def restarts(scale: Scale) -> Samples:
    samples: Samples = {"resumed": []}
    with stage() as this:
        serving = this.ready(dispatcher, this.bus)
        everybody = [this.start(subscriber, this.bus, 2, group) for group in (None, None, "g", "g")]
        for part in everybody:
            part.receive()
        publishing = [this.start(publisher, this.bus, number) for number in range(2)]
        for part in publishing:
            part.receive()
        this.ready(echo, this.bus)
        probing = this.ready(prober, this.bus)
        for _ in range(scale.restarts):
            time.sleep(0.25)  # of traffic
            serving.end(signal.SIGKILL)
            this.parts.remove(serving)
            serving = this.start(dispatcher, this.bus)
            fenced = serving.receive()
            probing.send(fenced)
            samples["resumed"].append(ms(fenced, probing.receive()))
        for part in publishing:
            part.send("enough")
        accepted = [part.receive() for part in publishing]
        books = [part.receive() for part in everybody]
        for part in publishing:
            part.send("all is counted")
    lost = doubled = 0
    grouped = [
        bytes(map(sum, zip_longest(*pair, fillvalue=0))) for pair in zip(*books[2:], strict=True)
    ]
    for book in (books[0], books[1], grouped):
        for sent, times in zip(accepted, book, strict=True):
            lost += times.count(0) + max(0, sent - len(times))
            doubled += len(times) - times.count(0) - times.count(1)
    return samples | {"lost": [lost], "doubled": [doubled], "accepted": [sum(accepted)]}


# Running and reporting


@dataclass(frozen=True)
class Limit:
    """Of one figure; ``None``: none is promised."""

    middle: float | None = None
    most: float | None = None
    unit: str = "ms"
    always: bool = False  # asserted with --quick, too


@dataclass(frozen=True)
class Figure:
    name: str
    measure: Callable[[], Samples]
    samples: tuple[str, ...]  # what is to be measured
    limit: Limit
    limits: dict[str, Limit]  # of samples that differ

    def limit_of(self, sample: str) -> Limit:
        return self.limits.get(sample, self.limit)


def figures(scale: Scale) -> list[Figure]:
    prompt, large = Limit(5.0, 100.0), Limit(50.0, 100.0)
    soon = Limit(most=100.0)

    def dying(name: str, limit: Limit, ways: tuple[str, ...], count: int, **more: int) -> Figure:
        expected = tuple(f"{way}, {whom}" for way in ways for whom in ("event", "caller"))
        return Figure(name, lambda: deaths(ways, count, **more), expected, limit, {})

    return [
        dying("idle", prompt, WAYS, scale.kills),
        dying("busy", prompt, WAYS, scale.kills, hogs=len(CORES)),
        dying("crowded", prompt, WAYS, scale.kills, others=100),
        dying("large", large, ("SIGKILL",), scale.few, size=scale.memory),
        dying("core", large, ("core dump",), scale.cores, size=scale.core),
        Figure("stopped", lambda: stopped(scale), ("stalled",), Limit(most=250.0), {}),
        Figure(
            "watching", lambda: watching(scale), ("CPU",), Limit(most=1.0, unit="% of core"), {}
        ),
        Figure("bus_down", lambda: bus_down(scale.stops), ("request", "receive"), soon, {}),
        Figure(
            "large_bus_down",
            lambda: bus_down(scale.few, scale.memory),
            ("request", "receive"),
            soon,
            {},
        ),
        Figure("released", lambda: released(scale.stops), ("SIGKILL", "close"), soon, {}),
        Figure(
            "restarts",
            lambda: restarts(scale),
            ("resumed", "lost", "doubled", "accepted"),
            Limit(most=0.0, unit="messages", always=True),
            {"resumed": soon, "accepted": Limit(unit="messages")},
        ),
    ]


@dataclass(frozen=True)
class Verdict:
    figure: str
    sample: str
    values: list[float]
    limit: Limit
    asserted: bool

    @property
    def kept(self) -> bool:
        if not self.values:
            return False
        middle, most = self.limit.middle, self.limit.most
        return (middle is None or median(self.values) < middle) and (
            most is None or max(self.values) <= most
        )

    @property
    def short(self) -> bool:
        return not self.values or (self.asserted and not self.kept)


def report(verdicts: list[Verdict]) -> Table:
    columns = ("figure", "", "times", "p50", "limit", "max", "limit", "unit", "")
    table = Table(*columns, title="Deaths")
    last = ""
    for v in verdicts:
        if last and last != v.figure:
            table.add_section()
        word = "[green]kept" if v.kept else "[red]short" if v.values else "[red]not measured"
        if v.values and not v.kept and not v.asserted:
            word += "[/] (not asserted)"
        middle, most = (number(f(v.values)) if v.values else "" for f in (median, max))
        limits = [
            f"{bound:g}" if bound is not None else "" for bound in (v.limit.middle, v.limit.most)
        ]
        name = v.figure if v.figure != last else ""
        table.add_row(
            name,
            v.sample,
            str(len(v.values)),
            middle,
            limits[0],
            most,
            limits[1],
            v.limit.unit,
            word,
        )
        last = v.figure
    return table


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> int:
    names = [figure.name for figure in figures(QUICK)]
    parser = argparse.ArgumentParser(description="Measure how soon a death is reported.")
    parser.add_argument("--quick", action="store_true", help="5 faults of each kind")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=" ".join(names))
    parser.add_argument("--skip", nargs="+", metavar="NAME", choices=names, default=[])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    options = parser.parse_args(arguments)

    console = Console()
    verdicts: list[Verdict] = []
    failures: list[str] = []
    home = os.getcwd()
    for figure in figures(QUICK if options.quick else FULL):
        if figure.name not in (options.only or names) or figure.name in options.skip:
            continue
        console.print(f"{figure.name} ...", style="dim")
        with tempfile.TemporaryDirectory(prefix="shmbus-deaths-") as directory:
            os.chdir(directory)  # where core files go
            try:
                samples = figure.measure()
            except NotMeasured as why:
                samples = {}
                failures.append(f"{figure.name}: not measured: {why}")
            finally:
                os.chdir(home)
        for name in figure.samples:
            limit = figure.limit_of(name)
            asserted = limit.always or not options.quick
            verdicts.append(Verdict(figure.name, name, samples.get(name, []), limit, asserted))

    console.print(report(verdicts))
    for failure in failures:
        console.print(failure, style="red", markup=False)
    if options.json:
        machine = {
            "cores": CORES,
            "linux": platform.release(),
            "python": platform.python_version(),
        }
        figures_ = [
            {
                "figure": v.figure,
                "sample": v.sample,
                "values": v.values,
                "p50_limit": v.limit.middle,
                "max_limit": v.limit.most,
                "unit": v.limit.unit,
                "kept": v.kept,
                "asserted": v.asserted,
            }
            for v in verdicts
        ]
        report_ = {"machine": machine, "figures": figures_, "failures": failures}
        options.json.write_text(json.dumps(report_, indent=1))
    return 1 if any(verdict.short for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
