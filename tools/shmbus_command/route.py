"""``shmbus route``."""

from __future__ import annotations

import click
from shmbus_console.options import bus_option, complete_type, json_option
from shmbus_console.output import print_json
from shmbus_console.text import columns

from shmbus import observe


@click.command()
@click.argument("type", shell_complete=complete_type)
@bus_option
@json_option
def route(type: str, bus: str | None, as_json: bool) -> None:
    """Show which endpoints would get a message of TYPE now, and why.

    Exit code 1 if none would."""
    with observe(bus) as view:
        found = view.route(type)
    if as_json:
        print_json(found)
    elif found.receivers:
        rows = [
            [
                "yes" if r.chosen else "if free first" if r.waits else "no",
                r.endpoint,
                r.role,
                r.pattern,
                r.reason,
            ]
            for r in found.receivers
        ]
        click.echo("\n".join(columns(["GETS IT", "ENDPOINT", "ROLE", "PATTERN", "WHY"], rows)))
    if not found.receivers:
        if not as_json:
            click.echo(
                f"no endpoint on bus {view.name} subscribes to {type} or handles it", err=True
            )
        click.get_current_context().exit(1)
