"""Facts as a terminal shows them: short numbers, bars, colours, the columns of the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from shmbus.views import (
    Backlog,
    EndpointHealth,
    EndpointInfo,
    Health,
    Losses,
    PastDeath,
    Ring,
    Route,
)

from .sampler import Rates, Sample

STYLES = {
    "dead": "bold white on red",
    "leaving": "blue",
    "stopped": "bold white on magenta",
    "stalled": "bold black on magenta",
    "overdue": "bold black on bright_magenta",
    "slow": "bold black on yellow",
    "full": "bold black on dark_orange",
    "busy": "cyan",
    "idle": "dim",
}
VERDICTS = {
    "healthy": ("●", "bold green"),
    "degraded": ("◆", "bold yellow"),
    "unhealthy": ("▲", "bold red"),
}
SEVERITY = {state: rank for rank, state in enumerate(STYLES)}


def number(value: float) -> str:
    """At most four characters: 999, 1.2k, 34k, 5.6M."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1000
    return (
        f"{value:.1f}{unit}" if 0 < value < 9.95 and (unit or value % 1) else f"{value:.0f}{unit}"
    )


def size(value: float) -> str:
    """Bytes in at most five characters: 512, 1.5K, 64K, 128M."""
    for unit in ("", "K", "M", "G", "T"):
        if value < 999.5 or unit == "T":
            break
        value /= 1024
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}"


def duration(seconds: float | None) -> str:
    """A time span with two significant digits: 12 µs, 3.4 ms, 5.6 s, 7m08, 3h20, 2d04."""
    if seconds is None:
        return "-"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (60.0, 1.0, "s")):
        if seconds < limit:
            value = seconds * factor
            return f"{value:.1f} {unit}" if 0 < value < 9.95 else f"{value:.0f} {unit}"
    whole = int(seconds)
    for large, small, unit in ((86400, 3600, "d"), (3600, 60, "h"), (60, 1, "m")):
        if whole >= large:
            return f"{whole // large}{unit}{whole % large // small:02}"
    raise AssertionError(seconds)  # pragma: no cover - a minute is the least that gets here


def bar(fill: float, width: int) -> Text:
    """A bar of eighths; yellow from half full on, red from three quarters."""
    eighths = round(min(max(fill, 0.0), 1.0) * width * 8)
    if fill > 0 and eighths == 0:
        eighths = 1
    full, rest = divmod(eighths, 8)
    colour = "green" if fill < 0.5 else "yellow" if fill < 0.75 else "red"
    drawn = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return Text.assemble((drawn, colour), ("·" * (width - len(drawn)), "dim"))


def percent(part: float) -> str:
    """A part of the whole."""
    return f"{part * 100:.0f}%"


def since(moment: float | None) -> str:
    """How long ago a moment (seconds since the epoch) was."""
    return "-" if moment is None else duration(max(time.time() - moment, 0.0))


class Row(NamedTuple):
    """The facts about one endpoint."""

    info: EndpointInfo
    health: EndpointHealth
    rates: Rates

    @property
    def key(self) -> str:
        return f"{self.info.slot}:{self.info.generation}"


def rows(sample: Sample) -> list[Row]:
    """The rows of a sample, in the order of slots."""
    look = sample.look
    return [
        Row(*row) for row in zip(look.endpoints, look.health.endpoints, sample.rates, strict=True)
    ]


def matches(row: Row, words: str) -> bool:
    """Whether each of the words is in the endpoint's name, state, pid, patterns or groups."""
    info = row.info
    text = " ".join((info.name, info.condition, str(info.pid), *info.patterns, *info.groups))
    return all(word in text.lower() for word in words.lower().split())


class Column(NamedTuple):
    """One column: its title, width, cell, and the key that sorts by it, largest first if
    ``falling``."""

    title: str
    width: int
    cell: Callable[[Row, int], Text]
    key: Callable[[Row], Any]
    falling: bool = True
    from_width: int = 0
    """The width of the terminal from which on it is shown."""
    right: bool = True


def _plain(text: str, style: str = "") -> Text:
    return Text(text, style=style)


def _count(value: float, style: str = "") -> Text:
    return _plain(number(value), style if value else "dim")


def _lost(count: int, by: Losses) -> Text:
    """Red where it was not chosen."""
    return _count(count, "bold red" if by.unchosen else "yellow")


def _fullest(first: Ring, second: Ring) -> float:
    return max(first.fill, second.fill)


