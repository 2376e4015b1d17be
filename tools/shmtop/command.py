"""The command line of `shmtop`."""

from __future__ import annotations

import sys
import time

import click
import msgspec
from rich.console import Console
from rich.text import Text
from shmbus_console.options import bus_argument

from . import cells
from .sampler import Sampler

LAST = 3
"""Deaths that are shown below the table."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@bus_argument
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and end.")
@click.option(
    "--interval",
    type=click.FloatRange(0.05, 60.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks; with --once and --json what rates are measured over.",
)
def shmtop(bus: str | None, once: bool, as_json: bool, interval: float) -> None:
    """Show the endpoints, queues and health of BUS, by default the only one running.

    Everything is read from shared memory: it costs the bus nothing, and works when its dispatcher
    hangs or has died.

    Exit codes: 0; with --once or --json 1 if the bus is not healthy; 3 if it cannot be read; as
    those of `shmbus --help` otherwise.
    """
    sampler = Sampler(bus)
    try:
        if once or as_json:
            sys.exit(_print_once(sampler, as_json, interval))
        from .app import ShmTop

        ShmTop(sampler, interval).run()
    finally:
        sampler.close()


def _print_once(sampler: Sampler, as_json: bool, interval: float) -> int:
    time.sleep(interval)
    sample = sampler.sample()
    health = sample.look.health
    if as_json:
        document = {
            "bus": sample.look.info,
            "health": health,
            "backlogs": sample.look.backlogs,
            "endpoints": [
                {**msgspec.to_builtins(row.info), "rates": row.rates, "condition": row.health.state}
                for row in cells.rows(sample)
            ],
        }
        click.echo(msgspec.json.encode(document).decode())
    else:
        console = Console(highlight=False)
        console.print(cells.headline(health), no_wrap=True, overflow="ellipsis")
        console.print(cells.traffic(health), no_wrap=True, overflow="ellipsis")
        for reason in health.reasons:
            style = cells.VERDICTS[health.state][1]
            console.print(f"! {reason}", style=style, markup=False)
        for line in cells.backlogs(sample.look.backlogs):
            console.print(line)
        console.print(cells.table(sample, console.width))
        if not sample.look.endpoints:
            console.print(cells.nobody(sample))
        for death in health.last_deaths[:LAST]:
            console.print(Text("died ").append_text(cells.died(death)))
    return 0 if health.healthy else 1
