"""Commands that print what comes: sub, tap."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import click
from shmbus_console.messages import envelope, payload_alone, pretty, tapped
from shmbus_console.options import bus_option, complete_type, json_option, seconds_option
from shmbus_console.output import flush, note, print_json, write
from shmbus_console.run import TIMED_OUT

from shmbus import Endpoint, Message, errors

from .attaching import attach_now, wait_for_bus

_AT_ONCE = 256  # messages that are printed before the output is flushed
_REQUESTS = 10_000  # whose times a tap keeps until their replies come
_DOZE = 0.2  # seconds that a receive waits; so long a closed pipe may go unnoticed


def _receiving(command: Any) -> Any:
    """What sub and tap have in common."""
    for option in (
        json_option,
        click.option(
            "--reconnect", is_flag=True, help="Wait for the next dispatcher where one dies."
        ),
        wait_for_bus,
        seconds_option(
            "--timeout",
            help="End after so long; with exit code 4 if --count is given and fewer came.",
        ),
        click.option(
            "--count", "-n", type=click.IntRange(1), metavar="N", help="End after so many."
        ),
        bus_option,
        click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_type),
    ):
        command = option(command)
    return command


@click.command()
@_receiving
@click.option(
    "--group", "-g", metavar="NAME", help="Join this queue group and get a share of its events."
)
@click.option(
    "--lossless",
    is_flag=True,
    help="Make publishers wait for this subscriber, up to the bus's --block-timeout, instead of "
    "losing events.",
)
@click.option("--rate", is_flag=True, help="Each second, how many came and how far apart.")
@click.option("--raw", "as_raw", is_flag=True, help="Print payloads alone, bytes as they are.")
def sub(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    wait: float | None,
    group: str | None,
    lossless: bool,
    rate: bool,
    as_raw: bool,
    reconnect: bool,
    as_json: bool,
) -> None:
    """Subscribe and print the events that come, until Ctrl-C.

    PATTERN is a type of message in which a token may be * (any one) and the last > (one or more);
    by default >, which is everything but the bus's own events ('$bus.>').
    """
    meter = Meter(as_json) if rate else None

    def each(message: Message[Any]) -> None:
        if meter is not None:
            meter.count(message)
        elif as_json:
            print_json(envelope(message))
        else:
            write(payload_alone(message, as_raw=True) if as_raw else pretty(message))

    with attach_now(bus, "sub", wait, reconnect=reconnect) as endpoint:
        for pattern in patterns or (">",):
            endpoint.subscribe(
                pattern, group=group, overflow="block" if lossless else "drop_newest"
            )
        note("sub", f"subscribed on {endpoint.bus.name}")
        try:
            _stream("sub", endpoint, count, timeout, each, meter.tick if meter else None)
        finally:
            if meter is not None:
                meter.report()
                flush()


@click.command(short_help="Print copies of all messages between other endpoints.")
@_receiving
def tap(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    wait: float | None,
    reconnect: bool,
    as_json: bool,
) -> None:
    """Print copies of what passes between other endpoints: events, commands, requests, replies and
    errors.

    Each is shown with where it came from and went to, what became of it, and how long the bus took;
    a reply also with the time since its request. An event to several is shown once for each. A tap
    delays nobody: copies that it does not read in time are lost, and nothing else.
    """
    requested: dict[Any, int] = {}

    def each(message: Message[Any]) -> None:
        seen = message.tap
        if seen is None:
            return
        took = (seen.forwarded_ns - seen.sent_ns) / 1e9
        after = None
        if message.correlation_id is not None:
            if seen.kind == "request":
                requested[message.correlation_id] = seen.sent_ns
                if len(requested) > _REQUESTS:
                    requested.pop(next(iter(requested)))
            elif message.correlation_id in requested:
                after = (seen.forwarded_ns - requested.pop(message.correlation_id)) / 1e9
        if as_json:
            facts = {"kind": seen.kind, "outcome": seen.outcome, "target": seen.target}
            times = {"routing_seconds": took, "seconds_since_request": after}
            print_json({**envelope(message), **facts, **times})
        else:
            write(tapped(message, seen, took, after))

    with attach_now(bus, "tap", wait, reconnect=reconnect) as endpoint:
        for pattern in patterns or (">", "$bus.>"):
            endpoint.tap(pattern)
        note("tap", f"tapping {endpoint.bus.name}")
        _stream("tap", endpoint, count, timeout, each)


def _stream(
    who: str,
    endpoint: Endpoint,
    count: int | None,
    timeout: float | None,
    each: Callable[[Message[Any]], None],
    tick: Callable[[], None] | None = None,
) -> None:
    """Pass on what comes until there are ``count``, ``timeout`` seconds have passed, or Ctrl-C."""
    left = count
    end = None if timeout is None else time.monotonic() + timeout
    try:
        while left != 0 and (end is None or time.monotonic() < end):
            most = _AT_ONCE if left is None else min(left, _AT_ONCE)
            for message in endpoint.receive_many(most, _doze(end)):
                left = None if left is None else left - 1
                if message.lost:
                    note(who, f"{message.lost} lost here")
                try:
                    each(message)
                except errors.DecodeError as problem:
                    note(who, str(problem))
            if tick is not None:
                tick()
            flush()
        if left:
            click.get_current_context().exit(TIMED_OUT)
    except KeyboardInterrupt:
        pass  # the usual end
    flush()


def _doze(end: float | None) -> float:
    return _DOZE if end is None else max(min(_DOZE, end - time.monotonic()), 0.0)


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
