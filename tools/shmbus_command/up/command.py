"""``shmbus up``."""

from __future__ import annotations

from pathlib import Path

import click
from shmbus_console.options import bus_option, json_option, named_by_variable
from shmbus_console.output import note, print_json

from .checking import check as checked
from .checking import problems
from .controls import controlled
from .file import File, Unfit, read
from .running import run
from .status import has_failed, table

EXAMPLE = """\b
A FILE, in TOML:
  [bus]
  name = "symphony"
\b
  [process.indexer]
  command = "python indexer.py"
\b
  [process.web]
  command = ["python", "web.py", "--port", "8080"]
  needs = ["index.query"]         # is started once somebody handles that
  restart = "on-failure"          # or "always" (the default), "never"
\b
  [output]                        # without it: to the terminal
  directory = "logs"

Further keys of a process are the fields of shmbus.Process, those of [bus] the settings of a bus.
Its processes run in the directory of the file; SHMBUS_BUS names the bus to them.
"""


@click.command(epilog=EXAMPLE, short_help="Run a bus and its processes, from a file.")
@click.argument(
    "path",
    metavar="[FILE]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option(
    "--check",
    is_flag=True,
    help="Say what would be started and when, and what could not be; start nothing.",
)
@click.option(
    "--status", is_flag=True, help="Show how they are that run. Exit code 1 if one has failed."
)
@bus_option
@json_option
@click.pass_context
def up(
    context: click.Context,
    path: Path | None,
    check: bool,
    status: bool,
    bus: str | None,
    as_json: bool,
) -> None:
    """Run a bus and its processes, as a FILE says, until Ctrl-C or SIGTERM.

    Processes that die are started again. What they print is printed with their names. Ctrl-C stops
    them in reverse order, a second one kills them. SIGHUP, or shmbus reload, reads the file again.
    Where this command itself was killed, its processes run on, and the next shmbus up adopts them.

    While it runs: shmbus up --status, shmbus restart NAME, shmbus logs, shmbus reload. It ends by
    itself where no process is left that would run again, with exit code 1 if one has failed.
    """
    if status:
        _show_status(context, bus if path is None else _read(path).bus, as_json)
        return
    if path is None:
        raise click.UsageError("name the FILE that says what to run, or give --status")
    if bus is not None and not named_by_variable(context):
        raise click.UsageError("the FILE names the bus: remove --bus")
    file = _read(path)
    if check:
        click.echo("\n".join(checked(file)))
        for problem in (found := problems(file)):
            note("up", f"{path}: {problem}")
        context.exit(1 if found else 0)
    elif not run(path, file):
        context.exit(1)


def _read(path: Path) -> File:
    try:
        return read(path)
    except Unfit as problem:
        raise click.UsageError(str(problem)) from None


def _show_status(context: click.Context, bus: str | None, as_json: bool) -> None:
    with controlled(bus) as (_, control):
        found = control.status()
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(table(found)))
    if any(map(has_failed, found)):
        context.exit(1)