def _incoming(row: Row) -> float:
    return _fullest(row.info.incoming, row.info.incoming_replies)


def _outgoing(row: Row) -> float:
    return _fullest(row.info.outgoing, row.info.outgoing_replies)


def _high(row: Row) -> float:
    info = row.info
    rings = (info.incoming, info.incoming_replies, info.outgoing, info.outgoing_replies)
    return max((ring.high / ring.capacity for ring in rings if ring.capacity), default=0.0)


def state(info: EndpointInfo) -> Text:
    """Its condition, in its colour."""
    return _plain(info.condition, STYLES[info.condition])


def _name(row: Row, width: int) -> Text:
    name = row.info.name
    style = "dim" if row.info.state == "dead" else "bold"
    return _plain(name if len(name) < width else name[: width - 2] + "…", style)


COLUMNS = (
    Column("ENDPOINT", 12, _name, lambda r: r.info.name, falling=False, right=False),
    Column(
        "STATE",
        8,
        lambda r, w: state(r.info),
        lambda r: SEVERITY[r.info.condition],
        falling=False,
        right=False,
    ),
    Column("PID", 8, lambda r, w: _plain(str(r.info.pid)), lambda r: r.info.pid, falling=False),
    Column(
        "CPU",
        5,
        lambda r, w: _plain("-" if r.health.cpu is None else f"{r.health.cpu:.0f}%"),
        lambda r: r.health.cpu or 0.0,
    ),
    Column(
        "MEM",
        6,
        lambda r, w: _plain("-" if r.health.memory is None else size(r.health.memory)),
        lambda r: r.health.memory or 0,
    ),
    Column("IN", 8, lambda r, w: bar(_incoming(r), w - 1), _incoming, right=False),
    Column("OUT", 8, lambda r, w: bar(_outgoing(r), w - 1), _outgoing, right=False),
    Column("HIGH", 5, lambda r, w: _plain(percent(_high(r))), _high),
    Column("WAIT", 6, lambda r, w: _count(r.info.untouched), lambda r: r.info.untouched, True, 88),
    Column(
        "OLDEST",
        8,
        lambda r, w: _plain(duration(r.health.oldest), "" if r.health.oldest else "dim"),
        lambda r: r.health.oldest or 0.0,
        True,
        96,
    ),
    Column("HAND", 6, lambda r, w: _count(r.info.in_hand), lambda r: r.info.in_hand, True, 104),
    Column("PEND", 6, lambda r, w: _count(r.info.pending), lambda r: r.info.pending, True, 112),
    Column("RECV/S", 7, lambda r, w: _count(r.rates.received), lambda r: r.rates.received),
    Column("SENT/S", 7, lambda r, w: _count(r.rates.sent), lambda r: r.rates.sent),
    Column("LOST", 6, lambda r, w: _lost(r.info.lost, r.info.lost_by), lambda r: r.info.lost),
    Column(
        "REDEL", 6, lambda r, w: _count(r.info.redelivered), lambda r: r.info.redelivered, True, 120
    ),
    Column(
        "ERRORS",
        7,
        lambda r, w: _count(r.info.handler_errors + r.info.decode_errors, "red"),
        lambda r: r.info.handler_errors + r.info.decode_errors,
        True,
        128,
    ),
    Column(
        "PROGRESS",
        9,
        lambda r, w: _plain(since(r.info.last_progress)),
        lambda r: r.info.last_progress or 0.0,
        False,
        138,
    ),
)


