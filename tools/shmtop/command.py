"""The command line of `shmtop`."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import sys
import threading
import time

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text
from shmbus_console.options import bus_argument, seconds_option

from . import columns, lines
from .rows import Row
from .sampler import Sampler

LAST = 3
"""Deaths and losses that are shown below the table."""
LEAVING = 3.0
"""Seconds that the endpoint of a page may take to leave the bus at the end."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@bus_argument
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and end.")
@seconds_option(
    "--interval",
    "1s",
    least="50ms",
    most="1m",
    help="Time between two looks; with --once and --json what rates are measured over.",
)
def shmtop(bus: str | None, once: bool, as_json: bool, interval: float) -> None:
    """Show the endpoints, queues and health of BUS, by default the only one running.

    Everything is read from shared memory: it costs the bus nothing, and works when its dispatcher
    hangs or has died. Two pages attach to the bus, and say so: the tail, and that of deaths and
    events. The key ? explains keys, columns and states.

    Exit codes: 0, also when ended by Ctrl-C or SIGTERM; 1 if its terminal has gone, and with --once
    or --json if the bus is not healthy; 2 without a terminal; 3 if the bus cannot be read; as those
    of `shmbus --help` otherwise.
    """
    sampler = Sampler(bus)
    try:
        if once or as_json:
            sys.exit(_print_once(sampler, as_json, interval))
        require_terminal()
        live(sampler, interval)
    finally:
        sampler.close()


def require_terminal() -> None:
    """Refuse to draw where nobody would see it, or could type."""
    for name, stream in (("input", sys.stdin), ("output", sys.stdout), ("error", sys.stderr)):
        if stream is None or not stream.isatty():
            raise click.UsageError(
                f"standard {name} is not a terminal; use --once for a table, or --json"
            )
    if os.environ.get("TERM") == "dumb":
        raise click.UsageError("this terminal is a dumb one; use --once for a table, or --json")


def live(sampler: Sampler, interval: float) -> None:
    """Until somebody ends it, by a key or a signal."""
    with contextlib.suppress(KeyboardInterrupt):  # before it could take signals, or after
        from .app import ShmTop

        app = ShmTop(sampler, interval)
        threading.Thread(target=_end_with_terminal, name="shmtop-terminal", daemon=True).start()
        gc.freeze()  # what was imported stays: do not search all of it after every few looks
        try:
            app.run()
        finally:
            if app.attached is not None:
                app.attached.join(LEAVING)


def _end_with_terminal() -> None:
    """Wait until the terminal is gone, and end: Textual's threads would look at it for ever."""
    gone = select.poll()
    gone.register(0, 0)  # nothing but its end
    gone.poll()
    time.sleep(LEAVING)  # for who is told by SIGHUP
    os._exit(1)


def _print_once(sampler: Sampler, as_json: bool, interval: float) -> int:
    time.sleep(interval)
    sample = sampler.sample()
    health = sample.look.health
    if as_json:
        document = {
            "bus": sample.look.info,
            "health": health,
            "backlogs": sample.look.backlogs,
            "pools": sample.look.pools,
            "sites": sample.look.sites,
            "endpoints": [
                {**msgspec.to_builtins(row.info), "rates": row.rates, "condition": row.health.state}
                for row in sample.rows
            ],
        }
        click.echo(msgspec.json.encode(document).decode())
    else:
        console = Console(highlight=False)
        for line in (lines.headline(sample), lines.traffic(health), *lines.sites(sample.sites)):
            console.print(line, no_wrap=True, overflow="ellipsis")
        for line in (*lines.reasons(health), *lines.backlogs(sample.look.backlogs)):
            console.print(line)
        console.print(_table(sample.rows, console.width))
        if not sample.look.endpoints:
            console.print(lines.nobody(sample))
        for death in health.last_deaths[:LAST]:
            console.print(Text("died ").append_text(lines.died(death)))
        for loss in health.last_losses[:LAST]:
            console.print(Text("lost ").append_text(lines.lost(loss)))
    return 0 if health.healthy else 1


def _table(found: list[Row], width: int) -> Table:
    """All endpoints, the worst first."""
    shown = columns.columns(width)
    result = Table(box=None, padding=0, pad_edge=False, show_edge=False)
    for column in shown:
        head = Text.assemble(*columns.title(column))
        result.add_column(head, width=column.width, no_wrap=True, header_style="bold")
    for row in columns.order(found, columns.BY_TROUBLE):
        result.add_row(*(Text.assemble(*columns.cell(column, row)) for column in shown))
    return result
