"""``shmbus types``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import click
from rich.live import Live
from rich.text import Text
from shmbus_console.options import bus_option, complete_type, json_option, seconds_option
from shmbus_console.output import note, print_json
from shmbus_console.run import usual_end
from shmbus_console.text import columns

from shmbus import Message, Settings
from shmbus.options import sized

from .attaching import attach_now, wait_for_bus
from .filtering import Filter, filter_options, watch
from .flow import Flow, Flows, Report
from .streaming import stream

_RING = Settings(in_bytes=4 << 20)  # so that bursts are not missed


@click.command(short_help="Show which types of message flow, how many and from whom.")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...", shell_complete=complete_type)
@bus_option
@seconds_option("--over", help="Print one table, of what passes within so long, and end.")
@seconds_option("--interval", "1s", least="1ms", help="Else show a new one each time.")
@click.option(
    "--by",
    type=click.Choice(["type", "source", "both"]),
    default="type",
    show_default=True,
    help="What makes a line.",
)
@click.option(
    "--most",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    metavar="N",
    help="Lines, of the busiest.",
)
@wait_for_bus
@filter_options
@json_option
def types(
    patterns: tuple[str, ...],
    bus: str | None,
    over: float | None,
    interval: float,
    by: Literal["type", "source", "both"],
    most: int,
    wait: float | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Show what flows: of each type of message how many a second, how many bytes of payload, how
    many so far, and from whom; the busiest first. Until Ctrl-C, or once with --over.

    An event to several counts once for each. It is counted from a tap, which delays nobody and
    costs the dispatcher one more copy of each message: what this misses on a busy bus is told, and
    the figures are lower bounds then. PATTERN is by default >, all but the bus's own ('$bus.>').
    """
    filter = Filter(**wanted)
    with attach_now(bus, "types", wait, settings=_RING) as endpoint, usual_end():
        watch(endpoint, patterns or (">",))
        flows = Flows(endpoint.bus.name, by, time.monotonic())
        due = time.monotonic() + interval

        def each(message: Message[Any]) -> None:
            if message.lost:
                flows.miss(message.lost)
            if (passed := filter.passed(message)) is not None:
                flows.add(passed)

        with _shown(as_json) as show:

            def tick() -> None:
                nonlocal due
                if over is None and (now := time.monotonic()) >= due:
                    due = now + interval
                    show(flows.report(now, most))

            note("types", f"tapping {endpoint.bus.name}")
            stream("types", endpoint, None, over, each, tick, copies=True, tell_lost=False)
            if over is not None:
                show(flows.report(time.monotonic(), most))


@contextmanager
def _shown(as_json: bool) -> Iterator[Callable[[Report], None]]:
    """A call that shows a report: as a document, in the place of the one before, or below it."""
    if as_json:
        yield print_json
    elif sys.stdout.isatty():
        with Live(auto_refresh=False, vertical_overflow="crop") as live:

            def draw(report: Report) -> None:
                lines = "\n".join(_table(report))
                live.update(Text(lines, no_wrap=True, overflow="ellipsis"), refresh=True)

            yield draw
    else:
        yield lambda report: click.echo("\n".join([*_table(report), ""]))


def _table(report: Report) -> list[str]:
    least = "at least " if report.at_least else ""
    lines = [
        f"{report.bus}: {least}{_number(report.rate)} messages/s, "
        f"{sized(report.bytes_per_second)}/s over {report.seconds:.1f} s, {report.count:,} in all"
    ]
    if report.at_least:
        lines.append(
            f"  {report.missed:,} copies were missed, {report.missed_in_all:,} in all: all figures "
            "are lower bounds; give a narrower PATTERN"
        )
    if report.flows:
        first = report.flows[0]
        heads = [*(["TYPE"] if first.type else []), *(["SOURCE"] if first.source else [])]
        heads += ["MESSAGES/s", "BYTES/s", "MESSAGES", "BYTES", "FAILED", "KIND"]
        heads += [] if first.type and first.source else ["TYPES" if first.source else "SOURCES"]
        lines += columns(heads, [_row(flow) for flow in report.flows], "  ")
    if report.others_count:
        others = f"{report.others:,} others" if report.others else "others"
        lines.append(f"  and {others}: {report.others_count:,} messages")
    return lines


def _row(flow: Flow) -> list[str]:
    name = [part for part in (flow.type, flow.source) if part is not None]
    of = [] if len(name) > 1 else [" ".join([*flow.of, *(["and others"] if flow.more_of else [])])]
    return [
        *name,
        _number(flow.rate),
        sized(flow.bytes_per_second),
        f"{flow.count:,}",
        sized(flow.bytes),
        f"{flow.failed:,}",
        " ".join(sorted(flow.kinds, key=lambda kind: -flow.kinds[kind])),
        *of,
    ]


def _number(rate: float) -> str:
    return f"{rate:,.1f}" if rate < 100 else f"{rate:,.0f}"
