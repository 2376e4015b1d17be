"""``shmbus demo``."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from shmbus_console.text import duration

from .play import Outcome, play


@click.command(short_help="Do real work on a bus, and kill a worker half-way.")
@click.argument("path", type=click.Path(exists=True, file_okay=False), required=False)
@click.option(
    "--workers",
    type=click.IntRange(2, 32),
    default=3,
    show_default=True,
    metavar="N",
    help="Number of tokenising workers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
@click.pass_context
def demo(context: click.Context, path: str | None, workers: int, as_json: bool) -> None:
    """Index the source files below PATH over a bus, and kill a worker half-way.

    One process reads the files, a group of workers tokenises them, an index collects what they
    find, a client queries it, all over a bus of its own. Half-way one of the workers is killed.
    The result is compared with an index made by one process alone: exit code 1 where they differ.

    PATH is by default the standard library of the Python that runs this.
    """
    root = Path(path or sysconfig.get_path("stdlib")).resolve()
    stages: dict[str, TaskID] = {}
    bar = Progress(
        TextColumn("{task.description:18}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=as_json or not sys.stderr.isatty(),
    )

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            stages[stage] = bar.add_task(stage, total=total)
        bar.update(stages[stage], completed=done)

    with bar:
        try:
            outcome = play(root, workers=workers, progress=progress)
        except FileNotFoundError as problem:
            raise click.UsageError(f"{problem}; give a directory that has some") from None
    if as_json:
        click.echo(msgspec.json.encode(outcome).decode())
    else:
        _show(outcome)
        if sys.stderr.isatty():
            click.echo("next: docs/tutorial.md; or shmbus serve NAME, and shmtop", err=True)
    if outcome.differences:
        for difference in outcome.differences:
            click.echo(f"shmbus: {difference}", err=True)
        context.exit(1)


def _show(outcome: Outcome) -> None:
    table = Table(title=f"shmbus demo {outcome.path}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")

    def row(name: str, value: str) -> None:
        table.add_row(name, value)

    row("files", f"{outcome.files:,} ({outcome.bytes / 1e6:.1f} MB, {outcome.words:,} words)")
    row("messages", f"{outcome.messages:,} in {outcome.seconds:.2f} s")
    row("messages/s", f"{outcome.rate:,.0f}")
    row("routing latency, average", duration(outcome.latency_mean))
    row("routing latency, median", duration(outcome.latency_p50))
    row("routing latency, p99", duration(outcome.latency_p99))
    row("requests correct", f"{outcome.correct:,} of {outcome.requests:,}")
    row("lost", f"{outcome.lost:,}")
    row("redelivered", f"{outcome.redelivered:,}")
    row(f"death of {outcome.killed} seen after", duration(outcome.death_seen))
    row("its work taken over after", duration(outcome.taken_over))
    row("one process alone", f"{outcome.plain_seconds:.2f} s")
    row("same index", "no" if outcome.differences else "yes")
    Console(highlight=False).print(table)
