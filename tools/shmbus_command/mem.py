"""``shmbus mem``."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec
from shmbus_console.options import bus_argument, json_option
from shmbus_console.output import print_json
from shmbus_console.text import columns

from shmbus import observe
from shmbus.options import sized
from shmbus.views import Holder, Pool, Ring, SharedMemory, shared_memory

_RINGS = {
    "incoming": "IN",
    "incoming_replies": "REPLIES IN",
    "incoming_urgent": "URGENT IN",
    "outgoing": "OUT",
    "outgoing_replies": "REPLIES OUT",
}


@click.command(short_help="Show who holds how much of /dev/shm.")
@bus_argument
@json_option
def mem(bus: str | None, as_json: bool) -> None:
    """Show who holds how much of /dev/shm: each bus of this user, its endpoints, backlogs and
    queues, queues of no bus, what dead processes left, what other users have, and all else; or BUS
    alone. Read-only.

    MEMORY is what is taken, whatever is in the rings: that is reserved when they are made. Behind
    the size of each ring stands the largest part of it that was ever used; POOL is what an endpoint
    has taken for payloads that are too large for rings, and the part of what it may take that is in
    use.
    """
    found = shared_memory()
    if bus is not None:
        found = msgspec.structs.replace(
            found,
            holders=tuple(h for h in found.holders if h.bus == bus),
            leavings=tuple(left for left in found.leavings if left.bus == bus),
        )
        if not found.holders and not found.leavings:
            observe(bus).close()  # which says why it is not there
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(_lines(found, alone=bus is not None)))


def _lines(found: SharedMemory, *, alone: bool) -> Iterator[str]:
    limit = "of no limited size" if found.size is None else sized(found.size)
    yield f"/dev/shm: {limit}, {sized(found.used)} used, {sized(found.free)} free"
    for bus in dict.fromkeys(holder.bus for holder in found.holders):
        its = [holder for holder in found.holders if holder.bus == bus]
        whose = f"bus {bus}" if bus else "queues of no bus"
        yield f"{whose}: {sized(sum(holder.bytes for holder in its))}"
        heads = ["WHO", "PID", "MEMORY", "FILES", *_RINGS.values(), "POOL"]
        yield from columns(heads, list(map(_row, its)), "  ")
    for left in found.leavings:
        remedy = "shmbus doctor --fix frees it" if left.removable else f"kept: {left.reason}"
        yield f"left of {left.what}: {sized(left.bytes)}; {left.owner}; {remedy}"
    if alone:
        return
    for user in found.foreign:
        queues = [f"{user.queues} queues"] if user.queues else []
        yield f"of user {user.uid}: {sized(user.bytes)}; {', '.join([*user.buses, *queues])}"
    yield f"not of shmbus: {sized(found.other_bytes)} in {found.other_files} files"
    if found.unseen:
        yield (
            f"without a name: {sized(found.unseen)}, of removed files that are still mapped or "
            "open, or in directories that you may not read"
        )


def _row(holder: Holder) -> list[str]:
    match holder.what:
        case "bus":
            who = "the bus itself"
        case "backlog":
            who = f"backlog of {holder.name}"
        case "queue":
            who = holder.name
        case "retained":
            who = "values that are kept"
        case "pool":
            held = f", held by {holder.name}" if holder.name else ""
            who = f"pool of one that has gone{held}"
        case _:
            who = holder.name or "(being admitted)"
    rings = [holder.rings.get(ring) for ring in _RINGS]
    if "backlog" in holder.rings:
        rings[0] = holder.rings["backlog"]
    pid = "-" if holder.pid is None else str(holder.pid)
    numbers = [pid, sized(holder.bytes), str(holder.files)]
    return [who, *numbers, *map(_ring, rings), _pool(holder.pool)]


def _pool(pool: Pool | None) -> str:
    return "-" if pool is None else f"{sized(pool.reserved)}, {pool.fill:.0%}"


def _ring(ring: Ring | None) -> str:
    if ring is None:
        return "-"
    most = ring.high / ring.capacity if ring.capacity else 0.0
    return f"{sized(ring.capacity)}, {most:.0%}"