def columns(width: int) -> list[Column]:
    """The columns that fit into a terminal of this width; names and bars share what is left."""
    shown = [column for column in COLUMNS if width >= column.from_width]
    spare = max(width - 1 - sum(column.width for column in shown), 0)
    wider = {"ENDPOINT": min(spare // 2, 36), "IN": min(spare // 4, 16), "OUT": min(spare // 4, 16)}
    return [column._replace(width=column.width + wider.get(column.title, 0)) for column in shown]


def cell(column: Column, row: Row) -> Text:
    """One cell, aligned, with a gap at its end."""
    text = column.cell(row, column.width)
    text.truncate(column.width - 1)
    if column.right:
        text.pad_left(column.width - 1 - text.cell_len)
    return text


def title(column: Column) -> str:
    """The column's title, aligned as its cells are."""
    return column.title.rjust(column.width - 1) if column.right else column.title


def order(found: list[Row], column: Column, reverse: bool = False) -> list[Row]:
    """Rows by a column, those alike by name."""
    found = sorted(found, key=lambda row: row.info.name)
    return sorted(found, key=column.key, reverse=column.falling != reverse)


def headline(health: Health, remark: str = "", slots: str = "", width: int = 10_000) -> Text:
    """The bus's health in one line; what does not fit is left out, the least important first."""
    line = Text(health.bus, "bold")
    sign, style = VERDICTS[health.state]
    line.append(f"  {sign} {health.state if health.dispatcher_alive else health.bus_state}", style)
    if remark:
        line.append("  ").append(remark, "reverse")
    parts = [(f"dispatcher {health.pid}", ""), (slots, "dim")]
    if health.dispatcher_alive:
        parts.insert(1, (f"up {duration(health.uptime)}", ""))
        parts.append((f"heartbeat {duration(health.heartbeat_age)}", ""))
    else:
        parts[0] = (f"dispatcher {health.pid} does not run", "bold red")
    for part, style in parts:
        if part and line.cell_len + 2 + len(part) <= width:
            line.append("  ").append(part, style)
    return line


def traffic(health: Health) -> Text:
    """Rate, latency and losses in one line."""
    recent = health.recent_latency if health.recent_latency.count else health.latency
    p50, p99 = (recent.p50, recent.p99) if recent.count else (None, None)
    return Text.assemble(
        (f"{number(health.rate)}/s", "bold"),
        "  p50 ",
        (duration(p50), "bold"),
        "  p99 ",
        (duration(p99), "bold"),
        f"  pending {number(health.pending)}  lost ",
        (number(health.lost), "bold red" if health.lost_by.unchosen else ""),
        "  dead letters ",
        (number(health.dead_letters), "bold red" if health.dead_letters else ""),
        "  deaths ",
        (number(sum(health.deaths.values())), "bold yellow" if health.deaths else ""),
    )


BACKLOGS = 4
"""Those that are shown, the ones that wait longest."""


def backlogs(found: Sequence[Backlog]) -> list[Text]:
    """What waits in the dispatcher until somebody is free, a line for each backlog."""
    used = sorted((b for b in found if b.waiting), key=lambda b: -(b.oldest or 0.0))
    lines = [backlog(b) for b in used[:BACKLOGS]]
    if len(used) > BACKLOGS:
        lines.append(_plain(f"and {len(used) - BACKLOGS} backlogs more", "dim"))
    return lines


def backlog(b: Backlog) -> Text:
    """One backlog in a line."""
    return Text.assemble(
        f"backlog of {b.what}: ",
        (number(b.waiting), "bold"),
        " waiting, the oldest for ",
        (duration(b.oldest), "bold"),
        f", {percent(b.ring.fill)} of {size(b.ring.capacity)}",
        (f", {b.lost} lost", "bold red") if b.lost else "",
        (f"  for {' '.join(b.takers) or 'nobody'}", "dim"),
    )


def undone(death: PastDeath) -> str:
    """What a dead endpoint left undone."""
    return f"{death.in_hand} in hand, {death.untouched} waiting, {death.pending} requests under way"


def waited_for(route: Route, role: str) -> list[str]:
    """The endpoints for one of which a message would wait."""
    return [r.endpoint for r in route.receivers if r.waits and r.role == role]


def died(death: PastDeath) -> Text:
    """A death in one line."""
    return Text.assemble(
        f"{since(death.at)} ago: ",
        (death.name, "bold"),
        f" (process {death.pid}) ",
        (death.reason, "bold yellow"),
        f" with {undone(death)}",
    )


def nobody(sample: Sample, words: str = "") -> Text:
    """Why the table is empty, and what to do about it."""
    if sample.look.endpoints:
        return Text(f"no endpoint matches {words.strip()!r}; press escape to see all")
    name = sample.look.info.name
    return Text(f"no endpoint is attached; a process attaches by shmbus.attach({name!r})")


def table(sample: Sample, width: int) -> Table:
    """All endpoints, for `--once`."""
    shown = columns(width)
    result = Table(box=None, padding=0, pad_edge=False, show_edge=False)
    for column in shown:
        result.add_column(title(column), width=column.width, no_wrap=True, header_style="bold")
    for row in order(rows(sample), COLUMNS[0]):
        result.add_row(*(cell(column, row) for column in shown))
    return result
