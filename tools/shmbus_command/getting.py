"""``shmbus get``."""

from __future__ import annotations

from collections import Counter

import click
from shmbus_console.messages import kept, kept_document, raw
from shmbus_console.options import bus_option, complete_type, json_option, raw_options, refuse_both
from shmbus_console.output import flush, print_json, write

from shmbus import observe


@click.command(short_help="Print the values that a bus keeps.")
@click.argument("pattern", default=">", shell_complete=complete_type)
@bus_option
@raw_options
@json_option
def get(pattern: str, bus: str | None, as_raw: bool, delimiter: bytes, as_json: bool) -> None:
    """Print the values that the bus keeps of the types that PATTERN matches (by default of all):
    events that were published to be retained, in the order of their publication. Read-only.

    Standard error says how many could not be copied, because they were replaced all the time.

    Exit code 1 if there is none."""
    refuse_both(as_json, as_raw, delimiter)
    with observe(bus) as view:
        found = view.retained(pattern)
    values = [value for value in found if value.whole]
    for value in values:
        if as_json:
            print_json(kept_document(value))
        else:
            write(raw(value.payload), delimiter) if as_raw else write(kept(value))
    flush()
    for type, count in Counter(value.type for value in found if not value.whole).items():
        click.echo(
            f"of {type}, {count} not printed: gone before copied, as newer ones came. "
            f"shmbus sub {type} --history {count} gets such values whole",
            err=True,
        )
    if not values:
        if not (as_json or as_raw):
            click.echo(f"bus {view.name} keeps no value of a type that {pattern} matches", err=True)
        click.get_current_context().exit(1)
