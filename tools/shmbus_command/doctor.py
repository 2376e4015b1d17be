"""``shmbus doctor``."""

from __future__ import annotations

import click
from shmbus_console.options import bus_argument, json_option
from shmbus_console.output import print_json

from shmbus.options import sized
from shmbus.views import check_host, find_foreign, find_leavings, free_leaving

_MARKS = {"good": ("ok", "green"), "note": ("note", "yellow"), "bad": ("bad", "red")}


@click.command(short_help="Check this machine, and find what dead processes left.")
@bus_argument
@click.option("--fix", is_flag=True, help="Free what is provably not used any more.")
@json_option
@click.pass_context
def doctor(context: click.Context, bus: str | None, fix: bool, as_json: bool) -> None:
    """Check this machine, and find what dead buses, endpoints and users of queues left in /dev/shm:
    all of this user's, or BUS alone.

    BUS need not run: what is left of it is looked for.

    Exit code 1 if something is bad or such leavings are there; with --fix, if some remain.
    """
    findings = check_host(bus)
    left = find_leavings(bus)
    freed = {}
    if fix:
        freed = {leaving: free_leaving(leaving) for leaving in left if leaving.removable}
        left = find_leavings(bus)
    foreign = find_foreign()
    if as_json:
        print_json(
            {
                "host": findings,
                "freed": [
                    {"bus": f.bus, "queue": f.queue, "owner": f.owner, "bytes": n}
                    for f, n in freed.items()
                ],
                "leavings": left,
                "foreign": foreign,
            }
        )
    else:
        for finding in findings:
            word, colour = _MARKS[finding.state]
            click.echo(f"{click.style(f'{word:4}', fg=colour)}  {finding.subject}: {finding.text}")
            if finding.remedy:
                click.echo(f"      {finding.remedy}")
        for leaving, count in freed.items():
            click.echo(f"freed {sized(count)} of {leaving.what} ({leaving.owner})")
        for leaving in left:
            word = click.style("left", fg="yellow")
            holds = f"{len(leaving.files)} files, {sized(leaving.bytes)}"
            click.echo(f"{word}  {leaving.what}: {holds}; {leaving.owner}")
            remedy = "shmbus doctor --fix frees it" if leaving.removable else "kept"
            click.echo(f"      {remedy}: {leaving.reason}")
        for other in foreign:
            queues = [f"{other.queues} queues"] if other.queues else []
            listed = ", ".join([*other.buses, *queues])
            click.echo(f"note  user {other.uid} has {sized(other.bytes)} here: {listed}")
        if not left:
            where = "/dev/shm" if bus is None else f"/dev/shm of bus {bus}"
            click.echo(f"{click.style('ok  ', fg='green')}  leavings: none in {where}")
    if left or any(finding.state == "bad" for finding in findings):
        context.exit(1)
