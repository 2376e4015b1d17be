#!/usr/bin/env python3
"""What links cost as sites and their endpoints grow: a model, with numbers taken from the code.

    python stress/link_scale.py [--quick] [--sites N ...] [--endpoints M ...] [--json FILE]
                                [--plot FILE]

N sites with M endpoints each, of which each subscribes to two patterns that others share and
handles one type of its own; all is exported and imported. Measured here, by the very functions that
links call: the bytes of tables and of changes, the CPU time to make, read and look through them,
and the memory that they take; and by a bus, what it costs to look at it, and a pattern more.
Modelled from that: what links announce when all sites come up at once and when endpoints come and
go, what each link holds, and how long it takes until all know all (a link is a queue that does one
thing at a time), and until all know one endpoint more.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import psutil
from rich.console import Console
from rich.table import Table as RichTable

sys.path.insert(0, str(Path(__file__).parent))

from benchmark import plot

import shmbus
from shmbus.endpoint.attach import attach_as
from shmbus.links import keys, wire
from shmbus.links.config import LinkConfig
from shmbus.links.greeting import Hello
from shmbus.links.looking import COALESCED
from shmbus.links.rules import Rules
from shmbus.links.sure import confirms
from shmbus.links.tables import Away, Incoming, Outgoing, Table, Wanted, announced
from shmbus.links.tables import Change as TableChange
from shmbus.links.wanting import Want
from shmbus.shared import sites
from shmbus.shared.patterns import Interest

SITES = (3, 30, 300)
ENDPOINTS = (10, 30, 100, 300, 1000)
WRITTEN = {3: (10, 1000), 30: (100, 300, 1000), 300: (10, 30, 100, 1000)}
"""Sites, and endpoints each, of which docs/performance.md has a row."""
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
TRANSPORT = 120_000
"""Bytes of memory for a connection of zenoh's: seen at a session of 1.10 that 30 clients joined."""


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
    see: float
    """To look what is on the bus, for each endpoint of its own,"""
    see_note: float
    """and for each of other sites that is noted there."""
    make: float
    """To make a table, for each endpoint in it."""
    differ: float
    """To find what is other in it for one peer, likewise."""
    read: float
    """To encode, decode, check and keep a table, likewise."""
    look: float
    """To look what is wanted and what is to be noted, for each endpoint that is known."""
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


@dataclass(frozen=True)
class OfBus:
    """What a bus was measured to take, for each: seconds, bytes."""

    see: float
    see_note: float
    pattern: float
    pattern_bytes: float
    info: shmbus.EndpointInfo
    """One of its endpoints."""


def of_a_bus(count: int) -> OfBus:
    """With a few endpoints, and so many notes and patterns of a link."""
    process, ends = psutil.Process(), 16
    small = shmbus.Settings(in_bytes=4096, out_bytes=4096, reply_bytes=4096)
    with contextlib.ExitStack() as stack:
        bus = stack.enter_context(shmbus.serve(f"link-scale-{process.pid}"))
        for number in range(ends):
            worker = stack.enter_context(bus.attach(f"worker-{number}", settings=small))
            for wanted in endpoint(0, number).wants[:-1]:
                worker.subscribe(wanted.pattern, lambda message: None)
            worker.handle(f"site0.worker{number}.do", lambda message: None)
        link = stack.enter_context(attach_as("@link", bus.name))
        bus.endpoints()
        see = cpu(bus.endpoints) / ends
        link.handle("warm.up", lambda message: None)
        before, start = process.memory_info().rss, time.perf_counter()
        for number in range(count):
            link.handle(f"site1.worker{number}.do", lambda message: None)
        took = time.perf_counter() - start
        grown = process.memory_info().rss - before
        own = cpu(bus.endpoints)
        site = sites.SiteNote(site="paris", space="lan", run="0" * 16, state="up", since=1.0)
        link._note(site.key, sites.encode(site))
        for number in range(count):
            note = noted(endpoint(1, number))
            link._note(note.key, sites.encode(note))
        see_note = max(1e-9, cpu(bus.endpoints) - own) / count
        assert len(bus.endpoints()) == ends + 1 + count
        return OfBus(see, see_note, took / count, max(grown, 1) / count, bus.endpoints()[0])


