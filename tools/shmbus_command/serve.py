"""``shmbus serve``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from shmbus_console.options import seconds_option

from shmbus import Settings, streams
from shmbus.host import host, summary
from shmbus.options import OPTIONS


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        if option.unit == "TIME":
            add = seconds_option(option.name, option.shown, help=option.help)
        else:
            add = click.option(
                option.name,
                metavar=option.unit,
                type=option.type,
                default=option.default,
                show_default=option.default is not None,
                help=option.help,
            )
        command = add(command)
    return command


@click.command()
@click.argument("name")
@_options
@click.option(
    "--replace",
    is_flag=True,
    help="Put a bus of that name, left running by another version, out of service.",
)
@click.option(
    "--handover", is_flag=True, help="At the end, leave the bus as it stands for the next to adopt."
)
@click.option("--quiet", "-q", is_flag=True, help="Do not print what is served.")
def serve(name: str, replace: bool, handover: bool, quiet: bool, **settings: Any) -> None:
    """Serve the bus NAME until Ctrl-C or SIGTERM.

    A bus whose dispatcher was killed is adopted as it stands: nothing that was accepted is lost.
    """
    host(
        name,
        settings=Settings(**settings),
        replace=replace,
        handover=handover,
        ready=lambda bus: None if quiet else streams.say(summary(bus), sys.stdout),
    )
