"""``shmbus tap``."""

from __future__ import annotations

from typing import Any

import click
from shmbus_console.messages import envelope, tapped
from shmbus_console.output import note, print_json, write

from shmbus import Message

from .attaching import attach_now
from .streaming import receiving_options, stream

_REQUESTS = 10_000  # whose times a tap keeps until their replies come


@click.command(short_help="Print copies of all messages between other endpoints.")
@receiving_options
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
        stream("tap", endpoint, count, timeout, each)
