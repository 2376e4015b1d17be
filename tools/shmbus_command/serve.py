"""``shmbus serve``."""

from __future__ import annotations

import click
from shmbus_console.options import seconds_option

from shmbus import Settings
from shmbus.host import host, summary

_DEFAULT = Settings()


@click.command()
@click.argument("name")
@click.option(
    "--ring-bytes",
    metavar="BYTES",
    type=int,
    default=_DEFAULT.ring_bytes,
    show_default=True,
    help="Bytes of each ring (four per endpoint); a power of two. A message takes at most a "
    "quarter.",
)
@click.option(
    "--max-endpoints",
    metavar="N",
    type=int,
    default=_DEFAULT.max_endpoints,
    show_default=True,
    help="Endpoints at a time.",
)
@seconds_option(
    "--block-timeout",
    _DEFAULT.block_timeout,
    help="How long a receiver whose ring is full may delay its senders.",
)
@seconds_option(
    "--stall-after",
    _DEFAULT.stall_after,
    help="Seconds after which an endpoint that takes nothing counts as stalled.",
)
@click.option(
    "--replace", is_flag=True, help="Put a bus of that name, of another layout, out of service."
)
@click.option(
    "--handover", is_flag=True, help="At the end, leave the bus as it stands for the next to adopt."
)
@click.option("--quiet", "-q", is_flag=True, help="Do not print what is served.")
def serve(
    name: str,
    ring_bytes: int,
    max_endpoints: int,
    block_timeout: float,
    stall_after: float,
    replace: bool,
    handover: bool,
    quiet: bool,
) -> None:
    """Serve the bus NAME until Ctrl-C or SIGTERM.

    A bus whose dispatcher was killed is adopted as it stands: nothing that was accepted is lost.
    """
    settings = Settings(
        ring_bytes=ring_bytes,
        max_endpoints=max_endpoints,
        block_timeout=block_timeout,
        stall_after=stall_after,
    )
    host(
        name,
        settings=settings,
        replace=replace,
        handover=handover,
        ready=lambda bus: None if quiet else click.echo(summary(bus)),
    )
