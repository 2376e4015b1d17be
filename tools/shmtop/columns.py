"""The columns of the table: what each shows, how it sorts, and which give way first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import figures
from .figures import Pieces
from .rows import Row, trouble
from .states import STATES


class Column(NamedTuple):
    """One column: its title, what it shows, its width with a gap, its cell, and the key that sorts
    by it, largest first if ``falling``."""

    title: str
    meaning: str
    width: int
    cell: Callable[[Row, int], Pieces]
    key: Callable[[Row], Any]
    falling: bool = True
    right: bool = True


def _plain(text: str, style: str = "") -> Pieces:
    return ((text, style),)


def _count(value: float, style: str = "") -> Pieces:
    return _plain(figures.number(value), style if value else "dim")


def _name(row: Row, width: int) -> Pieces:
    name, site = row.info.name, row.info.site
    style = "dim" if row.info.state == "dead" or site is not None else "bold"
    if len(name) < width:
        return _plain(name, style)
    end = "…" if site is None else f"…@{site}"
    return _plain(name[: max(width - 1 - len(end), 1)] + end, style)


def _bytes(count: int) -> Pieces:
    return _plain(figures.size(count), "" if count else "dim")


def _pool(row: Row, _: int) -> Pieces:
    pool = row.info.pool
    if pool is None:
        return _plain("-", "dim")
    return _plain(figures.size(pool.in_use), "red") if pool.waiting else _bytes(pool.in_use)


def _holds(row: Row) -> int:
    return sum(holding.bytes for holding in row.info.holds)


def _handler(row: Row, _: int) -> Pieces:
    if not row.handling:
        return _plain("-", "dim")
    if row.info.overdue:
        return _plain(f"{figures.duration(row.handling)}!", STATES["overdue"].style)
    return _plain(figures.duration(row.handling))


def _lost(row: Row, _: int) -> Pieces:
    return _count(row.info.lost, "bold red" if row.info.lost_by.unchosen else "yellow")


def _errors(row: Row) -> int:
    return row.info.handler_errors + row.info.decode_errors


def _incoming(row: Row) -> float:
    info = row.info
    return max(info.incoming.fill, info.incoming_replies.fill, info.incoming_urgent.fill)


def _outgoing(row: Row) -> float:
    return max(row.info.outgoing.fill, row.info.outgoing_replies.fill)


def _high(row: Row) -> float:
    info = row.info
    rings = (info.incoming, info.incoming_replies, info.outgoing, info.outgoing_replies)
    return max((ring.high / ring.capacity for ring in rings if ring.capacity), default=0.0)


COLUMNS = (
    Column("ENDPOINT", "its name", 12, _name, lambda r: r.info.name, falling=False, right=False),
    Column(
        "STATE",
        "in one word, the worst of what applies; sorted by it, trouble comes first",
        8,
        lambda r, w: _plain(r.state, STATES[r.state].style),
        trouble,
        right=False,
    ),
    Column(
        "PID",
        "its process",
        8,
        lambda r, w: _plain(str(r.info.pid)),
        lambda r: r.info.pid,
        falling=False,
    ),
    Column(
        "CPU",
        "of one CPU, by its whole process, since the look before",
        5,
        lambda r, w: _plain("-" if r.health.cpu is None else f"{r.health.cpu:.0f}%"),
        lambda r: r.health.cpu or 0.0,
    ),
    Column(
        "MEM",
        "resident bytes of its whole process",
        6,
        lambda r, w: _plain("-" if r.health.memory is None else figures.size(r.health.memory)),
        lambda r: r.health.memory or 0,
    ),
    Column(
        "IN",
        "how full the fullest of the three rings is from which it takes messages",
        5,
        lambda r, w: figures.bar(_incoming(r), w - 1),
        _incoming,
        right=False,
    ),
    Column(
        "OUT",
        "how full the fuller of the two rings is into which it sends",
        5,
        lambda r, w: figures.bar(_outgoing(r), w - 1),
        _outgoing,
        right=False,
    ),
    Column(
        "HIGH",
        "the most that was ever in one of its rings",
        6,
        lambda r, w: _plain(figures.percent(_high(r))),
        _high,
    ),
    Column(
        "WAIT",
        "messages that wait for it, not taken yet",
        6,
        lambda r, w: _count(r.info.untouched),
        lambda r: r.info.untouched,
    ),
    Column(
        "OLDEST",
        "for how long the oldest of them has waited, or its own to be forwarded",
        8,
        lambda r, w: _plain(figures.duration(r.health.oldest), "" if r.health.oldest else "dim"),
        lambda r: r.health.oldest or 0.0,
    ),
    Column(
        "HAND",
        "messages in hand: begun and not done",
        6,
        lambda r, w: _count(r.info.in_hand),
        lambda r: r.info.in_hand,
    ),
    Column(
        "HANDLER",
        "for how long its handler has been at work; where several threads receive, for how long "
        "something has been in hand without a break; with ! one is overdue, and this is its time",
        9,
        _handler,
        lambda r: r.handling,
    ),
    Column(
        "PEND",
        "its requests under way",
        6,
        lambda r, w: _count(r.info.pending),
        lambda r: r.info.pending,
    ),
    Column(
        "RECV/S",
        "messages a second that it took",
        8,
        lambda r, w: _count(r.rates.received),
        lambda r: r.rates.received,
    ),
    Column(
        "SENT/S",
        "messages a second that it sent",
        8,
        lambda r, w: _count(r.rates.sent),
        lambda r: r.rates.sent,
    ),
    Column(
        "POOL",
        "bytes in use of its memory for what it sends and is too large for rings; red while it "
        "waits for space there",
        6,
        _pool,
        lambda r: r.info.pool.in_use if r.info.pool else 0,
    ),
    Column(
        "HOLDS",
        "bytes of such payloads of others that it looks at",
        6,
        lambda r, w: _bytes(_holds(r)),
        _holds,
    ),
    Column(
        "LOST",
        "messages that it should have got and did not; yellow where it chose so",
        6,
        _lost,
        lambda r: r.info.lost,
    ),
    Column(
        "REDEL",
        "messages handed on to it that another had before",
        7,
        lambda r, w: _count(r.info.redelivered),
        lambda r: r.info.redelivered,
    ),
    Column(
        "ERRORS",
        "handlers and callbacks that raised, and payloads that could not be decoded",
        8,
        lambda r, w: _count(_errors(r), "red"),
        _errors,
    ),
    Column(
        "DENIED",
        "how often it tried what its grant does not cover",
        8,
        lambda r, w: _count(r.info.forbidden, "red"),
        lambda r: r.info.forbidden,
    ),
    Column(
        "PROGRESS",
        "how long ago it last took a message",
        10,
        lambda r, w: _plain(figures.since(r.info.last_progress)),
        lambda r: r.info.last_progress or 0.0,
        falling=False,
    ),
)
BY_TITLE = {column.title: column for column in COLUMNS}
BY_TROUBLE = BY_TITLE["STATE"]

IMPORTANT = (
    *(
        "ENDPOINT",
        "STATE",
        "OLDEST",
        "WAIT",
        "HANDLER",
        "LOST",
        "RECV/S",
        "IN",
        "PID",
        "CPU",
        "OUT",
    ),
    *("MEM", "SENT/S", "HAND", "HIGH", "PEND", "REDEL", "ERRORS", "PROGRESS"),
    *("POOL", "HOLDS", "DENIED"),
)
"""The columns by importance: in a narrow terminal the last give way. A width of 80 has room for
those of the first line."""


KNOWN = ("ENDPOINT", "STATE", "PID")
"""The columns in which there is something to say of an endpoint of another site."""


def columns(width: int) -> list[Column]:
    """The columns that fit into a terminal of this width; names and bars share what is left."""
    left = width
    fit: set[str] = set()
    for title in IMPORTANT:
        left -= BY_TITLE[title].width
        if left < 0 and fit:
            left += BY_TITLE[title].width
            break
        fit.add(title)
    spare = max(left - 1, 0)  # beside a scrollbar
    wider = {"ENDPOINT": min(spare // 2, 36), "IN": min(spare // 4, 16), "OUT": min(spare // 4, 16)}
    return [
        column._replace(width=column.width + wider.get(column.title, 0))
        for column in COLUMNS
        if column.title in fit
    ]


def cell(column: Column, row: Row) -> Pieces:
    """One cell, aligned, with a gap at its end."""
    room = column.width - 1
    pieces, used = [], 0
    unknown = row.info.site is not None and column.title not in KNOWN
    for text, style in _plain("-", "dim") if unknown else column.cell(row, column.width):
        if text := text[: room - used]:
            pieces.append((text, style))
            used += len(text)
    gap = (" " * (room - used), "")
    return (gap, *pieces, (" ", "")) if column.right else (*pieces, (gap[0] + " ", ""))


def title(column: Column, sorted_by: Column | None = None, reverse: bool = False) -> Pieces:
    """The column's title, aligned as its cells are; where the table is sorted by it, with the
    direction: ▼ the largest (or worst) first, ▲ the smallest."""
    text, style = column.title, "bold"
    if sorted_by is not None and sorted_by.title == column.title:
        text, style = text + ("▼" if column.falling != reverse else "▲"), "bold reverse"
    room = column.width - 1
    gap = (" " * max(room - len(text), 0), "")
    return (gap, (text, style), (" ", "")) if column.right else ((text, style), (gap[0] + " ", ""))


def order(found: list[Row], column: Column, reverse: bool = False) -> list[Row]:
    """Rows by a column, those alike by name, those of other sites behind them."""
    found = sorted(found, key=lambda row: (row.info.site or "", row.info.name))
    return sorted(found, key=column.key, reverse=column.falling != reverse)