def noted(away: Away) -> sites.EndpointNote:
    """As a link notes it."""
    return sites.EndpointNote(
        name=away.name,
        site="paris",
        pid=away.pid,
        host=away.host,
        since=1.0,
        interests=tuple(
            sites.Wish(w.pattern, w.role, w.group, w.key, w.history, w.method) for w in away.wants
        ),
    )


def looked(rules: Rules, config: LinkConfig, table: Incoming) -> object:
    """What a link does with what it knows whenever that has changed: what to subscribe to and what
    to handle, and what to note."""
    handled = {
        pattern
        for wanted in table.wants()
        if wanted.role == "handle"
        for pattern in rules.offered(wanted.pattern)
        if not config.confirms(pattern)
    }
    subscribed = {
        Want(pattern)
        for wanted in table.wants()
        if wanted.role == "subscribe"
        for pattern in rules.offered(wanted.pattern)
        if not confirms(config, msgspec.structs.replace(wanted, pattern=pattern))
    }
    notes = {note.key: note for note in map(noted, table.endpoints.values())}
    return handled, subscribed, notes


def measure(count: int) -> Costs:
    """By tables of so many endpoints."""
    rules, config = Rules([">"], [">"]), LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",))
    run, hello = wire.new_run(), wire.Reader(Hello)
    outbox = keys.Outbox("lan", "berlin", "paris")
    bus = of_a_bus(min(count, 500))
    infos = [
        msgspec.structs.replace(
            bus.info,
            name=away.name,
            pid=away.pid,
            interests=tuple(
                Interest(endpoint=away.name, pattern=wanted.pattern, role=wanted.role)
                for wanted in away.wants
            ),
        )
        for away in table(count).endpoints
    ]

    def encoded(one: Table) -> bytes:
        return wire.head(run, run, 0, wire.packed(Hello(one, True, 0, "@link")))

    def read() -> Incoming:
        incoming = Incoming()
        incoming.set(hello.read(wire.read_head(encoded(table_of_all)).body).table)
        return incoming

    outgoing = Outgoing()
    outgoing.update(announced(rules, infos))
    table_of_all = outgoing.table()
    again = announced(rules, infos)
    change = wire.head(run, run, 0, wire.packed(TableChange(2, (endpoint(1, count),), ())))
    known, empty = read(), encoded(Table(1))

    def thousand_frames() -> None:
        for _ in range(1000):
            outbox.key(wire.CONTROL, "change")
            encoded(Table(1))
            hello.read(wire.read_head(empty).body)

    return Costs(
        table_bytes=(len(encoded(table_of_all)) - len(empty)) / count,
        change_bytes=len(change) + FRAME,
        told_bytes=memory(lambda: announced(rules, infos)) / count,
        known_bytes=memory(read) / count,
        see=bus.see,
        see_note=bus.see_note,
        make=cpu(lambda: announced(rules, infos)) / count,
        differ=cpu(lambda: outgoing.update(again)) / count,
        read=cpu(read) / count,
        look=cpu(lambda: looked(rules, config, known)) / count,
        frame=cpu(thousand_frames) / 1000,
        pattern=bus.pattern,
        pattern_bytes=bus.pattern_bytes,
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
    """CPU seconds a second for that, and for its notes of other sites, which it looks through each
    second."""
    link_bytes: float
    """Memory of each link, without messages that wait."""
    all_known: float
    """Seconds from when all sites come up at once until all know all."""
    one_known: float
    """Seconds from when an endpoint attaches until all sites know it."""


def table_frame(costs: Costs, endpoints: int) -> float:
    return FRAME + costs.table_bytes * endpoints


def change_cpu(costs: Costs, sites: int, endpoints: int) -> tuple[float, float]:
    """CPU seconds to tell all peers of one change of this bus, and to take one of another."""
    peers = sites - 1
    seeing = (costs.see + costs.make) * endpoints + costs.see_note * peers * endpoints
    telling = seeing + peers * (costs.differ * endpoints + costs.frame)
    return telling, costs.frame + costs.look * peers * endpoints


class Joining:
    """All sites come up at once and tell each other their tables: each to each, and again to those
    that had not known it when they sent theirs."""

    def __init__(self, costs: Costs, sites: int, endpoints: int) -> None:
        self._costs, self._sites, self._endpoints = costs, sites, endpoints
        self._size = table_frame(costs, endpoints)
        self._events: list[tuple[float, int, int, bool]] = []
        """When, at which link; what has come from whom, or (-1) that it has nothing to do."""
        self._queues: list[list[tuple[int, bool]]] = [[] for _ in range(sites)]
        self._known: list[set[int]] = [set() for _ in range(sites)]
        self._working = [False] * sites
        self._sent = [0.0] * sites  # until when its network is busy

    def seconds(self) -> float:
        """Until each knows all."""
        make = (self._costs.see + self._costs.make) * self._endpoints
        for source in range(self._sites):
            for other in range(self._sites):
                if source != other:
                    self._send(make, source, other, False)
        done = 0.0
        while self._events:
            at, link, source, known = heapq.heappop(self._events)
            if source < 0:
                self._working[link] = False
                if len(self._known[link]) == self._sites - 1:
                    done = max(done, at)
            else:
                self._queues[link].append((source, known))
            if self._queues[link] and not self._working[link]:
                self._work(at, link)
        return done

    def _send(self, at: float, source: int, target: int, known: bool) -> None:
        self._sent[source] = max(self._sent[source], at) + self._size / NETWORK
        there = self._sent[source] + ROUND_TRIP / 2
        heapq.heappush(self._events, (there, target, source, known))

    def _work(self, at: float, link: int) -> None:
        """On all that has come; then it looks at what it knows once."""
        came, costs = self._queues[link], self._costs
        self._queues[link] = []
        new = {source for source, _ in came} - self._known[link]
        self._known[link] |= new
        taking = (costs.read * self._endpoints + costs.frame) * len(came)
        looking = costs.look * self._endpoints * len(self._known[link])
        at += taking + looking + costs.pattern * self._endpoints * len(new)
        for source, known in came:
            if not known:
                self._send(at, link, source, True)
        self._working[link] = True
        heapq.heappush(self._events, (at, link, -1, True))


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
        churn_cpu=changes * (telling + peers * taking) + costs.look * peers * endpoints,
        link_bytes=costs.told_bytes * endpoints  # all peers share it
        + peers * (costs.known_bytes * endpoints + TRANSPORT)
        + distinct * costs.pattern_bytes,
        all_known=Joining(costs, sites, endpoints).seconds(),
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


def written(scaled: list[Scaled]) -> str:
    """The rows that docs/performance.md has, as it has them."""
    heads = ["sites, endpoints each", "patterns of a link", "sent at the start", "memory"]
    heads += ["all know all after", "one endpoint more is known after", "CPU after that"]
    rows = [
        [
            f"{each.sites}, {each.endpoints:,}",
            f"{each.patterns:,}",
            amount(each.start_bytes, ("kB", 1e3), ("MB", 1e6)),
            amount(each.link_bytes, ("kB", 1e3), ("MB", 1e6)),
            amount(each.all_known, ("ms", 1e-3), ("s", 1.0)),
            amount(each.one_known, ("ms", 1e-3), ("s", 1.0)) if each.churn_cpu < 1 else "behind",
            amount(each.churn_cpu, ("%", 1e-2), ("cores", 1.0), least=10.0),
        ]
        for each in scaled
        if each.endpoints in WRITTEN.get(each.sites, ())
    ]
    lines = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def amount(
    value: float, small: tuple[str, float], large: tuple[str, float], *, least: float = 0.2
) -> str:
    """It in the larger of two units, from `least` of that on, else in the smaller."""
    unit, size = large if value >= least * large[1] else small
    number = value / size
    return f"{number:.0f} {unit}" if number >= 0.95 else f"{number:.1g} {unit}"


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
    print(written(scaled))
    if options.json:
        report = {"costs": asdict(costs), "scaled": [asdict(each) for each in scaled]}
        options.json.write_text(json.dumps(report, indent=1))
    if options.plot:
        options.plot.write_text(drawn(scaled))
    return 0


if __name__ == "__main__":
    sys.exit(main())
