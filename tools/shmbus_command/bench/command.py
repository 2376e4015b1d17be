"""``shmbus bench``: latency and throughput of a bus on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from shmbus_console.options import Number, json_option, seconds_option
from shmbus_console.output import print_json
from shmbus_console.text import columns, duration

from shmbus.options import sized

from . import plot
from .comparing import Before, Compared, compare, table
from .figures import PERCENTILES, Figures, Latency
from .measuring import LARGEST, measure


class BeforeFile(click.ParamType):  # type: ignore[type-arg]  # a generic one only since click 8.3
    """A document that an earlier ``shmbus bench --json`` printed."""

    name = "FILE"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> Before:
        if isinstance(value, Before):
            return value
        path = Path(str(value))
        try:
            return Before(str(path), msgspec.json.decode(path.read_bytes(), type=Figures))
        except OSError as problem:
            self.fail(f"{path}: {problem.strerror}", parameter, context)
        except (ValueError, RecursionError) as problem:
            self.fail(
                f"{path} is not what `shmbus bench --json` prints ({problem}); make one: "
                "shmbus bench --json > FILE",
                parameter,
                context,
            )


@click.command(short_help="Measure latency and throughput of a bus on this machine.")
@seconds_option("--seconds", "30s", least="1s", most="1h", help="About how long it takes.")
@click.option(
    "--size",
    type=click.IntRange(0, LARGEST),
    metavar="BYTES",
    help="Of all payloads; by default 64, and several sizes for the most events.",
)
@click.option(
    "--clients",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Also let so many processes make requests at the same time.",
)
@click.option(
    "--compare",
    "before",
    type=BeforeFile(),
    metavar="FILE",
    help="Show each figure beside that of an earlier run, which `bench --json` printed.",
)
@click.option(
    "--fail-above",
    type=Number(1.0),
    metavar="RATIO",
    help="With --compare: exit code 1 if a median or a rate is this many times worse.",
)
@click.option(
    "--svg",
    type=click.File("w", encoding="utf-8", lazy=False, atomic=True),
    help="Write the plot there.",
)
@json_option
def bench(
    seconds: float,
    size: int | None,
    clients: int | None,
    before: Before | None,
    fail_above: float | None,
    svg: TextIO | None,
    as_json: bool,
) -> None:
    """Measure latency and throughput of a bus on this machine, in half a minute.

    Two processes exchange messages of 64 bytes through the dispatcher, a third: requests one after
    the other, events at a steady pace, and as many events as possible, for several sizes. It serves
    a bus of its own. What else runs on the machine affects the figures.
    """
    if fail_above is not None and before is None:
        raise click.UsageError("--fail-above compares with an earlier run: give --compare FILE")
    figures = _measured(seconds, size, clients, quiet=as_json)
    compared = compare(before, figures) if before is not None else None
    if svg is not None:
        svg.write(plot.svg(_curves(figures), _rates(figures), figures.machine))
    if as_json:
        more = {} if compared is None else {"compared": compared}
        print_json({**msgspec.to_builtins(figures), **more})
    else:
        _show(figures)
        if compared is not None:
            click.echo("\n" + "\n".join(table(compared)))
    if compared is not None and fail_above is not None:
        _judge(compared, fail_above)


def _measured(seconds: float, size: int | None, clients: int | None, *, quiet: bool) -> Figures:
    bar = Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task("bench", total=1.0)

        def progress(what: str, part: float) -> None:
            bar.update(task, description=what, completed=part)

        return measure(seconds, progress, size=size, clients=clients)


def _judge(compared: Compared, limit: float) -> None:
    """End with exit code 1 where a steady figure is worse by more than the limit."""
    worse = [one for one in compared.figures if one.steady and one.worse > limit]
    for one in worse:
        click.echo(f"shmbus bench: {one.figure} is {one.worse:.2f} times worse", err=True)
    if worse:
        click.get_current_context().exit(1)


def _curves(figures: Figures) -> dict[str, list[tuple[float, float]]]:
    return {"request and reply": figures.request.curve(), "event": figures.event.curve()}


def _rates(figures: Figures) -> list[tuple[str, float]]:
    if len(figures.floods) > 2:
        return [(sized(f.size), f.rate) for f in figures.floods[2:]]
    return [("one by one", figures.floods[0].rate), ("in batches", figures.floods[1].rate)]


def _show(figures: Figures) -> None:
    click.echo(f"{figures.machine}; {figures.seconds:.0f} s\n")
    heads = ["LATENCY", "COUNT", "MEAN", *(f"p{p:g}" if p < 100 else "MAX" for p in PERCENTILES)]
    shown: list[tuple[str, Latency]] = [
        ("request and reply", figures.request),
        ("event", figures.event),
    ]
    if (crowd := figures.crowd) is not None:
        shown.append((f"request of {crowd.clients} clients", crowd.request))
    rows = [
        [name, f"{of.count:,}", duration(of.mean), *map(duration, of.percentiles.values())]
        for name, of in shown
    ]
    click.echo("\n".join(columns(heads, rows)))
    click.echo(
        f"routing of these events: mean {duration(figures.routing_mean)}, "
        f"p99 {duration(figures.routing_p99)}"
    )
    if crowd is not None:
        click.echo(f"{crowd.clients} clients at the same time: {crowd.rate:,.0f} requests/s")
    click.echo()
    click.echo("\n".join(plot.curves(_curves(figures))) + "\n")
    heads = ["THROUGHPUT", "MESSAGES/s", "MB/s", "LOST"]
    rows = [
        [
            f"{sized(f.size)}, {'one by one' if f.batch == 1 else f'batches of {f.batch}'}",
            f"{f.rate:,.0f}",
            f"{f.bytes_per_second / 1e6:,.1f}",
            f"{f.lost:,}",
        ]
        for f in figures.floods[:2]
    ]
    rows += [
        [sized(f.size), f"{f.rate:,.0f}", f"{f.bytes_per_second / 1e6:,.1f}", f"{f.lost:,}"]
        for f in figures.floods[2:]
    ]
    click.echo("\n".join(columns(heads, rows)) + "\n")
    click.echo("\n".join(plot.bars(_rates(figures))))
