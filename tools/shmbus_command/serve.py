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
    "--in-bytes",
    metavar="BYTES",
    type=int,
    default=_DEFAULT.in_bytes,
    show_default=True,
    help="Bytes of each endpoint's ring for what it gets; a power of two. A message takes at most "
    "a quarter of each ring that it passes.",
)
@click.option(
    "--out-bytes",
    metavar="BYTES",
    type=int,
    default=_DEFAULT.out_bytes,
    show_default=True,
    help="Bytes of the ring for what it sends.",
)
@click.option(
    "--reply-bytes",
    metavar="BYTES",
    type=int,
    default=_DEFAULT.reply_bytes,
    show_default=True,
    help="Bytes of each of its two rings for replies.",
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
    in_bytes: int,
    out_bytes: int,
    reply_bytes: int,
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
        in_bytes=in_bytes,
        out_bytes=out_bytes,
        reply_bytes=reply_bytes,
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
