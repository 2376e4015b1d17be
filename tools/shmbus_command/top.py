"""``shmbus top``."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def top(arguments: tuple[str, ...]) -> None:
    """Watch a bus live: what shmtop shows."""
    from shmtop import command

    with command.shmtop.make_context("shmbus top", list(arguments)) as context:
        command.shmtop.invoke(context)
