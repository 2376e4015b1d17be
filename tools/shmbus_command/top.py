"""``shmbus top``."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def top(arguments: tuple[str, ...]) -> None:
    """Watch a bus live: what shmtop shows."""
    from shmtop import command

    shmbus = click.get_current_context().parent
    with command.shmtop.make_context("top", list(arguments), parent=shmbus) as context:
        command.shmtop.invoke(context)
