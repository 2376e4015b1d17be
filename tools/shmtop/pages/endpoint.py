"""All facts about one endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import asdict
from rich.console import Group
from rich.table import Table
from rich.text import Text
from shmbus_console.pools import held_by
from shmbus_console.schemas import takes
from shmbus_console.text import one_line
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from shmbus.views import Backlog, Counts, EndpointInfo, Latency, PendingRequest, Pool, Ring
from shmtop import figures, lines
from shmtop.rows import Row
from shmtop.sampler import Sample
from shmtop.sites import SiteRow
from shmtop.states import STATES

from .line import Line
from .page import Page


class EndpointPage(Page):
    """All facts about one endpoint."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key
        self._row: Row | None = None

    def body(self) -> Iterable[Widget]:
        yield Line(classes="title", id="title")
        with VerticalScroll(id="detail"):
            yield Static(id="facts")

    def on_mount(self) -> None:
        self.set_focus(self.query_one("#detail"))

    def show(self, sample: Sample) -> None:
        row = next((row for row in sample.rows if row.key == self.key), None)
        gone = row is None
        row = self._row = row or self._row
        if row is None:
            return
        info = row.info
        if info.site is not None:
            self._show_remote(info, gone, sample)
            return
        title = Text.assemble(
            (info.name, "bold"),
            "  ",
            ("gone", STATES["dead"].style) if gone else (row.state, STATES[row.state].style),
            f"  process {info.pid}  slot {info.slot}  generation {info.generation}",
            f"  attached {figures.since(info.since)} ago",
        )
        self.query_one("#title", Line).put(title)
        view, health = self.top.sampler.view, sample.look.health
        requests = [] if gone else view.requests(info.name)
        waiting = None if gone else view.waiting(info.name)
        own = None if gone or info.pool is None else _pool_of(info, view.pools(untaken=True))
        self.query_one("#facts", Static).update(
            facts(
                row,
                own,
                requests,
                waiting,
                health.recent_latency,
                self.size.width - 4,
                sample.look.backlogs,
                [] if gone else [r for r in health.reasons if f"endpoint {info.name} (" in r],
            )
        )

    def _show_remote(self, info: EndpointInfo, gone: bool, sample: Sample) -> None:
        state = "gone" if gone else "remote"
        title = Text.assemble(
            (info.name, "bold"),
            "  ",
            (state, STATES["dead" if gone else "remote"].style),
            f"  process {info.pid} on {one_line(info.host) or 'another machine'}",
            f"  known for {figures.since(info.since)}" if info.since else "",
        )
        self.query_one("#title", Line).put(title)
        found = [row for row in sample.sites if row.info.name == info.site]
        self.query_one("#facts", Static).update(remote_facts(info, found))


def remote_facts(info: EndpointInfo, sites: Sequence[SiteRow]) -> Group:
    """The page of an endpoint of another site: what it wants, and which links reach it."""
    over = [
        Text.assemble(
            f"over {row.info.link}: ",
            lines.site_state(row.info),
            f", {figures.duration(row.info.round_trip)} there and back",
        )
        for row in sites
    ]
    return Group(*over, Text(), Text("Patterns", "bold"), *interests(info))


