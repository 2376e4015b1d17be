"""``shmbus tap``."""

from __future__ import annotations

from typing import Any

import click
from shmbus_console.messages import envelope, tapped
from shmbus_console.output import note, print_json, write
from shmbus_console.run import usual_end

from shmbus import Message

from .attaching import attach_now
from .filtering import Filter, filter_options, watch
from .streaming import receiving_options, stream


@click.command(short_help="Print copies of all messages between other endpoints.")
@receiving_options
@filter_options
def tap(
    patterns: tuple[str, ...],
    bus: str | None,
    count: int | None,
    timeout: float | None,
    wait: float | None,
    reconnect: bool,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Print copies of what passes between other endpoints: events, commands, requests, replies and
    errors. PATTERN is by default all, the bus's own events ('$bus.>') included.

    Each is shown with where it came from and went to, what became of it, and how long the bus took;
    a reply also with the time since its request. What comes from another site, camera@paris, is
    shown with the whole time since it was sent there, and by how much that may be wrong, since two
    clocks are compared: 3.1 ms +-0.2. An event to several is shown once for each. A tap
    delays nobody: copies that it does not read in time are lost, and nothing else. It costs the
    dispatcher one more copy of each message that matches PATTERN, wanted by the other options or
    not.
    """
    filter = Filter(**wanted)
    seen = shown = 0

    def each(message: Message[Any]) -> bool:
        nonlocal seen, shown
        seen += 1
        passed = filter.passed(message)
        if passed is None:
            return False
        shown += 1
        if as_json:
            became = passed.tap
            facts = {"kind": became.kind, "outcome": became.outcome, "target": became.target}
            times = {"routing_seconds": passed.took, "seconds_since_request": passed.after}
            print_json({**envelope(message), **facts, **times})
        else:
            write(tapped(*passed))
        return True

    with attach_now(bus, "tap", wait, reconnect=reconnect) as endpoint, usual_end():
        watch(endpoint, patterns or (">", "$bus.>"))
        note("tap", f"tapping {endpoint.bus.name}")
        try:
            stream("tap", endpoint, count, timeout, each, copies=True)
        finally:
            if not filter.all:
                note("tap", f"{shown:,} of {seen:,} were wanted")
