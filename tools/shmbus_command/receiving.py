"""``shmbus sub``."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Literal

import click
from shmbus_console.messages import envelope, payload_alone, pretty
from shmbus_console.options import raw_options, refuse_both
from shmbus_console.output import encoded, flush, note, print_json, write
from shmbus_console.run import usual_end

from shmbus import Message

from .attaching import attach_now
from .streaming import receiving_options, stream
from .to_files import Files


@click.command()
@receiving_options
@click.option(
    "--group", "-g", metavar="NAME", help="Join this queue group and get a share of its events."
)
@click.option(
    "--lossless",
    is_flag=True,
    help="Make publishers wait for this subscriber, up to the bus's --block-timeout, instead of "
    "losing events.",
)
@click.option(
    "--history",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="First the last N values of each type that the bus keeps (pub --retain).",
)
@click.option(
    "--latest",
    is_flag=True,
    help="Of each type the newest alone: pass over what comes faster than it can be printed.",
)
@click.option("--rate", is_flag=True, help="Each second, how many came and how far apart.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write each payload to a file in DIR, named by type and number: arrays as .npy, "
    "several, or beside other values, as .npz, bytes as they are (.bin), text as .txt, the rest as "
    ".json, or .msgpack where JSON has not all of it; print the names.",
)
@raw_options
def sub(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    wait: float | None,
    group: str | None,
    lossless: bool,
    history: int,
    latest: bool,
    rate: bool,
    out: Path | None,
    as_raw: bool,
    delimiter: bytes,
    reconnect: bool,
    as_json: bool,
) -> None:
    """Subscribe and print the events that come, until Ctrl-C.

    PATTERN is a type of message in which a token may be * (any one) and the last > (one or more);
    by default >, which is everything but the bus's own events ('$bus.>').
    """
    refuse_both(as_json, as_raw, delimiter)
    for option, given in (("--lossless", lossless), ("--group", group)):
        if latest and given:
            raise click.UsageError(f"--latest and {option} exclude each other")
    if group and history:
        raise click.UsageError("--group and --history exclude each other")
    overflow: Literal["latest", "block", "drop_newest"] = (
        "latest" if latest else "block" if lossless else "drop_newest"
    )
    if out is not None and (rate or as_raw):
        raise click.UsageError("--out writes files: leave out --rate and --raw")
    meter = Meter(as_json) if rate else None
    files = Files(out) if out is not None else None

    def each(message: Message[Any]) -> None:
        if meter is not None:
            meter.count(message)
        elif files is not None:
            saved = str(files.save(message))
            if as_json:
                about = {"type": message.type, "source": message.source, "size": message.size}
                print_json({**about, "file": saved})
            else:
                write(encoded(saved))
        elif as_json:
            print_json(envelope(message))
        else:
            write(payload_alone(message), delimiter) if as_raw else write(pretty(message))

    with attach_now(bus, "sub", wait, reconnect=reconnect) as endpoint, usual_end():
        for pattern in patterns or (">",):
            endpoint.subscribe(pattern, group=group, overflow=overflow, history=history)
        note("sub", f"subscribed on {endpoint.bus.name}")
        try:
            tick = meter.tick if meter else None
            stream("sub", endpoint, count, timeout, each, tick, one_by_one=files is not None)
        finally:
            if meter is not None:
                meter.report()
                flush()


class Meter:
    """Counts messages and bytes, and measures the time between messages."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._messages = self._bytes = self._lost = 0
        self._gaps: list[float] = []
        self._last: int | None = None

    def count(self, message: Message[Any]) -> None:
        self._messages += 1
        self._bytes += message.size
        self._lost += message.lost
        if self._last is not None:
            self._gaps.append((message.sent_ns - self._last) / 1e9)
        self._last = message.sent_ns

    def tick(self) -> None:
        if time.monotonic() - self._began >= 1.0:
            self.report()

    def report(self) -> None:
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        gaps = self._gaps or [0.0]
        found = {
            "rate": self._messages / seconds,
            "bytes_per_second": self._bytes / seconds,
            "gap_min": min(gaps),
            "gap_max": max(gaps),
            "gap_deviation": statistics.pstdev(gaps),
            "lost": self._lost,
        }
        if self._as_json:
            print_json(found)
        else:
            gap = "  ".join(f"{word} {found[f'gap_{word}'] * 1e3:.3f}" for word in ("min", "max"))
            write(
                f"{found['rate']:.1f} messages/s  {found['bytes_per_second'] / 1024:.1f} KiB/s  "
                f"apart in ms: {gap}  deviation {found['gap_deviation'] * 1e3:.3f}  "
                f"lost {self._lost}".encode()
            )
        self._began, self._messages, self._bytes, self._lost, self._gaps = now, 0, 0, 0, []