def facts(
    row: Row,
    own: Pool | None,
    requests: list[PendingRequest],
    waiting: Latency | None,
    routing: Latency,
    width: int,
    backlogs: list[Backlog],
    reasons: list[str],
) -> Group:
    """An endpoint's page."""
    info = row.info
    parts: list[Any] = [Text(f"! {reason}", "bold yellow") for reason in reasons]
    if info.note:
        parts.append(Text(info.note, "red"))
    parts += [rings(info, width), Text()]
    nobody = "  its messages are not taken" if info.interests and not info.receivers else ""
    busy = f" for {figures.duration(info.in_hand_seconds)}" if info.in_hand else ""
    age = "" if info.oldest is None else f", the oldest for {figures.duration(info.oldest)}"
    parts += [
        Text.assemble(
            f"waiting {info.untouched}{age}  in hand {info.in_hand}{busy}  held {info.held}",
            f"  receiving threads {info.receivers}",
            (nobody, "bold yellow"),
            f"  last progress {figures.since(info.last_progress)} ago"
            if info.last_progress is not None
            else "  no message taken yet",
        ),
        *(
            Text(
                f"overdue: its handler of {one.type} has run for {figures.duration(one.seconds)}, "
                f"its limit is {one.limit:g} s",
                "bold magenta",
            )
            for one in info.overdue
        ),
        *(
            Text(
                f"mailbox of {box.pattern}: {box.waiting} wait of {box.came}, "
                f"{box.received} taken, {box.lost} written over"
            )
            for box in info.mailboxes
        ),
        *pool(info, own),
        *lines.backlogs([b for b in backlogs if info.name in b.takers]),
        Text(),
        counters(row),
        Text(),
        Text.assemble(("Patterns", "bold"), "" if info.routed else "  (not all routed yet)"),
        *interests(info),
        *rights(info),
        Text(),
        Text(f"Requests under way: {info.pending} of {info.pending_limit}", "bold"),
        *(
            Text(
                f"  {request.correlation_id}  {request.handler or '(none chosen yet)'}"
                f"  deadline in {figures.duration(max(request.deadline, 0.0))}"
            )
            for request in requests[:20]
        ),
        Text(),
        Text.assemble(("Waiting", "bold"), " for this endpoint: how long since they were sent"),
        *histogram(waiting, width, "nothing waits"),
        Text(),
        Text.assemble(
            ("Routing latency", "bold"),
            " of the whole bus, not of this endpoint, since the look before",
        ),
        *histogram(routing, width, "nothing routed"),
    ]
    return Group(*parts)


def rings(info: EndpointInfo, width: int) -> Table:
    """The four rings of an endpoint."""
    result = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("RING", "", "FULL", "BYTES", "OF", "HIGH"):
        result.add_column(name, justify="left" if name in ("RING", "") else "right")
    four: list[tuple[str, Ring]] = [
        ("in: messages", info.incoming),
        ("in: replies", info.incoming_replies),
        ("in: urgent", info.incoming_urgent),
        ("out: messages", info.outgoing),
        ("out: replies", info.outgoing_replies),
    ]
    for name, ring in four:
        result.add_row(
            name,
            Text.assemble(*figures.bar(ring.fill, max(min(width - 50, 40), 10))),
            figures.percent(ring.fill),
            figures.size(ring.depth),
            figures.size(ring.capacity),
            figures.size(ring.high),
        )
    return result


def _pool_of(info: EndpointInfo, pools: list[Pool]) -> Pool | None:
    key = (info.slot, info.generation)
    return next((pool for pool in pools if (pool.slot, pool.generation) == key), None)


def pool(info: EndpointInfo, own: Pool | None) -> list[Text]:
    """What it has and holds of what is too large for rings."""
    found = []
    if own is not None and (own.reserved or own.waits):
        held = f"  held by {who}" if (who := held_by(own)) else ""
        used, most = figures.size(own.in_use), figures.size(own.limit)
        text = f"pool: {used} in use of {most}, {figures.size(own.reserved)} taken"
        text += f", waited for {own.waits} times"
        waits = (", and waits for now", "bold yellow") if own.waiting else ""
        found.append(Text.assemble(text, waits, held))
    if info.holds or info.copied:
        copied = f", copies made of {info.copied}" if info.copied else ""
        holds = ", ".join(map(str, info.holds)) or "none"
        text = f"large payloads of others: holds {holds}"
        found.append(Text(f"{text}, {info.loans} at most{copied}"))
    return found


