#!/usr/bin/env python3
"""What links cost as sites and their endpoints grow: a model, with numbers taken from the code.

    python stress/link_scale.py [--quick] [--sites N ...] [--endpoints M ...] [--json FILE]
                                [--plot FILE]

N sites with M endpoints each, of which each subscribes to two patterns that others share and
handles one type of its own; all is exported and imported. Measured here, by the very functions that
links call: the bytes of tables and of changes, the CPU time to make, read and look through them,
and the memory that they take; and by a bus, what a pattern more costs it. Modelled from that: what
links announce when all sites come up at once and when endpoints come and go, what each link holds,
and how long it takes until all know all (a link is a queue that does one thing at a time), and
until all know one endpoint more.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table as RichTable

sys.path.insert(0, str(Path(__file__).parent))

from benchmark import plot

import shmbus
from shmbus.links import keys, wire
from shmbus.links.node import COALESCED, Hello
from shmbus.links.rules import Rules
from shmbus.links.tables import Away, Change, Incoming, Table, Wanted

SITES = (3, 30, 300)
ENDPOINTS = (10, 30, 100, 300, 1000)
SHARED = 20
"""Patterns to which endpoints of all sites subscribe, each to two of them."""
ROUND_TRIP = 1e-3
"""Seconds to another site and back."""
NETWORK = 125e6
"""Bytes a second that a machine sends: 1 Gbit/s."""
STAYS = 3600.0
"""Seconds that an endpoint lives, on average."""
FRAME = 150
"""Bytes of a frame beside its payload: its key on the wire, zenoh's own head, TCP and IP."""
TRANSPORT = 200_000
"""Bytes of memory for a connection of zenoh's: seen at a session of 1.10 that 50 others joined."""


@dataclass(frozen=True)
class Costs:
    """What was measured: bytes, and seconds of CPU."""

    table_bytes: float
    """Of a table, for each endpoint in it."""
    change_bytes: float
    """Of the news of one endpoint."""
    told_bytes: float
    """Of memory, for each endpoint that a peer was told of."""
    known_bytes: float
    """Of memory, for each endpoint that a peer told of."""
    make: float
    """To make and encode a table, for each endpoint in it."""
    read: float
    """To decode, check and keep a table, for each endpoint in it."""
    look: float
    """To look which patterns are wanted, for each endpoint that is known."""
    frame: float
    """To send or take a frame, whatever is in it."""
    pattern: float
    """Until the bus has a pattern more."""
    pattern_bytes: float
    """Of memory of the bus and the link, for that."""


def endpoint(site: int, number: int) -> Away:
    """One as there are many of."""
    shared = (number % SHARED, (number * 7 + 3) % SHARED)
    wants = [Wanted("subscribe", f"plant.line{each}.measured.>") for each in shared]
    wants.append(Wanted("handle", f"site{site}.worker{number}.do"))
    return Away(f"worker-{number}", 10_000 + number, f"host-{site}", tuple(wants))


def table(count: int, site: int = 1) -> Table:
    return Table(1, tuple(endpoint(site, number) for number in range(count)))


def cpu(function: Callable[[], object], times: int = 5) -> float:
    """Seconds of CPU, the least of some times."""
    took = []
    for _ in range(times):
        start = time.process_time()
        function()
        took.append(time.process_time() - start)
    return min(took)


