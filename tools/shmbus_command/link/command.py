"""``shmbus link``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from shmbus_console.options import bus_argument, json_option
from shmbus_console.output import note, print_json

from shmbus_command.attaching import attach_now, running_bus

from .checking import check as checked
from .checking import document, problems
from .options import config_options, given
from .running import run
from .status import asked, is_well, table

EXAMPLE = """\b
Two machines, where "berlin" can be reached by the other:
  berlin$ shmbus link symphony --site berlin --listen tls/0.0.0.0:7447 \\
            --tls-ca ca.pem --tls-certificate berlin.pem --tls-key berlin.key \\
            --export 'sensor.>' --import 'job.>'
  paris$  shmbus link symphony --site paris --connect tls/berlin.example:7447 \\
            --tls-ca ca.pem --tls-certificate paris.pem --tls-key paris.key \\
            --export 'job.>' --import 'sensor.>'
\b
The same as a FILE, in TOML; see the guide for all keys:
  site = "berlin"
  listen = ["tls/0.0.0.0:7447"]
  export = ["sensor.>"]
  import = ["job.>"]
  [tls]
  ca = "ca.pem"
  certificate = "berlin.pem"
  key = "berlin.key"

A message crosses if its type is exported by the one side and imported by the other, and somebody
over there wants it. Replies, errors and parts return with their request.
"""


@click.command(epilog=EXAMPLE, short_help="Join a bus to those of other machines.")
@bus_argument
@config_options
@click.option(
    "--check",
    is_flag=True,
    help="Say what would leave and come in, and what could not work; join nothing.",
)
@click.option(
    "--status",
    is_flag=True,
    help="Show the sites, as the links that run on the BUS see them. Exit code 1 if none is up.",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not print what is joined.")
@click.pass_context
def link(
    context: click.Context,
    /,
    bus: str | None,
    path: Path | None,
    check: bool,
    status: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Join BUS to the buses of other machines, until Ctrl-C or SIGTERM.

    Its programs go on as they are: events, requests and commands cross as if all were on one bus,
    where nobody nearer takes them. Nothing leaves that is not exported, nothing comes in that is
    not imported, by default nothing at all. The link runs in a process of its own, and is started
    again where that dies.

    While it runs: shmbus link BUS --status, shmbus ping SITE, shmbus ls.
    """
    if status:
        _show_status(context, bus, as_json)
        return
    config = given(path, options)
    if check:
        found = problems(config)
        if as_json:
            print_json(document(config, bus))
        else:
            click.echo("\n".join(checked(config, bus)))
            for problem in found:
                note("link", problem)
        context.exit(1 if found else 0)
    context.exit(run(running_bus(bus), config, quiet=quiet))


def _show_status(context: click.Context, bus: str | None, as_json: bool) -> None:
    with attach_now(bus, "link") as endpoint:
        found = asked(endpoint)
    for each in found:
        if as_json:
            print_json(each)
        else:
            click.echo("\n".join(table(each)))
    if not all(map(is_well, found)):
        context.exit(1)
