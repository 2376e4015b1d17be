#!/usr/bin/env python3
"""Measure the CPU time that shmtop takes, live in a terminal, and check the limits.

    python stress/top.py [--quick] [--only NAME ...] [--json FILE]

A bus with 200 endpoints, each in a process of its own, of which some have something to do, is shown
in a pseudo-terminal at the default interval; then the tail, while 10,000 messages a second pass.
A figure is the median of several windows, in percent of a core, of the CPU time of that process
alone, after it has started. It ends by itself, with exit code 1 where a figure falls short or
could not be measured. ``--quick`` has one short window each.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from benchmark.stage import CORES, cpu_seconds
from faults.roles import SMALL, TIMEOUT, dispatcher
from faults.stage import NotMeasured, stage

import shmbus

SIZE = (120, 40)  # columns and rows of the terminal
TYPES = 10  # of the jobs


# The bus ----------------------------------------------------------------------------------------


def member(connection: Connection, bus: str, number: int) -> None:
    """One of many that share the work; each has a handler of its own, too."""
    name = f"member-{number:03}"
    with shmbus.attach(bus, name=name, settings=SMALL, timeout=TIMEOUT) as endpoint:
        endpoint.subscribe(f"job.{number % TYPES}", lambda message: None, group="team")
        endpoint.handle(f"ask.{name}", lambda message: None)
        connection.send("ready")
        endpoint.run()


def source(connection: Connection, bus: str, rate: int) -> None:
    """Publishes so many jobs a second, a hundredth of them at a time."""
    with shmbus.attach(bus, name="source", timeout=TIMEOUT) as endpoint:
        connection.send("ready")
        number, due = 0, time.monotonic()
        while True:
            some = range(number, number + rate // 100)
            endpoint.publish_many((f"job.{i % TYPES}", {"number": i}) for i in some)
            number += len(some)
            due += 0.01
            time.sleep(max(due - time.monotonic(), 0.0))


# The terminal -----------------------------------------------------------------------------------


class Terminal:
    """shmtop in a pseudo-terminal; this side reads what it draws."""

    def __init__(self, bus: str) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        run = [sys.executable, "-c", "from shmtop import main; main()", bus]
        environment = os.environ | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            run, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self.drawn = 0

    def read(self, seconds: float) -> bytes:
        """What it draws within this time."""
        parts, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.ours], [], [], left)[0]:
                with contextlib.suppress(OSError):  # it has ended
                    parts.append(os.read(self.ours, 1 << 16))
                    continue
                break
        self.drawn += sum(map(len, parts))
        return b"".join(parts)

    def until(self, text: bytes) -> None:
        """Read until it has drawn this."""
        seen, end = b"", time.monotonic() + TIMEOUT
        while text not in seen:
            if time.monotonic() > end:
                raise NotMeasured(f"shmtop has not shown {text.decode()!r} for {TIMEOUT:g} s")
            seen += self.read(0.1)

    def press(self, key: str) -> None:
        os.write(self.ours, key.encode())

    def percent(self, seconds: float) -> float:
        """Of a core, that it takes during this time."""
        began, used = time.monotonic(), cpu_seconds(self.process.pid)
        self.read(seconds)
        return 100 * (cpu_seconds(self.process.pid) - used) / (time.monotonic() - began)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            end = time.monotonic() + 5
            while self.process.poll() is None and time.monotonic() < end:
                self.read(0.1)
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@contextlib.contextmanager
def terminal(bus: str) -> Iterator[Terminal]:
    this = Terminal(bus)
    try:
        this.until(b"ENDPOINT")
        yield this
    finally:
        this.end()


# The figures ------------------------------------------------------------------------------------


def table(windows: int, seconds: float) -> list[float]:
    """200 endpoints, and 1,000 jobs a second."""
    with stage() as this:
        this.ready(dispatcher, this.bus)
        for part in [this.start(member, this.bus, number) for number in range(199)]:
            part.receive()
        this.ready(source, this.bus, 1_000)
        with terminal(this.bus) as shmtop:
            shmtop.read(2.0)  # what starting left to do
            return [shmtop.percent(seconds) for _ in range(windows)]


def tail(windows: int, seconds: float) -> list[float]:
    """10,000 jobs a second, all of which the tail gets."""
    with stage() as this:
        this.ready(dispatcher, this.bus)
        for number in range(TYPES):
            this.ready(member, this.bus, number)
        this.ready(source, this.bus, 10_000)
        with terminal(this.bus) as shmtop:
            shmtop.press("t")
            shmtop.until(b"job.")
            shmtop.read(2.0)
            return [shmtop.percent(seconds) for _ in range(windows)]


FIGURES: dict[str, tuple[Callable[[int, float], list[float]], float]] = {
    "table": (table, 5.0),
    "tail": (tail, 20.0),
}
"""Each with its limit, in percent of a core."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the CPU time that shmtop takes.")
    parser.add_argument("--quick", action="store_true", help="one short window each")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=FIGURES, help="table tail")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every window here")
    options = parser.parse_args(arguments)

    shown = Table("figure", "windows", "p50", "least", "most", "limit", "", title="% of a core")
    found: list[dict[str, object]] = []
    for name, (measure, limit) in FIGURES.items():
        if options.only and name not in options.only:
            continue
        try:
            values = measure(1, 3.0) if options.quick else measure(5, 5.0)
        except NotMeasured as why:
            values = []
            print(f"{name}: not measured: {why}", file=sys.stderr)
        kept = bool(values) and median(values) < limit
        numbers = [f"{f(values):.1f}" if values else "" for f in (median, min, max)]
        word = "[green]kept" if kept else "[red]short" if values else "[red]not measured"
        shown.add_row(name, str(len(values)), *numbers, f"{limit:g}", word)
        found.append({"figure": name, "values": values, "limit": limit, "kept": kept})
    Console().print(shown)
    if options.json:
        machine = {
            "cores": CORES,
            "linux": platform.release(),
            "python": platform.python_version(),
        }
        options.json.write_text(json.dumps({"machine": machine, "figures": found}, indent=1))
    return 0 if all(each["kept"] for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