def memory(make: Callable[[], object]) -> int:
    """Bytes that what it makes takes."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del made
    return after - before


def patterns_of(rules: Rules, tables: Iterable[Incoming]) -> set[str]:
    """What a link handles on its bus."""
    return {
        pattern
        for incoming in tables
        for wanted in incoming.wants()
        if wanted.role == "handle"
        for pattern in rules.offered(wanted.pattern)
    }


def of_a_bus(count: int) -> tuple[float, float]:
    """Seconds and bytes for each pattern that an endpoint adds."""
    process = psutil.Process()
    with shmbus.serve(f"link-scale-{process.pid}") as bus, bus.attach("link") as link:
        link.handle("warm.up", lambda message: None)
        before, start = process.memory_info().rss, time.perf_counter()
        for number in range(count):
            link.handle(f"site.worker{number}.do", lambda message: None)
        took = time.perf_counter() - start
        return took / count, (process.memory_info().rss - before) / count


def measure(count: int) -> Costs:
    """By tables of so many endpoints."""
    rules = Rules([">"], [">"])
    run, hello = wire.new_run(), wire.Reader(Hello)
    big, empty = table(count), Table(1)
    outbox = keys.Outbox("lan", "berlin", "paris")

    def encoded(one: Table) -> bytes:
        return wire.head(run, run, 0, wire.packed(Hello(one, True, 0)))

    def made() -> bytes:
        """As for a peer that is met."""
        for each in big.endpoints:
            for wanted in each.wants:
                rules.wanted(wanted.pattern)
        return encoded(table(count))

    def read() -> Incoming:
        incoming = Incoming()
        body = wire.read_head(frame).body
        incoming.set(hello.read(body).table)
        return incoming

    frame = encoded(big)
    change = wire.head(run, run, 0, wire.packed(Change(2, (endpoint(1, count),), ())))
    known = [read()]
    small = encoded(empty)

    def thousand_frames() -> None:
        for _ in range(1000):
            outbox.key(wire.CONTROL, "change")
            encoded(empty)
            hello.read(wire.read_head(small).body)

    pattern, pattern_bytes = of_a_bus(min(count, 500))
    return Costs(
        table_bytes=(len(frame) - len(small)) / count,
        change_bytes=len(change) + FRAME,
        told_bytes=memory(lambda: {each.name: each for each in table(count).endpoints}) / count,
        known_bytes=memory(read) / count,
        make=cpu(made) / count,
        read=cpu(read) / count,
        look=cpu(lambda: patterns_of(rules, known)) / count,
        frame=cpu(thousand_frames) / 1000,
        pattern=pattern,
        pattern_bytes=pattern_bytes,
    )


@dataclass(frozen=True)
class Scaled:
    """What the model says of so many sites with so many endpoints."""

    sites: int
    endpoints: int
    patterns: int
    """That each link handles or subscribes to on its bus."""
    start_bytes: float
    """That each link sends while all come up at once."""
    churn_rate: float
    """Bytes a second that each link sends after that: an endpoint lives an hour."""
    churn_cpu: float
    """CPU seconds a second for that."""
    link_bytes: float
    """Memory of each link, without messages that wait."""
    all_known: float
    """Seconds from when all sites come up at once until all know all."""
    one_known: float
    """Seconds from when an endpoint attaches until all sites know it."""


def table_frame(costs: Costs, endpoints: int) -> float:
    return FRAME + costs.table_bytes * endpoints


def change_cpu(costs: Costs, sites: int, endpoints: int) -> tuple[float, float]:
    """CPU seconds to tell all peers of one change, and to take it."""
    telling = costs.make * endpoints + (sites - 1) * costs.frame
    taking = costs.frame + costs.look * endpoints
    return telling, taking


def converge(costs: Costs, sites: int, endpoints: int) -> float:
    """Seconds until all links know all tables, when all come up at once and tell each other. Each
    sends its table to each peer, and again to those that had not known it when they sent theirs."""
    make = costs.make * endpoints
    read = costs.read * endpoints + costs.look * endpoints + costs.frame
    size = table_frame(costs, endpoints)
    busy = [make] * sites  # until when each link is at work
    sent = [make] * sites  # until when its network is
    arrivals: list[tuple[float, int, int, bool]] = []

    def send(source: int, target: int, known: bool) -> None:
        busy[source] += costs.frame
        sent[source] = max(sent[source], busy[source]) + size / NETWORK
        heapq.heappush(arrivals, (sent[source] + ROUND_TRIP / 2, source, target, known))

    for source in range(sites):
        for target in range(sites):
            if source != target:
                send(source, target, False)
    last = 0.0
    while arrivals:
        at, source, target, known = heapq.heappop(arrivals)
        busy[target] = max(at, busy[target]) + read
        last = max(last, busy[target])
        if not known:
            send(target, source, True)
    distinct = (sites - 1) * endpoints
    return last + distinct * costs.pattern


def scale(costs: Costs, sites: int, endpoints: int) -> Scaled:
    peers, distinct = sites - 1, (sites - 1) * endpoints + SHARED
    telling, taking = change_cpu(costs, sites, endpoints)
    changes = 2 * endpoints / STAYS  # each comes and goes
    return Scaled(
        sites=sites,
        endpoints=endpoints,
        patterns=distinct,
        start_bytes=2 * peers * table_frame(costs, endpoints),
        churn_rate=changes * peers * costs.change_bytes,
        churn_cpu=changes * (telling + peers * taking),
        link_bytes=costs.told_bytes * endpoints
        + peers * (costs.known_bytes * endpoints + TRANSPORT)
        + distinct * costs.pattern_bytes,
        all_known=converge(costs, sites, endpoints),
        one_known=COALESCED + telling + ROUND_TRIP / 2 + taking + costs.pattern,
    )


def shown(scaled: list[Scaled]) -> RichTable:
    made = RichTable(
        "sites",
        "endpoints each",
        "patterns of a link",
        "sent at start",
        "sent after that",
        "CPU after that",
        "memory of a link",
        "all known",
        "one known",
        title="Of each link",
    )
    for each in scaled:
        made.add_row(
            f"{each.sites}",
            f"{each.endpoints}",
            f"{each.patterns:,}",
            f"{each.start_bytes / 1e6:.3g} MB",
            f"{each.churn_rate / 1e3:.3g} kB/s",
            f"{each.churn_cpu:.2%}",
            f"{each.link_bytes / 1e6:.3g} MB",
            f"{each.all_known:.3g} s",
            f"{each.one_known * 1e3:.0f} ms",
        )
    return made


def drawn(scaled: list[Scaled]) -> str:
    """The four that grow, as SVG."""

    def lines(value: Callable[[Scaled], float]) -> dict[str, list[tuple[float, float]]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for each in scaled:
            found.setdefault(f"{each.sites} sites", []).append((each.endpoints, value(each)))
        return found

    return plot.logarithmic(
        "endpoints a site",
        {
            "sent by each link at the start, MB": lines(lambda each: each.start_bytes / 1e6),
            "memory of each link, MB": lines(lambda each: each.link_bytes / 1e6),
            "until all know all, s": lines(lambda each: each.all_known),
            "CPU of each link while endpoints live an hour, %": lines(
                lambda each: 100 * each.churn_cpu
            ),
        },
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Model what links cost at scale.")
    parser.add_argument("--quick", action="store_true", help="measure by small tables")
    parser.add_argument("--sites", nargs="+", type=int, default=SITES, metavar="N")
    parser.add_argument("--endpoints", nargs="+", type=int, default=ENDPOINTS, metavar="M")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them here, as SVG")
    options = parser.parse_args(arguments)
    costs = measure(50 if options.quick else 1000)
    scaled = [scale(costs, n, m) for n in options.sites for m in options.endpoints]
    console = Console()
    console.print(costs)
    console.print(shown(scaled))
    if options.json:
        report = {"costs": asdict(costs), "scaled": [asdict(each) for each in scaled]}
        options.json.write_text(json.dumps(report, indent=1))
    if options.plot:
        options.plot.write_text(drawn(scaled))
    return 0


if __name__ == "__main__":
    sys.exit(main())