def counters(row: Row) -> Table:
    """What an endpoint has sent, received, and lost."""
    info, rates = row.info, row.rates
    result = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("", "EVENTS", "SENDS", "REQUESTS", "REPLIES", "PARTS", "A SECOND"):
        result.add_column(name, justify="left" if not name else "right")
    rows: list[tuple[str, Counts, float]] = [
        ("sent", info.sent, rates.sent),
        ("received", info.received, rates.received),
    ]
    for name, counts, rate in rows:
        kinds = (counts.events, counts.sends, counts.requests, counts.replies, counts.parts)
        result.add_row(name, *(str(count) for count in kinds), figures.number(rate))
    pairs = [
        ("lost", info.lost),
        *((f"lost: {word.replace('_', ' ')}", n) for word, n in asdict(info.lost_by).items() if n),
        ("redelivered", info.redelivered),
        ("undeliverable", info.undeliverable),
        ("unrouted", info.unrouted),
        ("streaming", info.streaming),
        ("orphans", info.orphans),
        ("expired", info.expired),
        ("withdrawn", info.withdrawn),
        ("handler errors", info.handler_errors),
        ("decode errors", info.decode_errors),
        ("timeouts", info.timeouts),
        ("overruns", info.overruns),
        *([] if info.grant is None else [("forbidden", info.forbidden)]),
        ("let go", info.let_go),
        ("nacked", info.nacked),
    ]
    bad = {"lost", "handler errors", "decode errors", "let go", "undeliverable", "overruns"}
    bad.add("forbidden")
    text = Text()
    for name, count in pairs:
        style = "bold red" if count and name in bad else "" if count else "dim"
        text.append(f"{name} {count}  ", style)
    grid = Table.grid()
    grid.add_row(result)
    grid.add_row(text)
    return grid


def rights(info: EndpointInfo) -> list[Text]:
    """What an endpoint with a grant may do, and what it tried beyond that last."""
    if info.grant is None:
        return []
    last = f"  (last refused: {info.last_forbidden})" if info.last_forbidden else ""
    found = [Text(), Text.assemble(("Grant", "bold"), (last, "bold red"))]
    for right, patterns in asdict(info.grant).items():
        what = ", ".join(patterns) or "nothing"
        found.append(Text.assemble(f"  {right:11}", (what, "bold" if patterns else "dim")))
    return found


_ROLES = {"handle": "handles", "tap": "taps", "match": "awaits"}


def interests(info: EndpointInfo) -> list[Text]:
    """What an endpoint subscribes to and handles, a line each."""
    if not info.interests:
        return [Text("  none", "dim")]
    found = []
    for interest in info.interests[:200]:
        role = _ROLES.get(interest.role, "subscribes")
        if interest.method is not None:
            text = one_line(takes(interest.method))
            found.append(Text.assemble("  offers     ", (interest.pattern, "bold"), (text, "dim")))
            continue
        line = Text.assemble(f"  {role:11}", (interest.pattern, "bold"))
        if interest.group is not None:
            line.append(f"  group {interest.group}", "cyan")
        if interest.key is not None:
            line.append(f"  key {interest.key}", "cyan")
        if interest.losing:
            line.append(f"  {interest.losing}", "yellow")
        found.append(line)
    if len(info.interests) > 200:
        found.append(Text(f"  and {len(info.interests) - 200} more", "dim"))
    return found


def histogram(latency: Latency | None, width: int, nothing: str) -> list[Text]:
    """A latency histogram, an octave a line."""
    if latency is None or not latency.count:
        return [Text(f"  {nothing}", "dim")]
    most = max(count for _, count in latency.histogram)
    longest = max(width - 26, 10)
    octaves = [
        Text.assemble(
            f"  from {figures.duration(floor):>7} ",
            (figures.bar(count / most, longest)[0][0], "green"),
            f" {figures.number(count)}",
        )
        for floor, count in latency.histogram
    ]
    summary = f"  p50 {figures.duration(latency.p50)}  p99 {figures.duration(latency.p99)}"
    return [*octaves, Text(f"{summary}  most {figures.duration(latency.max)}")]
